"""The application on a database of its own, and visitors to it."""

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

passwords.COST = 2**4  # nobody attacks these


@pytest.fixture(scope="session")
def app(tmp_path_factory):
    file = tmp_path_factory.mktemp("database") / "test.db"
    config = Config.load(
        Path(__file__).parents[1],
        database=os.environ.get("NOVENTA_TEST_DATABASE") or f"sqlite:///{file}",
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
    """A browser of somebody who has not logged in; like all, it says that it posts from here."""
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
    """A browser in which Ada has logged in."""
    client.set_cookie(app.sessions.name, app.sessions.make({"user_id": ada.id}))
    return client
