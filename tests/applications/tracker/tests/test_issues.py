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


def test_an_issue_without_a_title_is_shown_again_with_its_text(visit, ada, project):
    page = visit(ada).get("/projects/engine/new")
    page = press("Add issue", page, status=422, title=" ", body="Much text")
    assert page.html.find(role="alert").text == "Please enter some text."
    assert page.html.textarea.text.strip() == "Much text"


def test_other_visitors_can_read_but_not_write(visit, grace, issue, comment):
    for client in visit(), visit(grace):
        page = client.get("/projects/engine/1")
        assert "Oil it." in page
        assert not page.html.main.find("form")
        assert "New issue" not in client.get("/projects/engine")
    visit(grace).get("/projects/engine/new", status=403)


def test_a_former_member_cannot_write_from_an_old_page(visit, db, ada, project, issue):
    page = visit(ada).get("/projects/engine/1")
    project.members.clear()
    db.commit()
    for button, fields in {"Comment": {"body": "!"}, "Save": {}, "Upload": {}}.items():
        press(button, page, status=403, **fields)


@pytest.mark.parametrize("path", ["/projects/loom", "/projects/engine/7"])
def test_a_missing_project_or_issue_is_not_found(visit, ada, project, path):
    page = visit(ada).get(path, status=404)
    assert page.html.h1.text == "Not Found"
    assert "does not exist." in page


@pytest.mark.parametrize("headers", [None, HTMX])
def test_a_member_labels_and_closes_an_issue(visit, ada, issue, headers):
    client = visit(ada)
    form = client.get("/projects/engine/1").forms[1]
    form.get("label", index=0).checked = form["closed"].checked = True
    response = form.submit(headers=headers)
    assert bool(response.html.h1) == (headers is None)  # the page or only the component
    assert [box["value"] for box in response.html.select("[name=label][checked]")] == ["bug"]
    assert not issue.is_open
    assert client.get("/projects/engine").html.select_one(".closed .label").text == "bug"


# ---- Comments ---------------------------------------------------------------------


def test_a_member_comments(visit, ada, issue):
    page = visit(ada).get("/projects/engine/1")
    page = press("Comment", page, body="It is\n<fixed>.").follow()
    assert page.html.article.select_one(".text").text == "It is\n<fixed>."
    page = press("Comment", page, status=422, body=" ")
    assert page.html.find(role="alert").text == "Please enter some text."


@pytest.mark.parametrize("headers", [None, HTMX])
def test_an_author_edits_a_comment_in_place(visit, ada, comment, headers):
    page = visit(ada).get("/projects/engine/1")
    form = next(form for form in page.forms.values() if "Oil it." in form.text)
    form["body"] = " "
    refused = form.submit(headers=headers, status=422)
    assert refused.html.article.details.has_attr("open")
    form["body"] = "Oil it well."
    response = form.submit(headers=headers)
    assert bool(response.html.h1) == (headers is None)
    assert response.html.article["id"] == page.html.article["id"]
    assert response.html.article.select_one(".text").text == "Oil it well."
    assert not response.html.article.details.has_attr("open")
    assert comment.edited_at


def test_only_the_author_can_edit_a_comment(app, visit, admin, comment):
    assert not visit(admin).get("/projects/engine/1").html.article.form
    with pytest.raises(HTTPForbidden):
        app.act("comment.save", {"body": "!"}, session={"user_id": admin.id}, id=comment.id)


def test_the_number_of_queries_does_not_grow_with_the_comments(app, visit, db, issue):
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


def test_a_list_is_paginated(visit, issues):
    page = visit().get("/projects/engine")
    assert titles(page) == ["Wheel 7", "Wheel 6", "Wheel 5"]
    page = page.click("Older issues").click("Older issues")
    assert titles(page) == ["Wheel 1"]
    assert titles(page.click("Newer issues")) == ["Wheel 4", "Wheel 3", "Wheel 2"]


def test_a_list_loads_more_with_htmx(visit, issues):
    client = visit()
    page, loaded = client.get("/projects/engine"), []
    while link := page.html.find(rel="next"):
        page = client.get(link["hx-get"], headers=HTMX)
        assert not page.html.h1
        loaded += titles(page)
    assert loaded == ["Wheel 4", "Wheel 3", "Wheel 2", "Wheel 1"]


def test_a_search_finds_all_words_anywhere_with_and_without_htmx(visit, issues):
    client = visit()
    page = client.get("/projects/engine")
    results = press("Search", page, q="WHEEL 100%", status=200)
    assert titles(results) == ["Wheel 7", "Wheel 5", "Wheel 3"]
    assert titles(results.click("Older issues")) == ["Wheel 1"]
    assert results.form["q"].value == "WHEEL 100%"
    url = page.html.form["hx-get"]
    assert titles(client.get(f"{url}&q=wheel+4", headers=HTMX)) == ["Wheel 4"]
    assert "No issues found." in client.get(f"{url}&q=_", headers=HTMX)


def test_a_label_links_to_its_issues(visit, ada, issues):
    client = visit(ada)
    form = client.get("/projects/engine/2").forms[1]
    form.get("label", index=1).checked = True
    form.submit()
    page = client.get("/projects/engine?page=2").click("idea")
    assert titles(page) == ["Wheel 2"]


def test_issues_are_exported_as_csv(visit, issue):
    response = visit().get("/projects/engine/issues.csv")
    assert response.content_type == "text/csv"
    assert response.headers["Content-Disposition"] == 'attachment; filename="engine.csv"'
    lines = response.text.splitlines()
    assert lines == ["number,title,open,author,created", f"1,It halts,True,Ada,{issue.created_at}"]


# ---- Files ------------------------------------------------------------------------


def test_only_members_can_upload_and_download_files(visit, ada, grace, admin, issue):
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
