"""Helpers for tests of applications: count queries, make sessions, render and act alone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from counters import Counter, counting_app, increment
from support import make_module

from noventa import (
    App,
    Component,
    Endpoint,
    NoventaError,
    Page,
    Request,
    Session,
    SessionError,
    ShortCircuit,
)

TEMPLATES = {
    "page.html": "<h1>Counters</h1>{{ component('counter', id=1) }}",
    "counter.html": """\
        <form method="post" id="{{ instance }}">{{ action("set") }}
        {{ label or "stranger" }}: {{ value }}<input name="value">{{ errors.value }}</form>
    """,
}


LOGIC = """\
from counters import Counter


def load_template_context(request, session, db, *, id):
    counter = db.get(Counter, id)
    if counter is None:
        return {"_status": 404, "message": "No such counter."}
    return {"value": counter.value, "label": session.get("name")}


def action_set(request, session, db, *, id):
    text = request.form["value"]
    counter = db.get(Counter, id)
    counter.value = int(text or request.files["file"].file.read())
    if counter.value < 0:
        return {"_status": 422, "errors": {"value": "Too small."}}
    if counter.value == 13:
        return {"values": {}}  # forgets the commit
    db.commit()
    session.flash("Saved.")
    return {"_redirect": "/"}


def action_misspell(request, session, db, *, id):
    return {"_statsu": 422}
