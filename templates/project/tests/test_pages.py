import pytest
from webtest import TestApp

from components.sign_in.sign_in_models import make_password
from components.user.user_models import User
from wsgi import application

EMAIL = "grace@pages.test"
PASSWORD = "a password for tests"


@pytest.fixture
def db():
    """A session in which everything is undone at the end, also what requests commit."""
    with application.database.sandbox() as db:
        yield db


@pytest.fixture
def user_id(db):
    user = User(email=EMAIL, name="Grace Hopper")
    db.add(user)
    db.flush()
    user_id = user.id
    db.add(make_password(user_id, PASSWORD))
    db.commit()
    return user_id


@pytest.fixture
def browser(user_id):
    return TestApp(application)


def test_the_index_lists_the_users(browser, user_id):
    page = browser.get("/")
    assert "Grace Hopper" in page
    assert page.html.find("a", href=f"/users/{user_id}")


def test_the_json_lists_the_users(browser, user_id):
    users = browser.get("/api/users.json").json
    assert {"id": user_id, "name": "Grace Hopper"} in users


def test_a_user_can_be_renamed(browser, user_id):
    form = browser.get(f"/users/{user_id}").form
    form["name"] = "Rear Admiral Hopper"
    page = form.submit(status=303).follow()
    flash = page.html.find(role="status").text
    assert flash == "Saved. The name is now Rear Admiral Hopper."
    assert page.html.h1.text == "Rear Admiral Hopper"


@pytest.mark.parametrize("name", ["", "x" * 101])
def test_a_bad_name_is_refused_and_kept_in_the_form(browser, user_id, name):
    form = browser.get(f"/users/{user_id}").form
    form["name"] = name
    page = form.submit(status=422)
    assert page.form["name"].value == name
    assert page.html.find(id="name-error")
    assert page.html.h1.text == "Grace Hopper"


def test_an_unknown_user_is_not_found(browser):
    browser.get("/users/999999999", status=404)


def test_the_account_asks_to_sign_in(browser):
    page = browser.get("/account", status=303).follow()
    assert page.request.path == "/sign-in"
    assert "Please sign in first." in page


def test_signing_in_and_out(browser):
    account = sign_in(browser, EMAIL, PASSWORD).follow()
    assert account.request.path == "/account"
    assert "Grace Hopper" in account

    page = account.form.submit(status=303).follow()
    assert "You have signed out." in page
    browser.get("/account", status=303)


@pytest.mark.parametrize(
    ("email", "password"),
    [(EMAIL, "a wrong password"), ("nobody@pages.test", PASSWORD)],
)
def test_a_failed_sign_in_does_not_tell_which_part_was_wrong(browser, email, password):
    page = sign_in(browser, email, password, status=422)
    error = page.html.find(role="alert").text
    assert error == "This email address and password do not belong together."
    assert page.form["email"].value == email
    browser.get("/account", status=303)


def sign_in(browser, email, password, status=303):
    form = browser.get("/sign-in").form
    form["email"] = email
    form["password"] = password
    return form.submit(status=status)
