import pytest
from conftest import add_user, press
from webob.exc import HTTPForbidden
from webtest import Upload

from components.comment.comment_models import Comment
from components.issue_list import issue_list_logic
from functions.issues import open_issue

HTMX = {"HX-Request": "true"}


@pytest.fixture
def comment(db, issue, ada):
    comment = Comment(issue=issue, author=ada, body="Oil it.")
    db.add(comment)
    db.commit()
    return comment


def titles(page):
    return [link.text for link in page.html.select(".issues li > a:not(.label)")]


# ---- Issues -----------------------------------------------------------------------


def test_a_member_adds_an_issue_which_gets_the_next_number(visit, ada, issue):
    page = visit(ada).get("/projects/engine").click("New issue")
    page = press("Add issue", page, title="It hums", body="In the\nkey of <C>.").follow()
    assert page.request.path == "/projects/engine/2"
    assert page.html.h1.text == "It hums"
    assert page.html.select_one(".text").text == "In the\nkey of <C>."


def test_an_issue_without_a_title_is_refused_and_the_text_kept(visit, ada, project):
    page = visit(ada).get("/projects/engine/new")
    page = press("Add issue", page, status=422, title=" ", body="Much text")
    assert page.html.find(role="alert").text == "Please write something."
    assert page.html.textarea.text.strip() == "Much text"


def test_strangers_read_and_cannot_write(visit, grace, issue, comment):
    for client in visit(), visit(grace):
        page = client.get("/projects/engine/1")
        assert "Oil it." in page
        assert not page.html.main.find("form")
        assert "New issue" not in client.get("/projects/engine")
    visit(grace).get("/projects/engine/new", status=403)


def test_who_is_a_member_no_more_cannot_write_by_a_page_from_before(visit, db, ada, project, issue):
    page = visit(ada).get("/projects/engine/1")
    project.members.clear()
    db.commit()
    for button, fields in {"Comment": {"body": "!"}, "Save": {}, "Upload": {}}.items():
        press(button, page, status=403, **fields)


@pytest.mark.parametrize("path", ["/projects/loom", "/projects/engine/7"])
def test_what_is_not_there_is_not_found(visit, ada, project, path):
    page = visit(ada).get(path, status=404)
    assert page.html.h1.text == "Not Found"
    assert "There is no" in page


@pytest.mark.parametrize("headers", [None, HTMX])
def test_a_member_labels_and_closes_an_issue(visit, ada, issue, headers):
    client = visit(ada)
    form = client.get("/projects/engine/1").forms[1]
    form.get("label", index=0).checked = form["closed"].checked = True
    answer = form.submit(headers=headers)
    assert bool(answer.html.h1) == (headers is None)  # alone, or within the page
    assert [box["value"] for box in answer.html.select("[name=label][checked]")] == ["bug"]
    assert not issue.is_open
    assert client.get("/projects/engine").html.select_one(".closed .label").text == "bug"


# ---- Comments ---------------------------------------------------------------------


def test_a_member_comments(visit, ada, issue):
    page = visit(ada).get("/projects/engine/1")
    page = press("Comment", page, body="It is\n<fixed>.").follow()
    assert page.html.article.select_one(".text").text == "It is\n<fixed>."
    page = press("Comment", page, status=422, body=" ")
    assert page.html.find(role="alert").text == "Please write something."


@pytest.mark.parametrize("headers", [None, HTMX])
def test_its_author_edits_a_comment_in_place(visit, ada, comment, headers):
    page = visit(ada).get("/projects/engine/1")
    form = next(form for form in page.forms.values() if "Oil it." in form.text)
    form["body"] = " "
    refused = form.submit(headers=headers, status=422)
    assert refused.html.article.details.has_attr("open")
    form["body"] = "Oil it well."
    answer = form.submit(headers=headers)
    assert bool(answer.html.h1) == (headers is None)
    assert answer.html.article["id"] == page.html.article["id"]
    assert answer.html.article.select_one(".text").text == "Oil it well."
    assert not answer.html.article.details.has_attr("open")
    assert comment.edited_at


