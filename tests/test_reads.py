"""Database: a GET reads statement by statement, and is run again in write mode if it writes."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from conftest import only_postgresql, transactional
from counters import (
    Counter,
    answered,
    checked_out,
    counting_app,
    increment,
    statements,
    stored,
    value,
)
from visitors import Visitor, ask
from webob import Response

from noventa import App, Component, Endpoint, NoventaError, Page, reply

WARNING = "writes: say writes=True on its entry"

POSTGRESQL_WRITERS = """
CREATE SCHEMA stats;
CREATE FUNCTION stats.count(integer) RETURNS integer LANGUAGE sql
    AS 'INSERT INTO counters (id, value) VALUES ($1, 0) RETURNING value';
CREATE FUNCTION noisy(integer) RETURNS boolean LANGUAGE sql AS 'SELECT stats.count($1) IS NOT NULL';
CREATE VIEW "my-counters" AS SELECT stats.count(2) AS id;
CREATE DOMAIN counted AS integer CHECK (noisy(VALUE));
CREATE OPERATOR @# (RIGHTARG = integer, FUNCTION = stats.count);
CREATE TABLE ruled (id integer);
CREATE RULE noted AS ON UPDATE TO ruled DO INSTEAD SELECT stats.count(2);
CREATE PROCEDURE counting() LANGUAGE sql AS 'INSERT INTO counters (id, value) VALUES (2, 0)';
"""
SQLITE_WRITERS = """
CREATE VIEW counting AS SELECT id FROM counters;
CREATE TRIGGER counts INSTEAD OF UPDATE ON counting BEGIN
    INSERT INTO counters (id, value) VALUES (2, 0);
