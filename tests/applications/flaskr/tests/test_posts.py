import pytest
from sqlalchemy import select

from components.post.post_models import Post
from components.user.user_models import User


def write(form, title, body, status=303):
    form["title"], form["body"] = title, body
    return form.submit(status=status)


def test_anyone_can_read_the_posts_newest_first(client, db, ada, post):
    db.add(Post(author=ada, title="Newer", body=""))
    db.commit()
    page = client.get("/")
    assert [title.text for title in page.html("h2")][:2] == ["Newer", "Notes"]
    assert f"by ada on {post.created.date()}" in page
    assert "On the\n&lt;engine&gt;" in page


def test_the_list_takes_one_query_regardless_of_its_length(app, client, db, ada):
    db.add_all(Post(author=ada, title=f"Note {number}", body="") for number in range(9))
    db.commit()
    with app.count_queries() as queries:
        client.get("/")
    assert len(queries) == 1, queries


def test_a_user_writes_a_post(as_ada, db, ada):
    form = as_ada.get("/").click("New post").forms["write"]
    assert "Sketch" in write(form, " Sketch ", "of the engine").follow()
    assert db.scalar(select(Post).where(Post.author == ada)).title == "Sketch"


def test_an_author_edits_a_post(as_ada, post):
    page = as_ada.get("/").click("Edit")
    assert page.html.h1.text == "Edit “Notes”"
    assert page.forms["write"]["body"].value == "On the\n<engine>"
    page = write(page.forms["write"], "Better notes", "").follow()
    assert page.html.h2.text == "Better notes"


@pytest.mark.parametrize("path", ["/posts/new", "/posts/{}"])
def test_a_post_without_a_title_is_shown_again_with_its_text(as_ada, post, path):
    form = as_ada.get(path.format(post.id)).forms["write"]
    page = write(form, "  ", "A long thought", status=422)
    assert page.html.find(id="title-error").text == "Please enter a title."
    assert page.forms["write"]["body"].value == "A long thought"


def test_an_author_deletes_a_post(as_ada, db, post):
    page = as_ada.get("/").forms[f"delete-{post.id}"].submit(status=303).follow()
    assert "The post was deleted." in page
    assert "Notes" not in page


@pytest.mark.parametrize("path", ["/posts/new", "/posts/{}"])
def test_anonymous_visitors_are_asked_to_log_in(client, post, path):
    page = client.get(path.format(post.id), status=303).follow()
    assert page.request.path == "/log-in"
    assert "Please log in first." in page


# ---- permissions ----------------------------------------------------------------


@pytest.fixture
def give_away(db, post):
    """Return a function that makes Grace the author of Ada's post."""

    def give_away():
        post.author = User(username="grace", password="")
        db.commit()

    return give_away


def test_only_the_author_sees_the_buttons_for_a_post(as_ada, give_away, post):
    give_away()
    page = as_ada.get("/")
    assert f"delete-{post.id}" not in page.forms
    assert "Edit" not in page
    page = as_ada.get(f"/posts/{post.id}", status=403)
    assert "Only the author may change a post." in page


@pytest.mark.parametrize(("path", "form"), [("/", "delete-{}"), ("/posts/{}", "write")])
def test_only_the_author_can_change_a_post(as_ada, db, give_away, post, path, form):
    form = as_ada.get(path.format(post.id)).forms[form.format(post.id)]
    give_away()
    page = form.submit(status=403)
    assert "Only the author may change a post." in page
    assert db.scalar(select(Post.title).where(Post.id == post.id)) == "Notes"


# ---- missing pages --------------------------------------------------------------


@pytest.mark.parametrize("path", ["/nothing", "/posts/999999", "/posts/first"])
def test_a_missing_page_shows_the_error_page_of_the_application(as_ada, path):
    page = as_ada.get(path, status=404)
    assert page.html.h1.text == "Not Found"
    assert page.html.nav.span.text == "ada"
    assert page.forms["log-out"].submit(status=303)