def test_nobody_else_edits_a_comment(app, visit, admin, comment):
    assert not visit(admin).get("/projects/engine/1").html.article.form
    with pytest.raises(HTTPForbidden):
        app.act("comment.save", {"body": "!"}, session={"user_id": admin.id}, id=comment.id)


def test_more_comments_send_no_more_queries(app, visit, db, issue):
    counts = []
    for names in "AB", "CDEFGH":
        db.add_all(Comment(issue=issue, author=add_user(db, name), body="More") for name in names)
        db.commit()
        with app.count_queries() as queries:
            visit().get("/projects/engine/1")
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 5, queries


# ---- Lists ------------------------------------------------------------------------


@pytest.fixture
def issues(db, project, ada, monkeypatch):
    monkeypatch.setattr(issue_list_logic, "SIZE", 3)
    for number in range(1, 8):
        open_issue(db, project, ada, f"Wheel {number}", "100% of it" if number % 2 else "Oil")
    db.commit()


def test_a_list_has_pages(visit, issues):
    page = visit().get("/projects/engine")
    assert titles(page) == ["Wheel 7", "Wheel 6", "Wheel 5"]
    page = page.click("Older issues").click("Older issues")
    assert titles(page) == ["Wheel 1"]
    assert titles(page.click("Newer issues")) == ["Wheel 4", "Wheel 3", "Wheel 2"]


def test_a_list_loads_more_by_a_script(visit, issues):
    client = visit()
    page, seen = client.get("/projects/engine"), []
    while link := page.html.find(rel="next"):
        page = client.get(link["hx-get"], headers=HTMX)
        assert not page.html.h1
        seen += titles(page)
    assert seen == ["Wheel 4", "Wheel 3", "Wheel 2", "Wheel 1"]


def test_a_search_finds_all_words_anywhere_by_form_and_by_script(visit, issues):
    client = visit()
    page = client.get("/projects/engine")
    found = press("Search", page, q="WHEEL 100%", status=200)
    assert titles(found) == ["Wheel 7", "Wheel 5", "Wheel 3"]
    assert titles(found.click("Older issues")) == ["Wheel 1"]
    assert found.form["q"].value == "WHEEL 100%"
    url = page.html.form["hx-get"]
    assert titles(client.get(f"{url}&q=wheel+4", headers=HTMX)) == ["Wheel 4"]
    assert "Nothing was found." in client.get(f"{url}&q=_", headers=HTMX)


def test_a_label_leads_to_its_issues(visit, ada, issues):
    client = visit(ada)
    form = client.get("/projects/engine/2").forms[1]
    form.get("label", index=1).checked = True
    form.submit()
    page = client.get("/projects/engine?page=2").click("idea")
    assert titles(page) == ["Wheel 2"]


def test_all_issues_go_out_as_csv_line_by_line(visit, issue):
    answer = visit().get("/projects/engine/issues.csv")
    assert answer.content_type == "text/csv"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="engine.csv"'
    lines = answer.text.splitlines()
    assert lines == ["number,title,open,author,created", f"1,It halts,True,Ada,{issue.created_at}"]


# ---- Files ------------------------------------------------------------------------


def test_members_upload_files_and_only_they_download_them(visit, ada, grace, admin, issue):
    client = visit(ada)
    form = client.get("/projects/engine/1").forms[3]
    form["file"] = [Upload("Räder.bin", b"\x00\xff")]
    page = form.submit(status=303).follow()
    file = page.click("Räder.bin")
    assert file.body == b"\x00\xff"
    assert file.headers["Content-Disposition"].startswith("attachment; filename*=utf-8''R%C3")

    assert visit(admin).get(file.request.path).body == b"\x00\xff"
    assert "Räder.bin" not in visit(grace).get("/projects/engine/1")
    visit(grace).get(file.request.path, status=403)
    visit().get(file.request.path, status=303)


def test_a_file_that_is_too_large_is_refused(visit, ada, issue):
    form = visit(ada).get("/projects/engine/1").forms[3]
    form["file"] = [Upload("large.bin", bytes(5_000_001))]
    assert "The submitted data is too large." in form.submit(status=413)
