"""What the tests share: the application on a database of its own, and a visitor to it."""

import os
from pathlib import Path

import pytest
from noventa import App, Config
from noventa_cli import migrate_to_head
from webtest import TestApp

from components.sign_in.sign_in_models import Password
from components.user.user_models import User
from functions import passwords
from registry import registry

PASSWORD = "a password for tests"
passwords.COST = 2**4  # nobody attacks these


@pytest.fixture(scope="session")
def app(tmp_path_factory):
    """The application as visitors meet it, with a database and a key that are for tests."""
    file = tmp_path_factory.mktemp("database") / "test.db"
    config = Config.load(
        Path(__file__).parents[1],
        database=os.environ.get("NOVENTA_TEST_DATABASE") or f"sqlite:///{file}",
        debug=False,
        secret_keys=["what these tests sign is good for nothing else"],
    )
    migrate_to_head(registry, config)
    return App(registry, config)


@pytest.fixture
def db(app):
    """A session in which everything is undone at the end, also what requests commit."""
    with app.database.sandbox() as db:
        yield db


@pytest.fixture
def client(app, db):
    """A browser, of nobody until `sign_in(client, user)`."""
    return TestApp(app, extra_environ={"wsgi.url_scheme": "https"})


@pytest.fixture
def user(db):
    user = User(email="grace@pages.test", name="Grace Hopper")
    db.add(user)
    db.flush()
    digest = passwords.hash_password(PASSWORD)
    db.add(Password(user_id=user.id, digest=digest))
    db.commit()
    return user


@pytest.fixture
def sign_in():
    """`sign_in(client, user)`: by the form, as anybody does; returns the answer."""

    def sign_in(client, user, *, email=None, password=PASSWORD, status=303):
        form = client.get("/sign-in").form
        form["email"] = email or user.email
        form["password"] = password
        return form.submit(status=status)

    return sign_in