END;
"""


@pytest.fixture
def serve(tmp_path: Path, database: str) -> Iterator[Callable[..., App]]:
    """Create applications with a counter, and close their connections at the end."""
    apps: list[App] = []

    def make(*routes: Any, **options: Any) -> App:
        apps.append(counting_app(tmp_path, database, *routes, **options))
        return apps[-1]

    yield make
    for app in apps:
        app.database.dispose()


def prepare(app: App) -> None:
    """Create views, functions and other objects that write when they are read."""
    with app.database.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        if connection.dialect.name == "sqlite":
            driver.executescript(SQLITE_WRITERS)
        else:
            driver.execute(POSTGRESQL_WRITERS)
            driver.commit()


def cursor(db: Any) -> Any:
    """Return a cursor of the driver, which SQLAlchemy does not see."""
    return db.connection().connection.dbapi_connection.cursor()


def driver_sql(statement: str) -> Callable[[Any], Any]:
    return lambda db: db.connection().exec_driver_sql(statement)


def text(statement: str) -> Callable[[Any], Any]:
    return lambda db: db.execute(sa.text(statement)).close()


def cursor_sql(statement: str) -> Callable[[Any], Any]:
    return lambda db: cursor(db).execute(statement)


def flush(db: Any) -> None:
    db.add(Counter(id=2, value=0))
    db.flush()


def copy(db: Any) -> None:
    with cursor(db).copy("COPY counters (id, value) FROM STDIN") as rows:
        rows.write_row((2, 0))


def within_savepoint(db: Any) -> None:
    with db.begin_nested():
        db.execute(sa.update(Counter).values(value=9))


INSERT = "INSERT INTO counters (id, value) VALUES (2, 0)"
WRITES_ON_BOTH = {
    "insert": lambda db: db.execute(sa.insert(Counter).values(id=2, value=0)),
    "update": lambda db: db.execute(sa.update(Counter).values(value=9)),
    "rows": lambda db: db.execute(sa.insert(Counter), [{"id": 2}, {"id": 3}]),
    "flush": flush,
    "text": text("DELETE FROM counters"),
    "comment before it": text("/* SELECT */ -- SELECT\n DELETE FROM counters"),
    "returning": text(f"{INSERT} RETURNING id"),
    "explained": lambda db: db.execute(sa.text("CREATE TABLE made AS SELECT 1 AS id")),
    "table": driver_sql("CREATE TABLE made (id INTEGER)"),
    "raw cursor": cursor_sql(INSERT),
    "raw cursor, many": lambda db: cursor(db).executemany(INSERT, [()]),
    "savepoint": within_savepoint,
}
WRITES_ON_SQLITE = {
    "trigger of a view": text("UPDATE counting SET id = 5"),
    "pragma": driver_sql("PRAGMA user_version = 7"),
    "index": text("REINDEX"),
}
WRITES_ON_POSTGRESQL = {
    "hidden": text("WITH gone AS (DELETE FROM counters RETURNING id) SELECT count(*) FROM gone"),
    "function": lambda db: db.scalar(sa.select(sa.func.stats.count(2))),
    "view": text('SELECT id FROM "my-counters"'),
    "domain": text("SELECT 2::counted"),
    "operator": text("SELECT @# 2"),
    "rule": text("UPDATE ruled SET id = 1"),
    "procedure": text("CALL counting()"),
    "block": text(f"DO $$ BEGIN {INSERT}; END $$"),
    "explain analyze": text(f"EXPLAIN ANALYZE {INSERT}"),
    "select into": text("SELECT 1 AS id INTO made"),
    "values that draw": text("VALUES (nextval('counters_id_seq'))"),
    "locked rows": lambda db: db.query(Counter).with_for_update().all(),
    "locked table": text("LOCK TABLE counters"),
    "two statements": driver_sql("SELECT 1; DELETE FROM counters"),
    "commit within": driver_sql(f"SELECT 1; {INSERT}; ROLLBACK"),
    "copy": copy,
    "raw function": cursor_sql("SELECT stats.count(2)"),
    "raw statements": cursor_sql(f"SELECT 1; {INSERT}"),
    "large object": text("SELECT lo_create(0)"),
}
WRITES = [
    *[("sqlite", name, way) for name, way in (WRITES_ON_BOTH | WRITES_ON_SQLITE).items()],
    *[("postgresql", name, way) for name, way in (WRITES_ON_BOTH | WRITES_ON_POSTGRESQL).items()],
]
all_writes = pytest.mark.parametrize(
    ("database", "way"),
    [(database, way) for database, _, way in WRITES],
    ids=[f"{database}: {name}" for database, name, _ in WRITES],
    indirect=["database"],
)


def database_state(app: App) -> list[Any]:
    """Return everything that a write could have changed: rows, tables and large objects."""
    with app.database.engine.connect() as connection:
        rows = connection.execute(sa.select(Counter.id, Counter.value).order_by("id")).all()
        state = [rows, sorted(sa.inspect(connection).get_table_names())]
        if connection.dialect.name == "sqlite":
            return [*state, connection.exec_driver_sql("PRAGMA user_version").scalar()]
        return [*state, connection.exec_driver_sql("SELECT oid FROM pg_largeobject_metadata").all()]


def logged_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if WARNING in record.message]


# ---- Uncommitted writes are rolled back -----------------------------------------------------


@all_writes
def test_an_uncommitted_write_in_a_get_is_rolled_back_and_the_request_succeeds(
    serve: Any, way: Any, caplog: pytest.LogCaptureFixture
) -> None:
    runs = []

    def handler(request, session, db):
        runs.append(db.get(Counter, 1).value)
        way(db)
        return {}

    app = serve(Endpoint("/", handler))
    prepare(app)
    before = database_state(app)
    for expected in (2, 3, 4):  # the first is run twice, the others start in write mode
        assert ask(app).status == 200
        assert (len(runs), database_state(app)) == (expected, before)
    assert logged_warnings(caplog) == [f"GET / {WARNING} (in handler)"]
    assert checked_out(app) == 0


@transactional
@pytest.mark.parametrize("name", WRITES_ON_BOTH)
def test_a_get_that_swallows_the_rejected_write_is_also_rerun(
    serve: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    runs = []

    def handler(request, session, db):
        runs.append(1)
        try:
            WRITES_ON_BOTH[name](db)
            db.commit()
        except Exception as error:
            db.rollback()
            return {"failed": type(error).__name__}
        return {}

    app = serve(Endpoint("/", handler))
    before = database_state(app)
    answer = ask(app)
    if name.startswith("raw"):  # the driver's own exceptions go unnoticed
        assert answer.text.startswith('{"failed":')
        assert (len(runs), database_state(app)) == (1, before)
    else:
        assert (answer.text, len(runs), len(logged_warnings(caplog))) == ("{}", 2, 1)


@only_postgresql
@pytest.mark.parametrize("way", WRITES_ON_POSTGRESQL.values(), ids=WRITES_ON_POSTGRESQL)
def test_without_autocommit_reads_the_write_is_rolled_back_and_not_rerun(
    serve: Any, way: Any, caplog: pytest.LogCaptureFixture
) -> None:
    runs = []

    def handler(request, session, db):
        runs.append(way(db))
        return {}

    app = serve(Endpoint("/", handler), autocommit_reads=False)
    prepare(app)
    before = database_state(app)
    assert ask(app).status == 200
    assert (len(runs), database_state(app)) == (1, before)
    assert logged_warnings(caplog) == []


# ---- Settings, locks and notifications ------------------------------------------------------

SETTINGS = {
    "set": text("SET app.tenant = '7'"),
    "set local": text("SET LOCAL app.tenant = '7'"),
    "set_config, of the session": text("SELECT set_config('app.tenant', '7', false)"),
    "set_config, of the transaction": text("SELECT set_config('app.tenant', '7', true)"),
    "set_config, by its name": lambda db: db.scalar(
        sa.select(sa.func.pg_catalog.set_config("app.tenant", "7", sa.true()))
    ),
    "set_config, in quotes": text("SELECT \"set_config\"('app.tenant', '7', true)"),
    "among others": driver_sql("SELECT 1; SET app.tenant = '7'"),
}


@only_postgresql
@pytest.mark.parametrize("way", SETTINGS.values(), ids=SETTINGS)
def test_a_setting_applies_to_its_own_request_only(serve: Any, way: Any) -> None:
    setting = sa.text("SELECT current_setting('app.tenant', true)")

    def sets(request, session, db):
        way(db)
        return {"set": db.scalar(setting)}

    def reads(request, session, db):
        return {"set": db.scalar(setting) or None}

    app = serve(Endpoint("/", sets), Endpoint("/reads", reads), pool_size=1, max_overflow=8)
    for _ in range(2):
        assert ask(app).text == '{"set":"7"}'
        assert ask(app, path="/reads").text == '{"set":null}'
        with app.database.session() as db:
            assert not db.scalar(setting)


@only_postgresql
def test_a_reset_applies_to_its_own_transaction_only(serve: Any) -> None:
    def resets(request, session, db):
        db.execute(sa.text("RESET default_transaction_read_only"))
        db.execute(sa.text("RESET ALL"))
        return {}

    app = serve(Endpoint("/", resets), Endpoint("/insert", uncommitted(text(INSERT))))
    assert (ask(app).status, ask(app, path="/insert").status, stored(app, 2)) == (200, 200, None)


LOCKS = {
    "advisory lock": text("SELECT pg_advisory_xact_lock(7)"),
    "advisory lock, tried": lambda db: db.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(7))),
    "shared": text("SELECT pg_advisory_xact_lock_shared(7)"),
    "table": text("LOCK TABLE counters IN ACCESS SHARE MODE"),
}


@only_postgresql
@pytest.mark.parametrize("way", LOCKS.values(), ids=LOCKS)
def test_a_lock_is_held_until_its_transaction_ends(serve: Any, way: Any) -> None:
    held = sa.text(
        "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()"
        " AND (locktype = 'advisory' OR relation = 'counters'::regclass)"
    )

    def locks(request, session, db):
        way(db)
        return {"held": db.scalar(held)}

    app = serve(Endpoint("/", locks))
    assert ask(app).text == '{"held":1}'
    with app.database.engine.connect() as connection:
        assert connection.scalar(held) == 0


MESSAGES = {
    "notify": text("NOTIFY events, 'x'"),
    "pg_notify": text("SELECT pg_notify('events', 'x')"),
    "by its name": lambda db: db.scalar(sa.select(sa.func.pg_notify("events", "x"))),
    "block": text("DO $$ BEGIN NOTIFY events, 'x'; END $$"),
}


@only_postgresql
@pytest.mark.parametrize("way", MESSAGES.values(), ids=MESSAGES)
@pytest.mark.parametrize("commits", [True, False])
def test_a_notification_is_sent_once_and_only_on_commit(
    serve: Any, database: str, way: Any, commits: bool
) -> None:
    def sends(request, session, db):
        way(db)
        if commits:
            db.commit()
        return {}

    app = serve(Endpoint("/", sends))
    with psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as listener:
        listener.execute("LISTEN events")
        assert ask(app).status == 200
        received = [note.payload for note in listener.notifies(timeout=0.3, stop_after=2)]
    assert received == ["x"] * commits


# ---- A GET that writes and commits ----------------------------------------------------------


def uncommitted(way: Callable[[Any], Any]) -> Callable[..., dict[str, Any]]:
    """Return a handler that calls `way` and does not commit."""

    def handler(request, session, db):
        way(db)
        return {}

    return handler


def advance_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Advance `time.monotonic` by `seconds`."""
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + seconds)


