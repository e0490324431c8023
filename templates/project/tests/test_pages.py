import pytest
from webob.exc import HTTPForbidden

from components.user.user_models import User
from functions.urls import absolute


@pytest.fixture
def other(db):
    other = User(email="alan@pages.test", name="Alan Turing")
    db.add(other)
    db.commit()
    return other


# ---- the list -------------------------------------------------------------------


def test_the_index_lists_the_users(client, user):
    page = client.get("/")
    assert "Grace Hopper" in page
    assert page.html.find("a", href=f"/users/{user.id}")


def test_a_long_list_has_pages(client, db):
    db.add_all(User(email=f"{n}@pages.test", name=f"Zoe {n:02}") for n in range(30))
    db.commit()
    first = client.get("/")
    assert "Zoe 29" not in first
    last = first.click("Next")
    while "Next" in last:
        last = last.click("Next")
    assert "Zoe 29" in last
    assert "Zoe 00" in last.click("Previous") or "Zoe 00" in last


def test_the_list_needs_one_query_whatever_its_length(app, client, db):
    db.add_all(User(email=f"{n}@pages.test", name=f"Number {n}") for n in range(20))
    db.commit()
    with app.count_queries() as queries:
        client.get("/")
    assert len(queries) == 1, queries


def test_the_list_can_be_rendered_alone(app, user):
    assert "Grace Hopper" in app.render("user_list")


def test_the_json_lists_the_users(client, user):
    users = client.get("/api/users.json").json
    assert {"id": user.id, "name": "Grace Hopper"} in users


def test_visitors_see_no_email_addresses(client, user):
    assert user.email not in client.get("/")
    assert user.email not in client.get("/api/users.json")


def test_absolute_urls_start_with_the_configured_site(app):
    assert absolute(app.config, "/users/7") == f"{app.config.app['site']}/users/7"


# ---- profiles -------------------------------------------------------------------


def test_a_user_can_rename_themselves(client, user, sign_in):
    sign_in(client, user)
    form = client.get(f"/users/{user.id}").form
    form["name"] = "Rear Admiral Hopper"
    page = form.submit(status=303).follow()
    flash = page.html.find(role="status").text
    assert flash == "Saved. The name is now Rear Admiral Hopper."
    assert page.html.h1.text == "Rear Admiral Hopper"
    assert user.name == "Rear Admiral Hopper"


def test_your_own_profile_needs_one_query(app, client, db, user, sign_in):
    sign_in(client, user)
    path = f"/users/{user.id}"
    db.expunge_all()
    with app.count_queries() as queries:
        client.get(path)
    assert len(queries) == 1, queries


@pytest.mark.parametrize("name", ["", "x" * 101])
def test_an_invalid_name_is_refused_and_stays_in_the_form(client, user, sign_in, name):
    sign_in(client, user)
    form = client.get(f"/users/{user.id}").form
    form["name"] = name
    page = form.submit(status=422)
    assert page.form["name"].value == name
    assert page.html.find(id="name-error")
    assert page.html.h1.text == "Grace Hopper"


def test_others_see_no_email_address_and_no_form(client, user, other, sign_in):
    sign_in(client, user)
    page = client.get(f"/users/{other.id}")
    assert "Alan Turing" in page
    assert other.email not in page
    assert not page.forms


def test_users_cannot_rename_each_other(app, user, other):
    session = {"user_id": user.id}
    with pytest.raises(HTTPForbidden):
        app.act("user.update_user", {"name": "Mine"}, session=session, user_id=other.id)
    assert other.name == "Alan Turing"


def test_the_title_is_the_name_and_an_unknown_user_is_a_404(client, user, sign_in):
    sign_in(client, user)
    assert client.get(f"/users/{user.id}").html.title.text.startswith("Grace Hopper")
    missing = client.get("/users/999999999", status=404)
    assert "There is no such user." in missing
    assert missing.html.find(id="content")


# ---- signed-in users only -------------------------------------------------------


@pytest.mark.parametrize("path", ["/account", "/users/{0.id}"])
def test_visitors_must_sign_in_first(client, user, path):
    page = client.get(path.format(user), status=303).follow()
    assert page.request.path == "/sign-in"
    assert "Please sign in first." in page


def test_a_deleted_user_is_signed_out(app, client, db, user, sign_in):
    sign_in(client, user)
    db.delete(user)
    db.commit()
    client.get("/account", status=303)
    assert "user_id" not in app.sessions.read(client.cookies)


def test_signing_out(app, client, user, sign_in):
    sign_in(client, user)
    page = client.get("/account").form.submit(status=303).follow()
    assert "You have signed out." in page
    assert not app.sessions.read(client.cookies)