"""


def not_for_bob(request, session, db):
    return {"_redirect": "/sign-in"} if session.get("name") == "Bob" else None


def add(request, session, db):
    return increment(request, session, db) | {"step": request.json["step"]}


@pytest.fixture
def app(tmp_path: Path, database: str) -> App:
    logic = make_module("counter_logic", LOGIC)
    component = Component("counter", "counter.html", logic=logic, guard=not_for_bob)
    routes = Page("/", "page.html"), Endpoint("/add", add, methods=["POST"])
    return counting_app(tmp_path, database, *routes, files=TEMPLATES, components=[component])


@pytest.fixture
def db(app: App) -> Any:
    with app.database.sandbox() as db:
        yield db


only_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


# ---- queries --------------------------------------------------------------------------------


def test_queries_of_requests_and_sessions_are_counted_within_the_block(app, client):
    app.database.engine.dispose()  # so that connections are opened within the block
    with app.database.session() as before, app.count_queries() as queries:
        client.get("/")
        before.get(Counter, 1)
    client.get("/")
    assert len(queries) == 2, queries
    assert all("FROM counters" in query for query in queries)


def test_a_sandbox_adds_no_queries(app, client, db):
    with app.count_queries() as queries:
        client.post_json("/add", {"step": 1})
    assert [query.split()[0] for query in queries] == ["SELECT", "UPDATE", "SELECT"], queries


@only_sqlite
def test_queries_are_printed_with_their_counts(app):
    with app.count_queries() as queries, app.database.session() as db:
        for number in range(3):
            db.execute(sa.text("SELECT\n  :n"), {"n": number})
        db.execute(sa.text("SELECT 2"))
    assert str(queries) == "4 queries\n    3 x SELECT ?\n    1 x SELECT 2"
    del queries[1:]
    assert str(queries) == "1 query\n    1 x SELECT ?"


@only_sqlite
def test_counting_stops_after_an_error(app, client):
    with pytest.raises(ZeroDivisionError), app.count_queries() as queries:
        _ = 1 / 0
    client.get("/")
    assert len(queries) == 0


# ---- sessions -------------------------------------------------------------------------------


@only_sqlite
def test_a_test_can_set_and_read_a_clients_session(app, client):
    client.set_cookie(app.sessions.name, app.sessions.make({"name": "Ada"}))
    assert "Ada: 0" in client.get("/")
    session = app.sessions.read(client.cookies)
    assert session["name"] == "Ada"
    form = client.get("/").form
    form["value"] = "1"
    assert "Ada: 1" in form.submit(status=303).follow()
    assert len(list(client.cookiejar)) == 1


@only_sqlite
def test_a_made_session_is_valid_only_below_its_prefix(app):
    cookies = {app.sessions.name: app.sessions.make({"name": "Ada"}, prefix="/m")}
    assert dict(app.sessions.read(cookies, "/m")) == {"name": "Ada"}
    assert dict(app.sessions.read(cookies)) == {}


@only_sqlite
def test_making_a_session_that_json_cannot_represent_is_an_error(app):
    with pytest.raises(
        SessionError, match=r"holds a value that JSON cannot represent: seen\[1\]: .*datetime"
    ):
        app.sessions.make({"name": "Ada", "seen": ["now", datetime.now(UTC)]})
    assert not app.sessions.read({app.sessions.name: "forged"})


# ---- single components and actions ----------------------------------------------------------


def test_a_component_rendered_alone_equals_its_part_of_the_page(app, client, db):
    db.get(Counter, 1).value = 7
    db.commit()
    html = app.render("counter", session={"name": "Ada"}, id=1)
    assert "Ada: 7" in html
    assert html.split("\n")[0].partition("<input")[0] in client.get("/").text


@only_sqlite
def test_rendering_a_component_alone_raises_what_prevents_it(app):
    with pytest.raises(ShortCircuit) as missing:
        app.render("counter", id=2)
    assert (missing.value.result.status, missing.value.result.redirect) == (404, None)
    with pytest.raises(ShortCircuit, match="/sign-in"):
        app.render("counter", session={"name": "Bob"}, id=1)
    with pytest.raises(NoventaError, match=r"requires the prop 'id'"):
        app.render("counter")
    with pytest.raises(NoventaError, match=r"did you mean 'counter'\?"):
        app.render("countre", id=1)


def test_an_action_called_alone_commits_into_the_sandbox(app, db):
    counter, session = db.get(Counter, 1), app.sessions.read({})
    assert app.act("counter.set", {"value": "5"}, session=session, id=1) == {"_redirect": "/"}
    assert counter.value == 5
    assert [flash.text for flash in session.flashes()] == ["Saved."]
    assert isinstance(session, Session)


def test_an_action_called_alone_rolls_back_uncommitted_changes(app, db, caplog):
    counter = db.get(Counter, 1)
    result = app.act("counter.set", {"value": "-1"}, id=1)
    assert result["errors"] == {"value": "Too small."}
    assert caplog.text == ""
    app.act("counter.set", {"value": "13"}, id=1)
    assert "action_set changed rows without db.commit()" in caplog.text
    assert counter.value == 0


@only_sqlite
def test_an_action_called_alone_accepts_uploads_and_requests(app, db):
    app.act("counter.set", {"value": "", "file": ("a.txt", b"8")}, id=1)
    assert db.get(Counter, 1).value == 8
    app.act("counter.set", Request.blank("/", POST={"value": "9"}), id=1)
    assert db.get(Counter, 1).value == 9


@only_sqlite
def test_an_action_called_alone_is_checked_like_a_post(app):
    with pytest.raises(ShortCircuit, match="/sign-in"):
        app.act("counter.set", {"value": "1"}, session={"name": "Bob"}, id=1)
    with pytest.raises(NoventaError, match=r"'_statsu'; did you mean '_status'\?"):
        app.act("counter.misspell", id=1)
    with pytest.raises(NoventaError, match=r"no action 'sett'; did you mean 'set'\?"):
        app.act("counter.sett", id=1)
    with pytest.raises(NoventaError, match="has no prop 'ib'"):
        app.act("counter.set", {"value": "1"}, id=1, ib=2)


# ---- JSON -----------------------------------------------------------------------------------


@only_sqlite
def test_json_can_be_posted_without_a_ticket_but_not_from_another_origin(app, client, db):
    assert client.post_json("/add", {"step": 2}).json == {"value": 1, "step": 2}
    client.extra_environ["HTTP_SEC_FETCH_SITE"] = "cross-site"
    client.post_json("/add", {"step": 2}, status=403)