def logic_module(name: str, handler: Any) -> ModuleType:
    """Return a logic module whose `load_template_context` is `handler`."""
    logic = ModuleType(name)
    logic.load_template_context = handler  # type: ignore[attr-defined]
    return logic


def visits_parts(handler: Any, **options: Any) -> dict[str, Any]:
    """Return the parts of an application whose page at / renders a component."""
    component = Component("visits", "visits.html", logic=logic_module("visits", handler), **options)
    templates = {
        "page.html": '{{ fragment("visits") }}|{{ component("visits") }}',
        "visits.html": "visit {{ value }}",
    }
    return {"components": [component], "files": templates}


def visits_page(**options: Any) -> Page:
    return Page("/", "page.html", **options)


@transactional
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_endpoint_that_commits_writes_exactly_once(
    serve: Any, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = serve(Endpoint("/", increment))
    for number in (1, 2, 3):
        assert (ask(app, method).status, stored(app)) == (200, number)
    assert logged_warnings(caplog) == [f"{method} / {WARNING} (in increment)"]


@transactional
def test_a_component_that_commits_while_rendering_writes_exactly_once(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = serve(visits_page(), **visits_parts(increment))
    for number in (1, 2):
        assert f"visit {number}" in ask(app).text
        assert stored(app) == number
    assert logged_warnings(caplog) == [f"GET / {WARNING} (in visits)"]


@transactional
def test_a_fragment_that_commits_writes_exactly_once(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = serve(visits_page(), **visits_parts(increment))
    visitor = Visitor(app)
    query = visitor.get().text.partition("|")[0].replace("&amp;", "&").partition("?")[2]
    advance_clock(monkeypatch, 61)  # the page is no longer known to write
    assert visitor.get(query=query).text == "visit 2"
    assert stored(app) == 2


@transactional
@pytest.mark.parametrize("place", ["registry", "route", "component"])
def test_a_guard_that_commits_writes_once_and_is_named(
    serve: Any, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    def counts(request, session, db, **props):
        increment(request, session, db)

    options = {"guard": counts} if place == "component" else {}
    page = visits_page(guards=[counts] if place == "route" else [])
    everywhere = [counts] if place == "registry" else []
    app = serve(page, guards=everywhere, **visits_parts(value, **options))
    assert ask(app).text.endswith("visit 1")
    assert stored(app) == 1
    (line,) = logged_warnings(caplog)
    assert "counts" in line


@transactional
def test_app_render_can_write(serve: Any) -> None:
    app = serve(visits_page(), **visits_parts(increment))
    assert [app.render("visits"), app.render("visits")] == ["visit 1", "visit 2"]
    assert stored(app) == 2


@transactional
def test_an_error_page_can_write(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    def fails(request, session, db):
        raise RuntimeError

    parts = visits_parts(increment)
    parts["files"]["broken.html"] = '{{ component("visits") }}'
    app = serve(Endpoint("/", fails), errors={500: "broken.html"}, **parts)
    for number in (1, 2):
        answer = ask(app, HTTP_ACCEPT="text/html")
        assert (answer.status, answer.text) == (500, f"visit {number}")
    assert stored(app) == 2
    assert len(logged_warnings(caplog)) == 1


@transactional
def test_a_route_that_wrote_starts_in_write_mode_for_a_minute(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []

    def handler(request, session, db):
        runs.append(1)
        return increment(request, session, db)

    app = serve(Endpoint("/", handler), Endpoint("/other", value))
    counts = []
    for seconds in (0, 0, 59, 2):
        advance_clock(monkeypatch, seconds)
        ask(app)
        counts.append(len(runs))
    assert counts == [2, 3, 4, 6]
    with statements(app) as sent:
        ask(app, path="/other")
    assert [statement.split()[0] for statement in sent] == ["SELECT"]


@transactional
def test_session_changes_of_a_rerun_request_apply_once(serve: Any) -> None:
    def handler(request, session, db):
        session["seen"] = session.get("seen", 0) + 1
        session.flash("seen")
        increment(request, session, db)
        return {"seen": session["seen"]}

    flashed = Page("/flashed", "flashed.html")
    files = {"flashed.html": "{% for message in flashes() %}{{ message.text }} {% endfor %}"}
    app = serve(Endpoint("/", handler), flashed, files=files)
    visitor = Visitor(app)
    assert [visitor.get().text for _ in range(2)] == ['{"seen":1}', '{"seen":2}']
    assert visitor.get("/flashed").text == "seen seen "
    assert stored(app) == 2


@transactional
def test_a_get_with_a_body_can_read_it_again_on_the_rerun(serve: Any) -> None:
    def handler(request, session, db):
        words = request.json["words"]
        increment(request, session, db)
        return words

    app = serve(Endpoint("/", handler))
    answer = ask(app, body=b'{"words": ["a", "b"]}', CONTENT_TYPE="application/json")
    assert (answer.status, answer.text, stored(app)) == (200, '["a","b"]', 1)


@transactional
def test_an_error_raised_because_of_the_rejected_write_does_not_prevent_the_rerun(
    serve: Any,
) -> None:
    def handler(request, session, db):
        try:
            increment(request, session, db)
        except (sa.exc.DBAPIError, NoventaError) as error:
            raise LookupError("in vain") from error
        return {}

    app = serve(Endpoint("/", handler))
    assert (ask(app).status, stored(app)) == (200, 1)


@transactional
def test_the_body_of_a_discarded_response_is_closed(serve: Any) -> None:
    closed = []

    class Body:
        """A body with something to close."""

        def __iter__(self) -> Iterator[bytes]:
            return iter((b"a", b"b"))

        def close(self) -> None:
            closed.append(self)

    def handler(request, session, db):
        try:
            increment(request, session, db)
        except (sa.exc.DBAPIError, NoventaError):
            db.rollback()
        return Response(app_iter=Body())

    app = serve(Endpoint("/", handler))
    assert (ask(app).status, stored(app), len(closed)) == (200, 1, 2)
    assert checked_out(app) == 0


@transactional
def test_a_get_that_writes_in_a_sandbox_logs_the_same_warning(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = serve(Endpoint("/", increment), Endpoint("/declared", increment, writes=True))
    with app.database.sandbox():
        for path in ("/", "/", "/declared"):
            assert ask(app, path=path).status == 200
    assert logged_warnings(caplog) == [f"GET / {WARNING}"]
    assert stored(app) == 0


# ---- After an action ------------------------------------------------------------------------

CALLS: list[str] = []


def form_app(serve: Any, act: Any, handler: Any, **options: Any) -> App:
    """Return an application with one form, whose component loads its context with `handler`."""
    logic = logic_module("form", handler)
    act.__name__, act.__module__ = "action_add", "form"
    logic.action_add = act  # type: ignore[attr-defined]
    templates = {
        "page.html": '{{ flashes() }}<form method="post">{{ component("form") }}</form>',
        "form.html": '{{ action("add") }} shows {{ value }} load {{ loads }}',
    }
    component = Component("form", "form.html", logic=logic)
    app: App = serve(visits_page(), components=[component], files=templates, **options)
    return app


def counting_action(request: Any, session: Any, db: Any) -> dict[str, Any]:
    CALLS.append("action")
    session["done"] = session.get("done", 0) + 1
    session.flash(f"done {session['done']}")
    increment(request, session, db)
    return {}


def counting_load(request: Any, session: Any, db: Any) -> dict[str, Any]:
    CALLS.append("load")
    session["loads"] = session.get("loads", 0) + 1
    return {**increment(request, session, db), "loads": session["loads"]}


@transactional
@pytest.mark.parametrize("headers", [{}, {"HTTP_NOVENTA_FRAGMENT": "1"}], ids=["page", "fragment"])
def test_an_action_runs_once_if_the_page_after_it_writes(
    serve: Any, headers: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = form_app(serve, counting_action, counting_load)
    visitor = Visitor(app, HTTP_SEC_FETCH_SITE="same-origin")
    ticket = visitor.get().tickets[0]
    for number in (1, 2):
        advance_clock(monkeypatch, 61 * number)  # the page is no longer known to write
        CALLS.clear()
        answer = visitor.post(ticket=ticket, **headers)
        assert answer.status == 200
        assert f"shows {1 + 2 * number} load {1 + number}" in answer.text
        assert (CALLS, stored(app)) == (["action", "load", "load"], 1 + 2 * number)
        if not headers:
            assert answer.text.count("done") == 1
            assert f"done {number}" in answer.text
    assert len(logged_warnings(caplog)) == 1


@transactional
def test_a_page_that_writes_after_its_action_and_fails_logs_where(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(request, session, db):
        if request.method == "POST":
            increment(request, session, db)
            raise RuntimeError("broken")
        return {}

    app = form_app(serve, lambda request, session, db: {}, fails)
    visitor = Visitor(app)
    assert visitor.post(ticket=visitor.get().tickets[0]).status == 500
    assert stored(app) == 1
    (error,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert "in page.html > form: RuntimeError" in error


@transactional
def test_an_action_that_writes_through_the_reader_is_not_rerun(serve: Any) -> None:
    """Only writes sent through `db` cause a rerun."""

    def act(request, session, db):
        CALLS.append("action")
        with request.app.database.reader.connect() as connection:
            connection.execute(sa.update(Counter).values(value=9))
        return {}

    app = form_app(serve, act, value)
    visitor = Visitor(app)
    ticket = visitor.get().tickets[0]
    CALLS.clear()
    assert visitor.post(ticket=ticket).status == 500
    assert (CALLS, stored(app)) == (["action"], 0)


@transactional
def test_an_action_in_a_sandbox_logs_no_warning(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = form_app(serve, counting_action, value)
    visitor = Visitor(app)
    with app.database.sandbox():
        assert "shows 1" in visitor.post(ticket=visitor.get().tickets[0]).text
    assert logged_warnings(caplog) == []


@transactional
def test_a_page_that_writes_after_its_action_in_a_sandbox_logs_a_warning(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def counts_after_a_post(request, session, db):
        return increment(request, session, db) if request.method == "POST" else {}

    app = form_app(serve, lambda request, session, db: {}, counts_after_a_post)
    visitor = Visitor(app)
    with app.database.sandbox():
        assert "shows 1" in visitor.post(ticket=visitor.get().tickets[0]).text
    assert logged_warnings(caplog) == [f"POST / {WARNING}"]


# ---- Plain reads ----------------------------------------------------------------------------

IDS = sa.select(Counter.id)
PLAIN_READS = {
    "by key": lambda db: db.get(Counter, 1),
    "filter": lambda db: db.query(Counter.id).filter(Counter.value > 10).all(),
    "ordered": lambda db: db.scalars(IDS.order_by(Counter.id.desc()).limit(1)).all(),
    "count": lambda db: db.scalar(sa.select(sa.func.count()).select_from(Counter)),
    "in": lambda db: db.query(Counter.id).filter(Counter.id.in_([1, 2])).count(),
    "exists": lambda db: db.scalar(sa.select(sa.exists().where(Counter.value == 0))),
    "window": lambda db: db.execute(sa.select(sa.func.rank().over(order_by=Counter.id))).all(),
    "with": lambda db: db.scalar(sa.text("WITH one AS (SELECT 1 AS n) SELECT n FROM one")),
    "union": lambda db: db.execute(sa.union_all(IDS, sa.select(Counter.value))).all(),
    "values": lambda db: db.execute(sa.text("VALUES (1), (2);")).all(),
    "comment": lambda db: db.execute(sa.text("-- which\n/* ; */ SELECT 1")).all(),
    "now": lambda db: db.scalar(sa.select(sa.func.current_timestamp())),
    "raw cursor": lambda db: cursor(db).execute("SELECT 1").fetchall(),
}


@transactional
@pytest.mark.parametrize("way", PLAIN_READS.values(), ids=PLAIN_READS)
def test_a_plain_read_is_sent_once_without_a_transaction(
    serve: Any, way: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = serve(Endpoint("/", uncommitted(way)))
    ask(app)
    with statements(app) as sent:
        assert ask(app).status == 200
    assert not [
        statement for statement in sent if re.match("BEGIN|ROLLBACK|COMMIT|SAVEPOINT", statement)
    ]
    assert len(sent) <= 1
    assert logged_warnings(caplog) == []


def trace_wire(app: App, engine: sa.Engine, log: Path) -> tuple[list[str], int]:
    """Return the statements that libpq sends for a GET, from its log, and the round trips."""
    connection = engine.raw_connection()  # the pool hands it out next
    pgconn = connection.dbapi_connection.pgconn  # type: ignore[union-attr]
    connection.close()
    with log.open("w+") as file:
        pgconn.trace(file.fileno())
        assert answered(app, "GET", "/") == 200
        pgconn.untrace()
    words = log.read_text("utf-8")
    sent = re.findall(r'\tF\t\d+\t(?:Query|Parse)\t (?:"" )?"(\w*)', words)
    return sent, words.count("ReadyForQuery")


@only_postgresql
@pytest.mark.parametrize(
    ("autocommit", "expected"),
    [(True, (["SELECT"], 1)), (False, (["BEGIN", "SELECT", "ROLLBACK"], 3))],
)
def test_a_plain_read_takes_one_round_trip(
    serve: Any, tmp_path: Path, autocommit: bool, expected: Any
) -> None:
    app = serve(Endpoint("/", value), autocommit_reads=autocommit, pool_size=1, max_overflow=8)
    answered(app, "GET", "/")
    assert trace_wire(app, app.database.reader, tmp_path / "wire.log") == expected


@only_postgresql
def test_a_connection_is_pinged_after_an_idle_period_but_not_in_constant_use(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = serve(Endpoint("/", value), pool_size=1, max_overflow=8)
    answered(app, "GET", "/")
    trips = []
    clock = time.monotonic
    for seconds in (0, 0, 10):
        connection = app.database.reader.raw_connection()
        pgconn = connection.dbapi_connection.pgconn
        connection.close()
        monkeypatch.setattr(time, "monotonic", lambda late=seconds: clock() + late)
        with (tmp_path / "wire.log").open("w+") as file:
            pgconn.trace(file.fileno())
            answered(app, "GET", "/")
            pgconn.untrace()
        trips.append((tmp_path / "wire.log").read_text("utf-8").count("ReadyForQuery"))
    assert trips == [1, 1, 2]


@only_postgresql
@pytest.mark.parametrize(("autocommit", "state"), [(True, "idle"), (False, "idle in transaction")])
def test_a_session_is_not_idle_in_transaction_between_plain_reads(
    serve: Any, database: str, autocommit: bool, state: str
) -> None:
    def handler(request, session, db):
        db.get(Counter, 1)
        pid = cursor(db).connection.info.backend_pid
        with psycopg.connect(database.replace("+psycopg", "")) as watch:
            query = "SELECT state FROM pg_stat_activity WHERE pid = %s"
            return {"state": watch.execute(query, [pid]).fetchone()[0]}

    app = serve(Endpoint("/", handler), autocommit_reads=autocommit)
    assert ask(app).text == f'{{"state":"{state}"}}'


@transactional
def test_a_get_reads_in_one_transaction_only_with_writes_true(serve: Any) -> None:
    def handler(request, session, db):
        before = db.scalar(sa.select(sa.func.count()).select_from(Counter))
        if request.app.database.engine.dialect.name == "postgresql":
            now = sa.select(sa.func.now())
            return {"same": db.scalar(now) == db.scalar(now)}
        return {"same": db.connection().connection.dbapi_connection.in_transaction, "n": before}

    app = serve(Endpoint("/", handler), Endpoint("/one", handler, writes=True))
    assert '"same":false' in ask(app).text
    assert '"same":true' in ask(app, path="/one").text


@transactional
def test_the_reader_returns_to_its_initial_state_after_a_stream(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def rows(request, session, db):
        result = db.scalars(sa.select(Counter.id).execution_options(yield_per=1))
        return {"first": next(iter(result))}

    app = serve(Endpoint("/rows", rows), Endpoint("/", uncommitted(lambda db: db.get(Counter, 1))))
    with app.database.session() as db:
        db.add(Counter(id=2, value=0))
        db.commit()
    for _ in range(2):
        assert ask(app, path="/rows").text == '{"first":1}'
        assert checked_out(app) == 0
    assert logged_warnings(caplog) == []
    with app.database.reader.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        connection.execute(IDS).all()
        is_idle = (
            not driver.in_transaction
            if isinstance(driver, sqlite3.Connection)
            else driver.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        )
        assert is_idle


# ---- Row-level security ---------------------------------------------------------------------

POLICY = """
GRANT SELECT, INSERT, UPDATE ON counters TO {role};
ALTER TABLE counters ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON counters USING (value::text = current_setting('app.tenant', true));
INSERT INTO counters (id, value) SELECT n, 1 + mod(n, 2) FROM generate_series(2, 9) n
"""
TENANT_STATEMENTS = {
    "set local": "SET LOCAL app.tenant = '{}'",
    "set_config": "SELECT set_config('app.tenant', '{}', true)",
}


@pytest.fixture
def role(database: str) -> Iterator[str]:
    name = f"noventa_reader_{sa.make_url(database).database}"
    with psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name}")
    yield name
    with psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"DROP OWNED BY {name}")
        connection.execute(f"DROP ROLE {name}")


@only_postgresql
@pytest.mark.parametrize("autocommit", [True, False])
@pytest.mark.parametrize("sets", TENANT_STATEMENTS.values(), ids=TENANT_STATEMENTS)
def test_a_tenant_set_in_a_guard_applies_to_reads_and_streams(
    serve: Any, role: str, sets: str, autocommit: bool
) -> None:
    def set_tenant(request, session, db):
        db.execute(sa.text(f"SET LOCAL ROLE {role}"))
        db.execute(sa.text(sets.format(request.args["tenant"])))

    def reads(request, session, db):
        return db.scalars(IDS.order_by(Counter.id)).all()

    def streams(request, session, db):
        rows = db.scalars(IDS.order_by(Counter.id).execution_options(yield_per=1))
        return reply(f"{number} " for number in rows)

    def streams_later(request, session, db):
        def body():
            set_tenant(request, session, db)
            for number in db.scalars(IDS.order_by(Counter.id)):
                yield f"{number} "

        return reply(body())

    routes = {"/reads": reads, "/streams": streams, "/later": streams_later}
    app = serve(
        *[Endpoint(path, handler) for path, handler in routes.items()],
        guards=[set_tenant], autocommit_reads=autocommit, pool_size=1, max_overflow=8,
    )  # fmt: skip
    with app.database.engine.begin() as connection:
        connection.exec_driver_sql(POLICY.format(role=role))
    for _ in range(2):
        for tenant, numbers in (("1", "2 4 6 8"), ("2", "3 5 7 9"), ("3", "")):
            for path in routes:
                found = re.findall(r"\d+", ask(app, path=path, query=f"tenant={tenant}").text)
                assert " ".join(found) == numbers, path


# ---- Isolation levels -----------------------------------------------------------------------


def in_transaction(db: Any) -> bool:
    status = cursor(db).connection.info.transaction_status
    return bool(status != psycopg.pq.TransactionStatus.IDLE)


@only_postgresql
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE", "READ COMMITTED"])
def test_reads_use_transactions_if_an_isolation_level_is_configured(serve: Any, level: str) -> None:
    def handler(request, session, db):
        db.get(Counter, 1)
        level = db.scalar(sa.text("SHOW transaction_isolation"))
        return {"level": level.upper(), "in": in_transaction(db)}

    app = serve(Endpoint("/", handler), isolation_level=level)
    assert ask(app).text == f'{{"level":"{level}","in":true}}'


@only_postgresql
def test_a_configured_autocommit_level_is_respected(serve: Any) -> None:
    def handler(request, session, db):
        db.execute(sa.update(Counter).values(value=Counter.value + 1))
        return {"in": in_transaction(db)}

    app = serve(Endpoint("/", handler), isolation_level="AUTOCOMMIT")
    assert ask(app).text == '{"in":false}'
    assert stored(app) == 1


@only_postgresql
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_an_isolation_level_that_a_handler_sets_ends_with_its_request(
    serve: Any, level: str
) -> None:
    def chooses(request, session, db):
        db.connection(execution_options={"isolation_level": level})
        return {"level": db.scalar(sa.text("SHOW transaction_isolation")).upper()}

    def handler(request, session, db):
        db.get(Counter, 1)
        return {"in": in_transaction(db)}

    app = serve(Endpoint("/chooses", chooses), Endpoint("/", handler))
    for _ in range(2):
        assert ask(app, path="/chooses").text == f'{{"level":"{level}"}}'
        assert ask(app).text == '{"in":false}'


@transactional
def test_other_engines_of_the_application_are_not_affected(serve: Any, database: str) -> None:
    others: list[sa.Engine] = []

    def handler(request, session, db):
        bind = {"bind_arguments": {"bind": others[0]}}
        db.execute(sa.update(Counter).values(value=9), **bind)
        return {"value": db.scalar(sa.select(Counter.value), **bind)}

    app = serve(Endpoint("/", handler))
    others.append(sa.create_engine(app.database.engine.url))
    assert ask(app).text == '{"value":9}'
    assert stored(app) == 0
    others[0].dispose()


@transactional
def test_the_reader_can_be_used_directly_and_rejects_writes(serve: Any) -> None:
    app = serve()
    with app.database.reader.connect() as connection:
        assert connection.scalar(IDS) == 1
        with pytest.raises(
            (sa.exc.DBAPIError, NoventaError), match=r"read-?only|use database\.engine"
        ):
            connection.execute(sa.update(Counter).values(value=9))
    assert stored(app) == 0
