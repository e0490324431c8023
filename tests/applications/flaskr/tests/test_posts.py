import pytest
from sqlalchemy import select

from components.post.post_models import Post
from components.user.user_models import User


def write(form, title, body, status=303):
    form["title"], form["body"] = title, body
    return form.submit(status=status)


def test_everybody_reads_the_posts_newest_first(client, db, ada, post):
    db.add(Post(author=ada, title="Newer", body=""))
    db.commit()
    page = client.get("/")
    assert [title.text for title in page.html("h2")][:2] == ["Newer", "Notes"]
    assert f"by ada on {post.created.date()}" in page
    assert "On the\n&lt;engine&gt;" in page


def test_the_list_takes_one_query_however_long_it_is(app, client, db, ada):
    db.add_all(Post(author=ada, title=f"Note {number}", body="") for number in range(9))
    db.commit()
    with app.count_queries() as queries:
        client.get("/")
    assert len(queries) == 1, queries


def test_a_post_is_written(as_ada, db, ada):
    form = as_ada.get("/").click("New post").forms["write"]
    assert "Sketch" in write(form, " Sketch ", "of the engine").follow()
    assert db.scalar(select(Post).where(Post.author == ada)).title == "Sketch"


def test_a_post_is_changed(as_ada, post):
    page = as_ada.get("/").click("Edit")
    assert page.html.h1.text == "Edit “Notes”"
    assert page.forms["write"]["body"].value == "On the\n<engine>"
    page = write(page.forms["write"], "Better notes", "").follow()
    assert page.html.h2.text == "Better notes"


@pytest.mark.parametrize("path", ["/posts/new", "/posts/{}"])
def test_without_a_title_the_text_is_kept(as_ada, post, path):
    form = as_ada.get(path.format(post.id)).forms["write"]
    page = write(form, "  ", "A long thought", status=422)
    assert page.html.find(id="title-error").text == "Please enter a title."
    assert page.forms["write"]["body"].value == "A long thought"


def test_a_post_is_deleted(as_ada, db, post):
    page = as_ada.get("/").forms[f"delete-{post.id}"].submit(status=303).follow()
    assert "The post is deleted." in page
    assert "Notes" not in page


@pytest.mark.parametrize("path", ["/posts/new", "/posts/{}"])
def test_strangers_are_asked_to_log_in(client, post, path):
    page = client.get(path.format(post.id), status=303).follow()
    assert page.request.path == "/log-in"
    assert "Please log in first." in page


# ---- only one's own -------------------------------------------------------------


@pytest.fixture
def give_away(db, post):
    """Makes Ada's post somebody else's."""

    def give_away():
        post.author = User(username="grace", password="")
        db.commit()

    return give_away


def test_nobody_is_shown_how_to_change_another_ones_post(as_ada, give_away, post):
    give_away()
    page = as_ada.get("/")
    assert f"delete-{post.id}" not in page.forms
    assert "Edit" not in page
    page = as_ada.get(f"/posts/{post.id}", status=403)
    assert "Only its author may change a post." in page


@pytest.mark.parametrize(("path", "form"), [("/", "delete-{}"), ("/posts/{}", "write")])
def test_nobody_changes_another_ones_post(as_ada, db, give_away, post, path, form):
    form = as_ada.get(path.format(post.id)).forms[form.format(post.id)]
    give_away()
    page = form.submit(status=403)
    assert "Only its author may change a post." in page
    assert db.scalar(select(Post.title).where(Post.id == post.id)) == "Notes"


# ---- what is not there ----------------------------------------------------------


@pytest.mark.parametrize("path", ["/nothing", "/posts/999999", "/posts/first"])
def test_what_is_not_there_has_a_page_of_the_application(as_ada, path):
    page = as_ada.get(path, status=404)
    assert page.html.h1.text == "Not Found"
    assert page.html.nav.span.text == "ada"
    assert page.forms["log-out"].submit(status=303)
