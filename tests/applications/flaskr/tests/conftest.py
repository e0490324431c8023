"""The application on a test database, and its visitors."""

import os
from pathlib import Path

import pytest
from noventa import App, Config
from noventa_cli import migrate_to_head
from webtest import TestApp

from components.post.post_models import Post
from components.user.user_models import User
from functions import passwords
from registry import registry

passwords.COST = 2**4  # fast: no test password needs protection


@pytest.fixture(scope="session")
def app(tmp_path_factory):
    file = tmp_path_factory.mktemp("database") / "test.db"
    config = Config.load(
        Path(__file__).parents[1],
        database=os.environ.get("NOVENTA_TEST_DATABASE") or f"sqlite:///{file}",
        secret_keys=["a key that is used only by these tests"],
    )
    migrate_to_head(registry, config)
    return App(registry, config)


@pytest.fixture
def db(app):
    """A session that is rolled back after the test, including commits of requests."""
    with app.database.sandbox() as db:
        yield db


@pytest.fixture
def client(app, db):
    """A browser that is not logged in. Like all browsers, it sends same-origin headers."""
    headers = {"HTTP_HOST": "localhost", "HTTP_SEC_FETCH_SITE": "same-origin"}
    return TestApp(app, extra_environ=headers)


@pytest.fixture
def ada(db):
    ada = User(username="ada", password=passwords.hash_password("lovelace"))
    db.add(ada)
    db.commit()
    return ada


@pytest.fixture
def post(db, ada):
    post = Post(author=ada, title="Notes", body="On the\n<engine>")
    db.add(post)
    db.commit()
    return post


@pytest.fixture
def as_ada(app, client, ada):
    """A browser in which Ada is logged in."""
    client.set_cookie(app.sessions.name, app.sessions.make({"user_id": ada.id}))
    return client
