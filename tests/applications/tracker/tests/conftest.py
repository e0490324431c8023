"""The application on a test database, and its users."""

import os
from pathlib import Path

import pytest
from noventa import App, Config
from noventa_cli import migrate_to_head
from webtest import TestApp

from functions import digests
from functions.issues import open_issue
from models.issue_models import Label
from models.project_models import Project
from models.user_models import User
from registry import registry

PASSWORD = "a password for tests"
HEADERS = {"HTTP_HOST": "localhost", "HTTP_SEC_FETCH_SITE": "same-origin"}  # as sent by browsers
digests.COST = 2**4  # fast: no test password needs protection


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
def visit(app, db):
    """`visit(user)` returns a browser in which that user, if any, is signed in."""

    def visit(user=None):
        client = TestApp(app, extra_environ=HEADERS)
        if user is not None:
            client.set_cookie(app.sessions.name, app.sessions.make({"user_id": user.id}))
        return client

    return visit


def press(button, page, status=303, headers=None, **fields):
    """Fill in the form that has this button, press it, and return the response."""
    form = next(form for form in page.forms.values() if f">{button}</button>" in form.text)
    for name, value in fields.items():
        form[name] = value
    return form.submit(status=status, headers=headers)


def add_user(db, name, **columns):
    user = User(name=name, email=f"{name.lower()}@tracker.test", **columns)
    user.password = digests.hash_password(PASSWORD)
    db.add(user)
    return user


@pytest.fixture
def ada(db):
    """A member of the project."""
    return add_user(db, "Ada")


@pytest.fixture
def grace(db):
    """A user who is not a member of any project."""
    user = add_user(db, "Grace")
    db.commit()
    return user


@pytest.fixture
def admin(db):
    user = add_user(db, "Admin", is_admin=True)
    db.commit()
    return user


@pytest.fixture
def project(db, ada):
    project = Project(slug="engine", name="Analytical Engine", members=[ada])
    db.add_all([project, Label(name="bug"), Label(name="idea")])
    db.commit()
    return project


@pytest.fixture
def issue(db, project, ada):
    issue = open_issue(db, project, ada, "It halts", "After the\n<seventh> number.")
    db.commit()
    return issue
