from datetime import timedelta

import pytest
from sqlalchemy import func, select
from webob.exc import HTTPForbidden

from components.sign_in import sign_in_logic
from components.sign_in.sign_in_models import Attempt, Password
from components.user.user_logic import action_update_user
from components.user.user_models import User
from functions import passwords


def test_the_index_lists_the_users(client, user):
    page = client.get("/")
    assert "Grace Hopper" in page
    assert page.html.find("a", href=f"/users/{user.id}")


def test_the_json_lists_the_users(client, user):
    users = client.get("/api/users.json").json
    assert {"id": user.id, "name": "Grace Hopper"} in users


# ---- profiles -------------------------------------------------------------------


def test_a_user_can_rename_themselves(client, user, sign_in):
    sign_in(client, user)
    form = client.get(f"/users/{user.id}").form
    form["name"] = "Rear Admiral Hopper"
    page = form.submit(status=303).follow()
    flash = page.html.find(role="status").text
    assert flash == "Saved. The name is now Rear Admiral Hopper."
    assert page.html.h1.text == "Rear Admiral Hopper"


def test_the_title_names_the_person_and_a_stranger_is_a_404(client, user, sign_in):
    sign_in(client, user)
    assert client.get(f"/users/{user.id}").html.title.text.startswith("Grace Hopper")
    missing = client.get("/users/999999999", status=404)
    assert "There is no such user." in missing
    assert missing.html.find(id="content")


@pytest.mark.parametrize("name", ["", "x" * 101])
def test_a_bad_name_is_refused_and_kept_in_the_form(client, user, sign_in, name):
    sign_in(client, user)
    form = client.get(f"/users/{user.id}").form
    form["name"] = name
    page = form.submit(status=422)
    assert page.form["name"].value == name
    assert page.html.find(id="name-error")
    assert page.html.h1.text == "Grace Hopper"


def test_others_see_no_email_address_and_may_rename_nobody(client, db, user, sign_in):
    other = User(email="alan@pages.test", name="Alan Turing")
    db.add(other)
    db.commit()
    sign_in(client, user)
    page = client.get(f"/users/{other.id}")
    assert "Alan Turing" in page
    assert "alan@pages.test" not in page
    assert not page.forms
    with pytest.raises(HTTPForbidden):
        action_update_user(None, {"user_id": user.id}, db, user_id=other.id)


@pytest.mark.parametrize("path", ["/account", "/users/{0.id}"])
def test_strangers_are_asked_to_sign_in(client, user, path):
    page = client.get(path.format(user), status=303).follow()
    assert page.request.path == "/sign-in"
    assert "Please sign in first." in page


def test_strangers_see_no_email_address(client, user):
    assert user.email not in client.get("/")
    assert user.email not in client.get("/api/users.json")


def test_an_unknown_user_is_not_found(client, user, sign_in):
    sign_in(client, user)
    client.get("/users/999999999", status=404)


# ---- signing in -----------------------------------------------------------------


def test_signing_in_and_out(client, user, sign_in):
    account = sign_in(client, user).follow()
    assert account.request.path == "/account"
    assert "Grace Hopper" in account

    page = account.form.submit(status=303).follow()
    assert "You have signed out." in page
    client.get("/account", status=303)


@pytest.mark.parametrize(
    "wrong", [{"password": "another password"}, {"email": "nobody@pages.test"}]
)
def test_a_failed_sign_in_does_not_tell_why(client, user, sign_in, wrong):
    page = sign_in(client, user, **wrong, status=422)
    error = page.html.find(role="alert").text
    assert error == "This email address and password do not belong together."
    assert page.form["email"].value == wrong.get("email", user.email)
    client.get("/account", status=303)


@pytest.mark.parametrize("email", ["grace@pages.test", "nobody@pages.test"])
def test_guessing_ends_for_a_while(client, user, sign_in, email, monkeypatch):
    for _ in range(sign_in_logic.FOR_ONE_ACCOUNT):
        sign_in(client, user, email=email, password="a guess", status=422)
    page = sign_in(client, user, email=email, status=429)
    assert "Too many attempts. Please wait 15 minutes." in page

    monkeypatch.setattr(sign_in_logic, "WINDOW", timedelta(minutes=-1))  # it is over
    sign_in(client, user)


def test_one_address_cannot_guess_at_many_accounts(client, user, sign_in, monkeypatch):
    monkeypatch.setattr(sign_in_logic, "FROM_ONE_ADDRESS", 2)
    client.extra_environ["REMOTE_ADDR"] = "1.1.1.1"
    for email in ("a@pages.test", "b@pages.test"):
        sign_in(client, user, email=email, status=422)
    sign_in(client, user, status=429)
    client.extra_environ["REMOTE_ADDR"] = "1.0.0.1"
    sign_in(client, user)


def test_an_old_digest_is_renewed(client, db, user, sign_in, monkeypatch):
    monkeypatch.setattr(passwords, "COST", 2 * passwords.COST)
    for _ in range(2):
        sign_in(client, user)
        digest = db.get(Password, user.id, populate_existing=True).digest
        assert digest.startswith(f"scrypt${passwords.COST}$8$1$")
    assert db.scalar(select(func.count()).select_from(Attempt)) == 0
