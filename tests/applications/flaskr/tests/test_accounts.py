import pytest
from sqlalchemy import select

from components.user.user_models import User


def fill_in(client, path, username, password, status=303):
    form = client.get(path).form
    form["username"], form["password"] = username, password
    return form.submit(status=status)


def test_who_registers_may_log_in(client, db):
    page = fill_in(client, "/register", "grace", "hopper").follow()
    assert page.request.path == "/log-in"
    assert "You are registered and may log in now." in page
    assert "hopper" not in db.scalar(select(User.password).where(User.username == "grace"))
    assert fill_in(client, "/log-in", "grace", "hopper").follow().html.nav.span.text == "grace"


@pytest.mark.parametrize(
    ("username", "password", "wrong", "error"),
    [
        ("", "secret", "username", "Please enter a name."),
        ("grace", "", "password", "Please enter a password."),
        ("ada", "secret", "username", "The name ada is taken."),
    ],
)
def test_a_faulty_registration_is_shown_again(client, ada, username, password, wrong, error):
    page = fill_in(client, "/register", username, password, status=422)
    assert page.html.find(id=f"{wrong}-error").text == error
    assert page.form["username"].value == username
    assert page.form["password"].value == ""


@pytest.mark.parametrize("wrong", [("grace", "lovelace"), ("ada", "hopper")])
def test_a_failed_log_in_does_not_tell_who_exists(client, ada, wrong):
    page = fill_in(client, "/log-in", *wrong, status=422)
    error = page.html.find(id="username-error").text
    assert error == "This name and password do not belong together."
    assert page.form["username"].value == wrong[0]


def test_who_logs_out_is_a_stranger_again(as_ada):
    page = as_ada.get("/").forms["log-out"].submit(status=303).follow()
    assert "Log in" in page.html.nav.text
    as_ada.get("/posts/new", status=303)
