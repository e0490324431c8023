"""The sign-in form and its limits on guessing."""

from datetime import timedelta
from threading import Semaphore

import pytest
from sqlalchemy import func, select

from components.sign_in import sign_in_logic
from components.sign_in.sign_in_models import Attempt, Password
from functions import passwords

PASSWORD = "a password for tests"


@pytest.fixture(autouse=True)
def password(db, user, monkeypatch):
    monkeypatch.setattr(passwords, "COST", 2**4)  # fast, for tests
    db.add(Password(user_id=user.id, digest=passwords.hash_password(PASSWORD)))
    db.commit()


def submit(client, email, password=PASSWORD, **expected):
    form = client.get("/sign-in").form
    form["email"] = email
    form["password"] = password
    return form.submit(**expected)


def test_signing_in(app, client, user):
    account = submit(client, user.email, status=303).follow()
    assert account.request.path == "/account"
    assert "Grace Hopper" in account
    assert app.sessions.read(client.cookies)["user_id"] == user.id


@pytest.mark.parametrize(
    ("email", "password"),
    [("grace@pages.test", "another password"), ("nobody@pages.test", PASSWORD)],
)
def test_a_failed_sign_in_does_not_reveal_the_reason(app, client, email, password):
    page = submit(client, email, password, status=422)
    error = page.html.find(role="alert").text
    assert error == "The email address or the password is wrong."
    assert page.form["email"].value == email
    assert "user_id" not in app.sessions.read(client.cookies)


@pytest.mark.parametrize("email", ["grace@pages.test", "nobody@pages.test"])
def test_guessing_is_blocked_for_a_while(client, user, email, monkeypatch):
    for _ in range(sign_in_logic.MAX_PER_ACCOUNT):
        submit(client, email, "a guess", status=422)
    page = submit(client, email, status=429)
    assert "Too many attempts. Please wait 15 minutes." in page

    monkeypatch.setattr(sign_in_logic, "WINDOW", timedelta(minutes=-1))  # it is over
    submit(client, user.email, status=303)


def test_one_address_cannot_try_many_accounts(client, user, monkeypatch):
    monkeypatch.setattr(sign_in_logic, "MAX_PER_ADDRESS", 2)
    client.extra_environ["REMOTE_ADDR"] = "1.1.1.1"
    for email in ("a@pages.test", "b@pages.test"):
        submit(client, email, status=422)
    submit(client, user.email, status=429)
    client.extra_environ["REMOTE_ADDR"] = "1.0.0.1"
    submit(client, user.email, status=303)


def test_guesses_from_elsewhere_do_not_lock_the_owner_out(client, user):
    client.extra_environ["REMOTE_ADDR"] = "1.1.1.1"
    submit(client, user.email, status=303)
    client.extra_environ["REMOTE_ADDR"] = "1.0.0.1"
    for _ in range(sign_in_logic.MAX_PER_ACCOUNT):
        submit(client, user.email, "a guess", status=422)
    submit(client, user.email, status=429)
    client.extra_environ["REMOTE_ADDR"] = "1.1.1.1"
    submit(client, user.email, status=303)


def test_a_busy_server_asks_visitors_to_try_again(client, db, user, monkeypatch):
    monkeypatch.setattr(passwords, "_hashing_or_waiting", Semaphore(0))
    page = submit(client, user.email, status=429)
    assert "Please try again in a moment." in page
    assert db.scalar(select(func.count()).select_from(Attempt)) == 0


def test_an_outdated_digest_is_replaced(client, db, user, monkeypatch):
    monkeypatch.setattr(passwords, "COST", 2 * passwords.COST)
    for _ in range(2):
        submit(client, user.email, status=303)
        digest = db.get(Password, user.id, populate_existing=True).digest
        assert digest.startswith(f"scrypt${passwords.COST}$8$1$")
    assert db.scalar(select(func.count()).select_from(Attempt)) == 0
