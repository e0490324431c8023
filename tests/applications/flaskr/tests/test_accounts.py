import pytest
from sqlalchemy import select

from components.user.user_models import User


def fill_in(client, path, username, password, status=303):
    form = client.get(path).form
    form["username"], form["password"] = username, password
    return form.submit(status=status)


def test_a_registered_user_can_log_in(client, db):
    page = fill_in(client, "/register", "grace", "hopper").follow()
    assert page.request.path == "/log-in"
    assert "You are registered and can log in now." in page
    assert "hopper" not in db.scalar(select(User.password).where(User.username == "grace"))
    assert fill_in(client, "/log-in", "grace", "hopper").follow().html.nav.span.text == "grace"


@pytest.mark.parametrize(
    ("username", "password", "wrong", "error"),
    [
        ("", "secret", "username", "Please enter a name."),
        ("grace", "", "password", "Please enter a password."),
        ("ada", "secret", "username", "The name ada is already taken."),
    ],
)
def test_an_invalid_registration_is_shown_again(client, ada, username, password, wrong, error):
    page = fill_in(client, "/register", username, password, status=422)
    assert page.html.find(id=f"{wrong}-error").text == error
    assert page.form["username"].value == username
    assert page.form["password"].value == ""


@pytest.mark.parametrize("wrong", [("grace", "lovelace"), ("ada", "hopper")])
def test_a_failed_login_does_not_reveal_which_accounts_exist(client, ada, wrong):
    page = fill_in(client, "/log-in", *wrong, status=422)
    error = page.html.find(id="username-error").text
    assert error == "Unknown name or wrong password."
    assert page.form["username"].value == wrong[0]


def test_logging_out_ends_the_session(as_ada):
    page = as_ada.get("/").forms["log-out"].submit(status=303).follow()
    assert "Log in" in page.html.nav.text
    as_ada.get("/posts/new", status=303)
