"""Database: the scope of `db`, transactions, forgotten commits, streams, pools, forks, sandbox."""

from __future__ import annotations

import gc
import itertools
import json
import logging
import sqlite3
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa
import webob.exc
from conftest import only_mariadb, only_postgresql, only_sqlite, servers, transactional
from counters import (
    Counter,
    PrivatePostgres,
    action,
    answered,
    checked_out,
    counting_app,
    events,
    get_json,
    gunicorn,
    increment,
    statements,
    stored,
    value,
)
from processes import environment
from sqlalchemy import event, orm
from support import make_app
from visitors import Visitor, ask, multipart, post
from webob import Request, Response

from noventa import (
    App,
    Component,
    Config,
    ConfigError,
    Database,
    Endpoint,
    NoventaError,
    Page,
    make_engine,
    reading,
)

TEMPLATES = {
    "page.html": '{{ component("counter") }} {{ component("counter", key="again") }}',
    "counter.html": 'value {{ value }} <form method="post">{{ action("add") }}</form>',
}


def forms(
    root: Path, act: Any, load: Any = None, *, url: str = "sqlite:///./a.db",
    debug: bool = False, writes: bool = False, **options: Any,
) -> App:  # fmt: skip
    """Return an application with a page at / whose component posts its form to `act`."""
    logic = ModuleType("counter_logic")
    act.__name__, act.__module__ = "action_add", "counter_logic"
    logic.load_template_context, logic.action_add = load or value, act  # type: ignore[attr-defined]
    counter = Component("counter", "counter.html", logic=logic, models=[Counter], **options)
    config = {"database": url, "debug": debug}
    page = Page("/", "page.html", writes=writes)
    app = make_app(root, TEMPLATES, config, components=[counter], routes=[page])
    with app.database.session() as db:
        db.merge(Counter(id=1, value=0))
        db.commit()
    return app


# ---- Scope ----------------------------------------------------------------------------------


def test_no_connection_is_opened_before_the_first_query(tmp_path: Path, database: str) -> None:
    def touch(request, session, db):
        db.add(Counter(id=7))
        db.expunge_all()
        return {"new": len(db.new)}

    app = counting_app(tmp_path, database, Endpoint("/touch", touch), Endpoint("/value", value))
    app.database.engine.dispose()
    with events(app, "connect", "checkout") as seen:
        assert ask(app, "GET", "/touch").status == 200
        assert ask(app, "GET", "/no-such-page").status == 404
        assert seen == []
        assert ask(app, "GET", "/value").status == 200
        assert "checkout" in seen


def test_each_request_has_its_own_session(tmp_path: Path) -> None:
    seen: list[orm.Session] = []

    def guard(request, session, db):
        seen.append(db())

    def handler(request, session, db):
        seen.append(db())
        return {}

    app = make_app(tmp_path, routes=[Endpoint("/", handler, guards=[guard])])
    ask(app)
    ask(app)
    assert seen[0] is seen[1]
    assert seen[2] is seen[3]
    assert seen[0] is not seen[2]


def test_a_handler_that_removes_its_session_gets_a_new_one(tmp_path: Path) -> None:
    seen: list[orm.Session] = []

    def handler(request, session, db):
        seen.append(db())
        db.get(Counter, 1).value = 5
        db.remove()
        seen.append(db())
        return value(request, session, db)

    app = counting_app(tmp_path, "sqlite:///./a.db", action("/", handler))
    assert ask(app, "POST", "/").text == '{"value":0}'
    assert seen[0] is not seen[1]
    assert checked_out(app) == 0


def test_a_session_accepts_custom_options(tmp_path: Path) -> None:
    def handler(request, session, db):
        custom = db(autoflush=False)
        assert custom is db()
        custom.add(Counter(id=2))
        return {"count": db.query(Counter).count()}  # the new row is not flushed

    app = counting_app(tmp_path, "sqlite:///./a.db", Endpoint("/", handler))
    with statements(app) as sent:
        assert ask(app).text == '{"count":1}'
    assert not any(text.startswith("BEGIN") for text in sent)
    assert checked_out(app) == 0
    assert stored(app, 2) is None


def test_an_app_that_calls_itself_uses_two_sessions(tmp_path: Path) -> None:
    sessions = []

    def outer(request, session, db):
        counter = db.get(Counter, 1)
        sessions.append(db())
        inner = Request.blank("/inner").get_response(app)
        assert db() is sessions[0]
        assert counter in db
        return {"inner": inner.json, "value": counter.value}

    def inner(request, session, db):
        sessions.append(db())
        return value(request, session, db)

    app = counting_app(
        tmp_path, "sqlite:///./a.db", Endpoint("/", outer), Endpoint("/inner", inner)
    )
    assert ask(app).text == '{"inner":{"value":0},"value":0}'
    assert sessions[0] is not sessions[1]
    assert checked_out(app) == 0


def test_requests_in_one_thread_can_be_interleaved(tmp_path: Path) -> None:
    app = counting_app(tmp_path, "sqlite:///./a.db")
    with app.database.scope(writes=False) as first:
        session = app.database.scoped()
        with app.database.scope(writes=False):
            assert app.database.scoped() is not session
            with first.activated():
                assert app.database.scoped() is session
        assert app.database.scoped() is session


def test_db_outside_a_request_raises_and_names_the_alternative(tmp_path: Path) -> None:
    app = counting_app(tmp_path, "sqlite:///./a.db")
    with pytest.raises(NoventaError, match=r"app\.database\.session\(\)"):
        app.database.scoped.execute(sa.text("SELECT 1"))


def test_a_failed_cleanup_keeps_the_response_and_invalidates_the_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = []  # a reference, so that garbage collection does not clean up first

    def cannot_be_rolled_back(request, session, db):
        increment(request, session, db)
        held.append(db.connection())
        return {"done": True}

    def fail_to_roll_back(connection):
        raise OSError("no rollback")

    app = counting_app(
        tmp_path, "sqlite:///./a.db", action("/fail", cannot_be_rolled_back),
        Endpoint("/value", value),
    )  # fmt: skip
    event.listen(app.database.engine, "rollback", fail_to_roll_back)
    with events(app, "invalidate") as seen:
        assert ask(app, "POST", "/fail").text == '{"done":true}'
    event.remove(app.database.engine, "rollback", fail_to_roll_back)
    assert seen == ["invalidate"]
    assert "could not be cleaned" in caplog.text
    assert checked_out(app) == 0
    assert ask(app, "GET", "/value").text == '{"value":1}'


@only_postgresql
def test_a_connection_that_dies_after_the_commit_does_not_affect_the_response(
    tmp_path: Path, database: str
) -> None:
    def dies(request, session, db):
        increment(request, session, db)
        pid = db.scalar(sa.text("SELECT pg_backend_pid()"))
        with app.database.session() as other:
            other.execute(sa.text(f"SELECT pg_terminate_backend({pid})"))
        return {"done": True}

    app = counting_app(tmp_path, database, action("/die", dies), Endpoint("/value", value))
    assert ask(app, "POST", "/die").text == '{"done":true}'
    assert checked_out(app) == 0
    assert ask(app, "GET", "/value").text == '{"value":1}'


@only_postgresql
def test_a_connection_that_dies_in_a_transaction_returns_503_even_if_swallowed(
    tmp_path: Path, database: str
) -> None:
    def swallows(request, session, db):
        pid = db.scalar(sa.text("SELECT pg_backend_pid()"))
        with app.database.session() as other:
            other.execute(sa.text(f"SELECT pg_terminate_backend({pid})"))
        with pytest.raises(sa.exc.DBAPIError):
            value(request, session, db)
        return value(request, session, db)

    app = counting_app(tmp_path, database, action("/die", swallows), Endpoint("/value", value))
    answer = ask(app, "POST", "/die")
    assert (answer.status, answer.header("Retry-After")) == (503, "5")
    assert ask(app, "GET", "/value").status == 200
    assert checked_out(app) == 0


# ---- Transactions by method -----------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
def test_sqlite_takes_the_write_lock_only_for_unsafe_methods(tmp_path: Path, method: str) -> None:
    every = Endpoint("/", value, methods=["GET", "POST", "PUT", "DELETE"], cross_origin=True)
    app = counting_app(tmp_path, "sqlite:///./a.db", every)
    with statements(app) as sent:
        assert ask(app, method, "/").status == 200
    begun = [text for text in sent if text.startswith("BEGIN")]
    assert begun == ([] if method in ("GET", "HEAD") else ["BEGIN IMMEDIATE"])


def test_an_action_runs_in_one_transaction_from_its_first_statement(tmp_path: Path) -> None:
    def twice(request, session, db):
        return {"sum": sum(db.scalars(sa.select(Counter.value)).one() for _ in range(2))}

    app = counting_app(tmp_path, "sqlite:///./a.db", action("/", twice))
    with statements(app) as sent:
        assert ask(app, "POST").text == '{"sum":0}'
    assert [text.split()[0] for text in sent] == ["BEGIN", "SELECT", "SELECT", "ROLLBACK"]


def test_a_savepoint_on_sqlite_is_inside_a_transaction(tmp_path: Path) -> None:
    def nested_only(request, session, db):
        with db.begin_nested():
            db.execute(sa.insert(Counter).values(id=2, value=5))
        db.rollback()
        return {}

    routes = [Endpoint("/", nested_only), action("/post", nested_only)]
    app = counting_app(tmp_path, "sqlite:///./a.db", *routes)
    assert ask(app).status == ask(app, "POST", "/post").status == 200
    assert stored(app, 2) is None


RAW_STATEMENTS = {
    "rows": "INSERT INTO counters (id, value) VALUES (2, 5)",
    "a table": "CREATE TABLE made (id INTEGER)",
}


@pytest.mark.parametrize("sql", RAW_STATEMENTS.values(), ids=RAW_STATEMENTS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_raw_driver_statements_are_inside_the_transaction(
    tmp_path: Path, sql: str, method: str
) -> None:
    def handler(request, session, db):
        db.connection().connection.cursor().execute(sql)
        raise RuntimeError

    both = Endpoint("/", handler, methods=["GET", "POST"], cross_origin=True)
    app = counting_app(tmp_path, "sqlite:///./a.db", both)
    assert ask(app, method, "/").status == 500
    assert stored(app, 2) is None
    assert not sa.inspect(app.database.engine).has_table("made")


def test_a_get_that_connects_through_the_engine_takes_no_sqlite_lock(tmp_path: Path) -> None:
    def connects(request, session, db):
        with db.get_bind().connect() as connection:
            return {"value": connection.scalar(sa.select(Counter.value))}

    both = Endpoint("/", connects, methods=["GET", "POST"], cross_origin=True)
    app = counting_app(tmp_path, "sqlite:///./a.db", both)
    begun = []
    for method in ("GET", "POST"):
        with statements(app) as sent:
            assert ask(app, method, "/").text == '{"value":0}'
        begun.append(sent[0])
    assert [text.split()[0] for text in begun] == ["SELECT", "BEGIN"]


def test_a_lock_timeout_on_sqlite_returns_503_with_retry_after(tmp_path: Path) -> None:
    app = counting_app(tmp_path, "sqlite:///./a.db", action("/", increment))
    app.database.engine.dispose()
    event.listen(
        app.database.engine, "connect", lambda driver, _: driver.execute("PRAGMA busy_timeout=50")
    )
    with app.database.session() as db:
        db.get(Counter, 1)
        answer = ask(app, "POST", "/")
    assert (answer.status, answer.header("Retry-After")) == (503, "5")
    assert checked_out(app) == 0
    assert ask(app, "POST", "/").text == '{"value":1}'


def test_a_garbage_collected_session_returns_its_connection(tmp_path: Path, database: str) -> None:
    app = counting_app(tmp_path, database)
    session = app.database.new_session()
    session.get(Counter, 1)
    assert checked_out(app) == 1
    del session
    gc.collect()
    assert checked_out(app) == 0


def test_autocommit_on_sqlite_ends_when_the_connection_is_returned(tmp_path: Path) -> None:
    app = counting_app(tmp_path, "sqlite:///./a.db", action("/", increment), pool_size=1)
    for _ in range(2):
        with app.database.engine.connect() as connection:
            options = connection.execution_options(isolation_level="AUTOCOMMIT")
            options.exec_driver_sql("VACUUM")
        with statements(app) as sent:
            assert ask(app, "POST").status == 200
        assert [text.split()[0] for text in sent[:4]] == ["BEGIN", "SELECT", "UPDATE", "COMMIT"]


def test_reading_takes_no_write_lock_on_sqlite(tmp_path: Path) -> None:
    app = counting_app(tmp_path, "sqlite:///./a.db")
    with statements(app) as sent, reading(app.database.engine) as connection:
        assert connection.scalar(sa.select(Counter.value)) == 0
    assert sent[0] == "BEGIN"


INSERTS = {
    "several rows": lambda db: db.execute(sa.insert(Counter), [{"id": 2}, {"id": 3}]),
    "several rows of text": lambda db: db.execute(
        sa.text("INSERT INTO counters (id, value) VALUES (:id, 0)"), [{"id": 2}, {"id": 3}]
    ),
    "without parameters": lambda db: db.connection(
        execution_options={"no_parameters": True}
    ).exec_driver_sql("INSERT INTO counters (id, value) VALUES (2, 0)"),
}


@pytest.mark.parametrize("write", INSERTS.values(), ids=INSERTS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_uncommitted_statement_is_rolled_back_and_reported_however_it_is_sent(
    tmp_path: Path, database: str, write: Any, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    def forgets(request, session, db):
        write(db)
        return {}

    both = Endpoint("/", forgets, methods=["GET", "POST"], cross_origin=True)
    app = counting_app(tmp_path, database, both)
    assert ask(app, method, "/").status == 200
    assert "changed rows without db.commit(); rolled back: INSERT INTO counters" in caplog.text
    assert stored(app, 2) is None


@only_sqlite
def test_a_get_may_write(tmp_path: Path, database: str) -> None:
    app = counting_app(tmp_path, database, Endpoint("/", increment))
    assert ask(app).text == '{"value":1}'
    assert stored(app) == 1


def writing_page_app(root: Path, url: str, **options: Any) -> App:
    """Return an application whose page counts its visits: it reads, then writes."""
    logic = ModuleType("visits")
    logic.load_template_context = increment  # type: ignore[attr-defined]
    visits = Component("visits", "visits.html", logic=logic, models=[Counter])
    templates = {"page.html": '{{ component("visits") }}', "visits.html": "{{ value }}"}
    page = Page("/", "page.html", **options)
    app = make_app(root, templates, {"database": url}, components=[visits], routes=[page])
    with app.database.session() as db:
        db.add(Counter(id=1, value=0))
        db.commit()
    return app


def writing_endpoint_app(root: Path, url: str, **options: Any) -> App:
    return counting_app(root, url, Endpoint("/", increment, **options))


WRITING_APPS = [writing_page_app, writing_endpoint_app]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("make", WRITING_APPS)
def test_a_get_with_writes_true_begins_like_an_action(
    tmp_path: Path, make: Any, method: str
) -> None:
    app = make(tmp_path, "sqlite:///./a.db", writes=True)
    with statements(app) as sent:
        assert ask(app, method).status == 200
    assert sent[0] == "BEGIN IMMEDIATE"


@pytest.mark.parametrize("make", WRITING_APPS)
def test_gets_that_read_and_then_write_wait_for_each_other(tmp_path: Path, make: Any) -> None:
    app = make(tmp_path, "sqlite:///./a.db", writes=True)
    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(lambda _: answered(app, "GET", "/"), range(160)))
    assert (statuses, stored(app)) == ([200] * 160, 160)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("writes", [True, False])
def test_a_get_on_postgresql_has_a_transaction_only_with_writes_true(
    tmp_path: Path, database: str, writes: bool
) -> None:
    def handler(request, session, db):
        db.get(Counter, 1)
        driver = db.connection().connection.dbapi_connection
        return {"status": driver.info.transaction_status.name}

    app = counting_app(tmp_path, database, Endpoint("/", handler, writes=writes))
    status = "INTRANS" if writes else "IDLE"
    assert ask(app).text == f'{{"status":"{status}"}}'


def test_a_page_with_writes_true_can_also_write_after_its_action(tmp_path: Path) -> None:
    app = forms(tmp_path, lambda request, session, db: {}, increment, writes=True)
    visitor = Visitor(app)
    ticket = visitor.get().tickets[0]
    with statements(app) as sent:
        assert "value 3" in visitor.post(ticket=ticket).text
    begun = [text for text in sent if text.startswith("BEGIN")]
    assert set(begun) == {"BEGIN IMMEDIATE"}


def test_a_page_rendered_after_its_action_only_reads(tmp_path: Path) -> None:
    def act(request, session, db):
        return increment(request, session, db)

    app = forms(tmp_path, act)
    visitor = Visitor(app)
    ticket = visitor.get().tickets[0]
    with statements(app) as sent:
        assert "value 1" in visitor.post(ticket=ticket).text
    words = [text.split()[0] for text in sent]
    assert words[: words.index("COMMIT")] == ["BEGIN", "SELECT", "UPDATE"]
    assert set(words[len(words) - words[::-1].index("ROLLBACK") :]) == {"SELECT"}


def test_a_session_outside_a_request_takes_the_write_lock(tmp_path: Path) -> None:
    app = counting_app(tmp_path, "sqlite:///./a.db")
    with statements(app) as sent, app.database.session() as db:
        db.get(Counter, 1)
    assert sent[0] == "BEGIN IMMEDIATE"


@only_sqlite
def test_sqlite_uses_wal_foreign_keys_and_a_busy_timeout(tmp_path: Path, database: str) -> None:
    app = counting_app(tmp_path, database)
    with app.database.session() as db:
        pragmas = ("journal_mode", "foreign_keys", "busy_timeout")
        assert [db.scalar(sa.text(f"PRAGMA {name}")) for name in pragmas] == ["wal", 1, 30_000]


@pytest.mark.parametrize(
    ("database", "query", "level"),
    [
        ("postgresql", "SHOW transaction_isolation", "serializable"),
        ("mariadb", "SELECT @@tx_isolation", "SERIALIZABLE"),
        ("sqlite", "PRAGMA read_uncommitted", 1),
    ],
    indirect=["database"],
)
def test_the_configured_isolation_level_applies_to_reads_and_writes(
    tmp_path: Path, database: str, query: str, level: object
) -> None:
    name = "READ UNCOMMITTED" if level == 1 else "SERIALIZABLE"

    def handler(request, session, db):
        return {"level": db.scalar(sa.text(query))}

    both = Endpoint("/", handler, methods=["GET", "POST"], cross_origin=True)
    app = counting_app(tmp_path, database, both, isolation_level=name)
    for method in ("GET", "POST"):
        assert json.loads(ask(app, method, "/").body) == {"level": level}


@pytest.mark.parametrize("url", ["sqlite:///a.db", "postgresql://localhost/a", "mysql://x/a"])
def test_an_unknown_isolation_level_is_rejected_at_startup(tmp_path: Path, url: str) -> None:
    settings = {"database": {"url": url, "isolation_level": "serialisable"}}
    with pytest.raises(ConfigError, match=r"isolation_level is 'serialisable'; did you mean"):
        Database(Config.from_mapping(settings, tmp_path))


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "autocommit"])
def test_autocommit_on_sqlite_is_rejected_at_startup(tmp_path: Path, level: str) -> None:
    settings = {"database": {"url": "sqlite:///a.db", "isolation_level": level}}
    with pytest.raises(ConfigError, match=f"isolation_level is '{level}', but SQLite"):
        Database(Config.from_mapping(settings, tmp_path))


# ---- Retries --------------------------------------------------------------------------------


def update_conflict(db: Any, app: App) -> None:
    """Let another transaction change a row that this one has read and is about to change."""
    counter = db.get(Counter, 1)
    thread = threading.Thread(target=add_ten, args=(app,))
    thread.start()
    thread.join()
    counter.value += 1
    db.commit()


def add_ten(app: App) -> None:
    with app.database.session() as other:
        other.execute(sa.update(Counter).values(value=Counter.value + 10))
        other.commit()


def deadlock(db: Any, app: App) -> None:
    """Deadlock two transactions, of which the database aborts this one."""
    with app.database.session() as other:
        other.add_all(Counter(id=number) for number in range(4, 50))
        other.commit()
    db.execute(sa.update(Counter).where(Counter.id == 1).values(value=Counter.value + 1))
    if app.database.engine.dialect.name == "postgresql":
        db.execute(sa.text("SET LOCAL deadlock_timeout = '400ms'"))
    locked = threading.Event()
    thread = threading.Thread(target=lock_in_reverse_order, args=(app, locked))
    thread.start()
    locked.wait(10)
    try:
        db.execute(sa.update(Counter).where(Counter.id == 4).values(value=1))
        db.commit()
    finally:
        db.rollback()
        thread.join()


def lock_in_reverse_order(app: App, locked: threading.Event) -> None:
    with app.database.session() as other:
        # InnoDB aborts the transaction that has changed fewer rows.
        other.execute(sa.update(Counter).where(Counter.id > 1).values(value=2))
        locked.set()
        other.execute(sa.update(Counter).where(Counter.id == 1).values(value=Counter.value + 10))
        other.commit()


def sqlite_busy(db: Any, app: App) -> None:
    raise sa.exc.OperationalError("", {}, sqlite_busy_error(app.config.root))


def lock_timeout(db: Any, app: App) -> None:
    db.execute(sa.text("SET innodb_lock_wait_timeout = 1"))
    with app.database.session() as other:
        other.execute(sa.update(Counter).values(value=Counter.value + 10))
        db.add(Counter(id=3))  # a lock timeout of MariaDB rolls back only its own statement
        db.flush()
        db.execute(sa.update(Counter).where(Counter.id == 1).values(value=Counter.value + 1))


@pytest.mark.parametrize(
    ("database", "level", "conflict"),
    [
        ("sqlite", None, sqlite_busy),
        ("postgresql", "REPEATABLE READ", update_conflict),
        ("postgresql", None, deadlock),
        ("mariadb", None, deadlock),
        ("mariadb", None, lock_timeout),
    ],
    indirect=["database"],
    ids=["SQLITE_BUSY", "40001", "40P01", "1213", "1205"],
)
def test_a_conflict_is_retried(
    tmp_path: Path, database: str, level: str | None, conflict: Any
) -> None:
    sessions: list[orm.Session] = []

    def handler(request, session, db):
        sessions.append(db())
        if len(sessions) == 1:
            conflict(db, app)
        return increment(request, session, db)

    route = action("/", handler, retries=1)
    app = counting_app(tmp_path, database, route, isolation_level=level)
    assert ask(app, "POST", "/").status == 200
    assert stored(app) == (1 if conflict in (sqlite_busy, lock_timeout) else 11)
    assert stored(app, 3) in (None, 0)
    assert len(set(map(id, sessions))) == len(sessions) == 2
    assert checked_out(app) == 0


@only_postgresql
@pytest.mark.parametrize("retries", [0, 2])
def test_exhausted_retries_return_503_with_retry_after(
    tmp_path: Path, database: str, retries: int
) -> None:
    calls = []

    def always_conflicts(request, session, db):
        calls.append(1)
        update_conflict(db, app)

    route = action("/", always_conflicts, retries=retries)
    app = counting_app(tmp_path, database, route, isolation_level="REPEATABLE READ")
    answer = ask(app, "POST")
    assert (answer.status, answer.header("Retry-After")) == (503, "5")
    assert len(calls) == retries + 1
    assert stored(app) == 10 * len(calls)


def test_each_retry_waits_longer_than_the_one_before(tmp_path: Path) -> None:
    calls = []

    def always_conflicts(request, session, db):
        calls.append(time.monotonic())
        sqlite_busy(db, app)

    app = counting_app(tmp_path, "sqlite:///./a.db", action("/", always_conflicts, retries=4))
    assert ask(app, "POST").status == 503
    waits = [after - before for before, after in itertools.pairwise(calls)]
    assert all(wait >= least for wait, least in zip(waits, [2e-3, 4e-3, 9e-3, 19e-3], strict=True))


def test_a_handler_that_has_committed_is_not_retried(tmp_path: Path) -> None:
    calls = []

    def commits_first(request, session, db):
        calls.append(1)
        increment(request, session, db)
        sqlite_busy(db, app)

    app = counting_app(tmp_path, "sqlite:///./a.db", action("/", commits_first, retries=2))
    assert ask(app, "POST").status == 503
    assert (len(calls), stored(app)) == (1, 1)


def test_a_commit_in_a_guard_does_not_prevent_a_retry(tmp_path: Path) -> None:
    guarded, called = [], []

    def guard(request, session, db):
        guarded.append(1)
        increment(request, session, db)

    def handler(request, session, db):
        called.append(1)
        if len(called) == 1:
            sqlite_busy(db, app)
        return increment(request, session, db)

    route = action("/", handler, guards=[guard], retries=1)
    app = counting_app(tmp_path, "sqlite:///./a.db", route)
    assert ask(app, "POST").text == '{"value":2}'
    assert (len(guarded), len(called)) == (1, 2)


def test_a_retry_reads_the_form_and_files_again(tmp_path: Path) -> None:
    read = []

    def handler(request, session, db):
        read.append((request.form["name"], request.files["file"].file.read()))
        if len(read) == 1:
            raise sa.exc.OperationalError("", {}, sqlite_busy_error(tmp_path))
        return {}

    app = counting_app(tmp_path, "sqlite:///./a.db", action("/", handler, retries=1))
    body = multipart(("name", b"Ada"), ("file", b"data" * 9, "a.txt", "text/plain"))
    content_type = "multipart/form-data; boundary=limit"
    assert ask(app, "POST", "/", body=body, CONTENT_TYPE=content_type).status == 200
    assert read == [("Ada", b"data" * 9)] * 2


def test_a_retried_action_starts_with_the_original_session(tmp_path: Path) -> None:
    calls = []

    def act(request, session, db):
        calls.append(1)
        session["added"] = session.get("added", 0) + 1
        if len(calls) == 1:
            raise sa.exc.OperationalError("", {}, sqlite_busy_error(tmp_path))
        increment(request, session, db)
        return {"value": (session["added"], session["guarded"])}

    def guard(request, session, db):
        session["guarded"] = True

    visitor = Visitor(forms(tmp_path, act, retries=1, guard=guard))
    assert "value (1, True)" in visitor.post(ticket=visitor.get().tickets[0]).text
    assert len(calls) == 2


def sqlite_busy_error(folder: Path) -> Exception:
    """Return a real SQLITE_BUSY error."""
    file = str(folder / "busy.db")
    with (
        closing(sqlite3.connect(file)) as holder,
        closing(sqlite3.connect(file, timeout=0)) as waiter,
    ):
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError) as caught:
            waiter.execute("BEGIN IMMEDIATE")
    return caught.value


@only_sqlite
def test_an_integrity_error_is_not_retried(tmp_path: Path, database: str) -> None:
    calls = []

    def duplicate(request, session, db):
        calls.append(1)
        db.add(Counter(id=1))
        db.commit()

    app = counting_app(tmp_path, database, action("/", duplicate, retries=2))
    assert ask(app, "POST", "/").status == 500
    assert len(calls) == 1


@transactional
def test_a_constraint_that_fails_on_commit_returns_500_rather_than_503(
    tmp_path: Path, database: str
) -> None:
    links = sa.Table(
        "links", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("to", sa.ForeignKey("links.id", deferrable=True, initially="DEFERRED")),
    )  # fmt: skip

    def dangling(request, session, db):
        db.execute(links.insert().values(id=1, to=2))
        db.commit()

    config = {"database": database}
    app = make_app(tmp_path, config=config, models=[links], routes=[action("/", dangling)])
    assert ask(app, "POST", "/").status == 500
    assert checked_out(app) == 0


# ---- Forgotten commits ----------------------------------------------------------------------


def add_new(db: Any) -> None:
    db.add(Counter(id=2))


def change(db: Any) -> None:
    db.get(Counter, 1).value = 9


def delete(db: Any) -> None:
    db.delete(db.get(Counter, 1))


def flush(db: Any) -> None:
    db.add(Counter(id=2))
    db.flush()


def core_dml(db: Any) -> None:
    db.execute(sa.update(Counter).values(value=9))


def text_dml(db: Any) -> None:
    db.execute(sa.text("-- a note\nDELETE FROM counters"))


FORGOTTEN = {
    add_new: "new Counter",
    change: "changed Counter (1,)",
    delete: "deleted Counter (1,)",
    flush: "INSERT INTO counters",
    core_dml: "UPDATE counters SET",
    text_dml: "DELETE FROM counters",
}
NOTICED = {
    add_new: "Not added: <code>",
    change: "Not changed: <code>",
    delete: "Not deleted: <code>",
}


def test_a_forgotten_commit_is_rolled_back_and_logged_once(
    tmp_path: Path, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    def forgetful(request, session, db):
        globals()[request.form["kind"]](db)
        return {"done": True}

    app = counting_app(tmp_path, database, action("/", forgetful))
    for kind, expected in FORGOTTEN.items():
        caplog.clear()
        assert post(app, "/", {"kind": kind.__name__}).text == '{"done":true}'
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "/ > forgetful changed rows without db.commit()" in record.getMessage()
        assert expected in record.getMessage()
        assert (stored(app, 1), stored(app, 2)) == (0, None)


@pytest.mark.parametrize("forget", FORGOTTEN)
def test_the_page_shows_forgotten_changes_in_debug_mode(tmp_path: Path, forget: Any) -> None:
    def act(request, session, db):
        forget(db)
        return {}

    visitor = Visitor(forms(tmp_path, act, debug=True))
    page = visitor.post(ticket=visitor.get().tickets[0]).text
    assert "counter › action_add</code> did not commit" in page
    assert NOTICED.get(forget, FORGOTTEN[forget]) in page
    assert "value 0" in page


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize("forget", [change, None])
def test_a_flash_message_is_discarded_together_with_uncommitted_changes(
    tmp_path: Path, forget: Any, debug: bool
) -> None:
    def act(request, session, db):
        session.flash("Saved.")
        if forget:
            forget(db)
        return {"_redirect": "/"}

    def load(request, session, db):
        return {"value": " ".join(flash.text for flash in session.flashes())}

    def guard(request, session, db):
        if request.method == "POST":
            session.flash("Welcome.")

    visitor = Visitor(forms(tmp_path, act, load, debug=debug, guard=guard))
    assert visitor.post(ticket=visitor.get().tickets[0]).status == 303
    page = visitor.get().text
    assert "Welcome." in page
    assert ("Welcome. Saved." in page) == (forget is None)
    assert ("Its message “Saved.” was discarded" in page) == (debug and forget is not None)
    assert ("action_add</code> did not commit" in page) == (debug and forget is not None)
    assert ("Not changed: <code>" in page) == (debug and forget is not None)
    assert "did not commit" not in visitor.get().text


def test_a_failed_statement_is_not_reported(
    tmp_path: Path, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(request, session, db):
        with pytest.raises(sa.exc.IntegrityError):
            db.execute(sa.insert(Counter).values(id=1))
        return {}

    app = counting_app(tmp_path, database, action("/", handler))
    assert ask(app, "POST").status == 200
    assert "without db.commit()" not in caplog.text


def test_at_most_20_forgotten_rows_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def forgetful(request, session, db):
        for number in range(2, 100):
            if request.method == "GET":
                db.add(Counter(id=number))
            else:
                db.execute(sa.insert(Counter).values(id=number))
        return {}

    both = Endpoint("/", forgetful, methods=["GET", "POST"], cross_origin=True)
    app = counting_app(tmp_path, "sqlite:///./a.db", both)
    for method in ("GET", "POST"):
        assert ask(app, method, "/").status == 200
        assert caplog.messages.pop().count("Counter" if method == "GET" else "INSERT") == 20
    assert stored(app, 2) is None


def test_a_load_that_forgets_to_commit_is_reported_and_rolled_back_before_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def load(request, session, db):
        context = value(request, session, db)
        change(db)
        return context

    def act(request, session, db):
        return increment(request, session, db)

    answer = ask(forms(tmp_path, act, load, debug=True))
    assert answer.text.count("counter › load</code> did not") == len(caplog.records) == 2
    assert answer.text.count("value 0") == 2


def test_the_page_does_not_show_forgotten_changes_in_production(tmp_path: Path) -> None:
    def act(request, session, db):
        change(db)
        return {}

    visitor = Visitor(forms(tmp_path, act))
    assert "changed" not in visitor.post(ticket=visitor.get().tickets[0]).text


@pytest.mark.parametrize("result", [None, {"_redirect": "/elsewhere"}])
def test_a_component_guard_that_forgets_to_commit_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, result: Any
) -> None:
    def guard(request, session, db):
        change(db)
        return result

    def act(request, session, db):
        return {}

    ask(forms(tmp_path, act, guard=guard))
    assert "page.html > counter > guard changed rows" in caplog.messages[0]


@pytest.mark.parametrize("status", [302, 303])
def test_a_raised_redirect_does_not_hide_a_forgotten_commit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    def forgetful(request, session, db):
        change(db)
        raise webob.exc.status_map[status](location="/")

    app = counting_app(tmp_path, "sqlite:///./a.db", action("/", forgetful))
    assert ask(app, "POST", "/").status == status
    assert "changed Counter (1,)" in caplog.text


def raises_403(request: Any, session: Any, db: Any) -> None:
    change(db)
    db.flush()
    raise webob.exc.HTTPForbidden


def returns_422(request: Any, session: Any, db: Any) -> Response:
    change(db)
    db.flush()
    return Response(status=422)


def test_a_status_of_400_or_above_rolls_back_silently(
    tmp_path: Path, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = counting_app(
        tmp_path, database, action("/raises", raises_403), action("/returns", returns_422)
    )
    caplog.clear()
    assert ask(app, "POST", "/raises").status == 403
    assert ask(app, "POST", "/returns").status == 422
    assert caplog.records == []
    assert stored(app) == 0


def test_an_action_with_status_422_rolls_back_silently(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def act(request, session, db):
        change(db)
        db.flush()
        return {"_status": 422}

    visitor = Visitor(forms(tmp_path, act, debug=True))
    answer = visitor.post(ticket=visitor.get().tickets[0])
    assert (answer.status, "value 0" in answer.text) == (422, True)
    assert caplog.records == []


LOCKING = "WITH found AS (SELECT * FROM counters FOR UPDATE) SELECT count(*) FROM found"


@only_postgresql
def test_reads_and_committed_changes_are_not_reported(
    tmp_path: Path, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    def clean(request, session, db):
        increment(request, session, db)
        db.execute(sa.update(Counter).values(value=5))
        db.commit()
        counter = db.get(Counter, 1)
        counter.value = counter.value
        return {"locked": db.scalar(sa.text(LOCKING))}

    app = counting_app(tmp_path, database, action("/", clean))
    caplog.clear()
    assert ask(app, "POST", "/").text == '{"locked":1}'
    assert caplog.records == []


def test_a_handler_that_ends_with_a_commit_is_not_reported(
    tmp_path: Path, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    def commits(request, session, db):
        core_dml(db)
        db.commit()
        return {}

    app = counting_app(tmp_path, database, action("/", commits))
    caplog.clear()
    ask(app, "POST", "/")
    assert (stored(app), caplog.records) == (9, [])


def test_changes_that_a_savepoint_rolled_back_are_not_reported(
    tmp_path: Path, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    def tries(request, session, db):
        with db.begin_nested() as nested:
            core_dml(db)
            nested.rollback()
        return {}

    app = counting_app(tmp_path, database, action("/", tries))
    caplog.clear()
    ask(app, "POST", "/")
    assert (stored(app), caplog.records) == (0, [])


@only_sqlite
def test_changes_of_a_failed_request_are_not_reported_for_the_next(
    tmp_path: Path, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(request, session, db):
        flush(db)
        raise RuntimeError("after a flush")

    app = counting_app(
        tmp_path, database, action("/break", breaks), action("/value", value),
        pool_size=1, max_overflow=0,
    )  # fmt: skip
    assert ask(app, "POST", "/break").status == 500
    caplog.clear()
    assert ask(app, "POST", "/value").status == 200
    assert caplog.records == []


# ---- Streams --------------------------------------------------------------------------------


def counting_stream(request: Any, session: Any, db: Any) -> Response:
    db.get(Counter, 1)

    def chunks() -> Iterator[bytes]:
        for _ in range(3):
            yield b"%d\n" % db.scalar(sa.select(Counter.value))

    return Response(app_iter=chunks(), content_type="text/plain")


def start(app: App, path: str = "/stream", method: str = "GET") -> Any:
    """Send a request and return the response body, unread."""
    return app(Request.blank(path, method=method).environ, lambda *_: lambda _: None)


@pytest.fixture
def streaming(tmp_path: Path, database: str) -> App:
    """An application with a pool of one connection."""
    return counting_app(
        tmp_path, database, Endpoint("/stream", counting_stream), action("/add", increment),
        Endpoint("/value", value), pool_size=1, max_overflow=0, pool_timeout=1,
    )  # fmt: skip


def test_a_stream_can_use_db_until_it_is_closed(streaming: App) -> None:
    body = start(streaming)
    assert next(body) == b"0\n"
    assert ask(streaming, "POST", "/add").status == 200
    assert next(body) == b"1\n"
    body.close()
    assert checked_out(streaming) == 0


def test_idle_streams_hold_no_connection(streaming: App) -> None:
    first, second = start(streaming), start(streaming)
    assert checked_out(streaming) == 0
    next(first), next(second)
    assert checked_out(streaming) == 0
    assert ask(streaming, "POST", "/add").text == '{"value":1}'
    assert list(first) == list(second) == [b"1\n"] * 2
    first.close()
    second.close()
    assert checked_out(streaming) == 0


@only_postgresql
def test_an_idle_stream_has_no_open_transaction_on_the_server(streaming: App) -> None:
    body = start(streaming)
    next(body)
    query = "SELECT state FROM pg_stat_activity WHERE datname = current_database()"
    with make_engine(streaming.config, poolclass=sa.NullPool).connect() as watch:
        states = watch.scalars(sa.text(query + " AND pid <> pg_backend_pid()")).all()
    assert set(states) == {"idle"}
    body.close()


def test_an_unclosed_stream_leaves_no_connection_checked_out(streaming: App) -> None:
    body = start(streaming)
    next(body)
    del body
    gc.collect()
    assert checked_out(streaming) == 0


def test_an_unread_stream_leaves_no_connection_checked_out(streaming: App) -> None:
    start(streaming).close()
    assert checked_out(streaming) == 0


def result_of_core(db: Any) -> Any:
    return db.execute(sa.text("SELECT id FROM counters ORDER BY id"))


def result_of_orm(db: Any) -> Any:
    return db.execute(sa.select(Counter.id).order_by(Counter.id))


def result_in_batches(db: Any) -> Any:
    return result_of_orm(db).yield_per(2)


RESULTS = (result_of_core, result_of_orm, result_in_batches)


@pytest.mark.parametrize("early", [True, False], ids=["in the handler", "in the stream"])
def test_a_result_can_be_streamed_row_by_row(tmp_path: Path, database: str, early: bool) -> None:
    def handler(request, session, db):
        query = RESULTS[int(request.args["query"])]
        result = query(db) if early else None
        return Response(app_iter=rows(result, query, db))

    def rows(result, query, db):
        for row in result or query(db):
            yield b"%d " % row[0]

    app = counting_app(
        tmp_path, database, Endpoint("/stream", handler), action("/add", increment),
        pool_size=1, max_overflow=0, pool_timeout=1,
    )  # fmt: skip
    with app.database.session() as db:
        db.add_all(Counter(id=number) for number in range(2, 8))
        db.commit()
    for number in range(len(RESULTS)):
        body = start(app, f"/stream?query={number}")
        assert next(body) == b"1 "
        add_ten_outside_the_pool(app)
        assert ask(app, "POST", "/add").status == 200
        assert b"".join(body) == b"2 3 4 5 6 7 "
        body.close()


@only_sqlite
def test_an_open_result_does_not_lock_out_the_next_request(tmp_path: Path, database: str) -> None:
    results = []

    def leaves_a_result_open(request, session, db):
        results.append(db.execute(sa.text("SELECT id FROM counters")))
        return {"first": results[0].fetchone()[0]}

    app = counting_app(
        tmp_path, database, Endpoint("/open", leaves_a_result_open), action("/add", increment),
        pool_size=1, max_overflow=0,
    )  # fmt: skip
    with app.database.session() as db:
        db.add(Counter(id=2))
        db.commit()
    ask(app, "GET", "/open")
    add_ten_outside_the_pool(app)
    assert ask(app, "POST", "/add").text == '{"value":11}'


def add_ten_outside_the_pool(app: App) -> None:
    """Add 10 through a connection that is not in the pool."""
    engine = make_engine(app.config, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.update(Counter).values(value=Counter.value + 10))


def test_a_stream_that_forgets_to_commit_is_rolled_back_and_logged(
    tmp_path: Path, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    def forgetful(request, session, db):
        def chunks():
            flush(db)
            yield b"one"
            yield b"%d" % db.query(Counter).count()

        return Response(app_iter=chunks())

    app = counting_app(tmp_path, database, Endpoint("/stream", forgetful))
    caplog.clear()
    assert b"".join(start(app)) == b"one1"
    (record,) = caplog.records
    assert "INSERT INTO counters" in record.getMessage()


def test_a_stream_can_commit(tmp_path: Path, database: str) -> None:
    def adds(request, session, db):
        return Response(app_iter=(b"%d" % increment(request, session, db)["value"] for _ in "ab"))

    app = counting_app(tmp_path, database, action("/stream", adds))
    body = start(app, method="POST")
    assert list(body) == [b"1", b"2"]
    body.close()
    assert stored(app) == 2


def test_a_generator_can_use_db_after_its_client_disconnects(tmp_path: Path, database: str) -> None:
    def chunks(request, db):
        try:
            yield b"one"
            yield b"two"
        finally:
            increment(request, None, db)

    def handler(request, session, db):
        return Response(app_iter=chunks(request, db))

    app = counting_app(tmp_path, database, action("/stream", handler))
    body = start(app, method="POST")
    next(body)
    body.close()
    assert stored(app) == 1
    assert checked_out(app) == 0


def test_an_error_while_closing_a_body_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Body:
        def __iter__(self):
            return iter([b"text"])

        def close(self):
            raise RuntimeError("on purpose")

    def handler(request, session, db):
        db.get(Counter, 1)
        return Response(app_iter=Body())

    app = counting_app(tmp_path, "sqlite:///./a.db", Endpoint("/stream", handler))
    start(app).close()
    assert "a cleanup callback failed" in caplog.text
    assert checked_out(app) == 0


def test_an_object_loaded_before_a_chunk_is_still_readable_after_it(streaming: App) -> None:
    with streaming.database.scope(writes=False) as scope:
        counter = streaming.database.scoped.get(Counter, 1)
        scope.end_transaction(expire=False)
        with statements(streaming) as sent:
            assert counter.value == 0
        assert sent == []


def test_a_result_that_outlives_its_connection_does_not_use_it_again(streaming: App) -> None:
    with streaming.database.session() as db:
        db.add_all(Counter(id=number) for number in range(2, 30))
        db.commit()
    with streaming.database.scope(writes=False) as scope:
        query = sa.select(Counter.id).order_by(Counter.id)
        rows = iter(streaming.database.scoped.scalars(query))
        assert next(rows) == 1
        scope.end_transaction(expire=False)
        with streaming.database.session() as other:  # uses the pool's only connection
            other.get(Counter, 1).value = 5
            other.flush()
            assert list(rows) == list(range(2, 30))
            other.commit()
    assert stored(streaming) == 5


ROW_COUNT, LONG_TEXT = 900, "x" * 2000


def generated_rows(db: Any) -> sa.CursorResult[Any]:
    """Select long rows that the database generates, in batches."""
    below = sa.select(sa.literal(1).label("n")).cte("numbers", recursive=True)
    numbers = below.union_all(sa.select(below.c.n + 1).where(below.c.n < ROW_COUNT))
    rows = sa.select(numbers.c.n, sa.literal(LONG_TEXT))
    return db.execute(rows.execution_options(yield_per=50))


STREAMED = {
    "yield_per": generated_rows,
    "stream_results": lambda db: db.connection(execution_options={"stream_results": True}).execute(
        sa.text("SELECT id FROM counters ORDER BY id")
    ),
    "query": lambda db: db.query(Counter.id).order_by(Counter.id).yield_per(2),
}


@pytest.fixture
def rows_app(tmp_path: Path, database: str) -> App:
    """An application with a pool of two connections, and eight counters."""

    def handler(request, session, db):
        query = STREAMED[request.args["query"]]
        early = query(db) if request.args.get("early") else None

        def chunks():
            for number, *_ in early or query(db):
                yield b"%d " % number

        return Response(app_iter=chunks())

    app = counting_app(
        tmp_path, database, Endpoint("/stream", handler), action("/add", increment),
        Endpoint("/value", value), pool_size=2, max_overflow=0, pool_timeout=1,
    )  # fmt: skip
    with app.database.session() as db:
        db.add_all(Counter(id=number) for number in range(2, 9))
        db.commit()
    return app


@pytest.mark.parametrize("early", ["", "&early=1"], ids=["in the stream", "in the handler"])
@pytest.mark.parametrize("query", STREAMED)
def test_a_stream_of_rows_holds_its_connection_until_it_ends(
    rows_app: App, query: str, early: str
) -> None:
    body = start(rows_app, f"/stream?query={query}{early}")
    for number in range(1, 5):
        assert next(body) == b"%d " % number
        assert checked_out(rows_app) == 1
        assert ask(rows_app, "POST", "/add").text == f'{{"value":{number}}}'
    assert b"".join(body).split()[:4] == [b"5", b"6", b"7", b"8"]
    if rows_app.database.engine.driver != "pymysql":  # it does not report the end of a result
        assert checked_out(rows_app) == 0
    body.close()
    assert checked_out(rows_app) == 0


def test_a_stream_of_rows_does_not_buffer_unread_rows(rows_app: App) -> None:
    tracemalloc.start()
    try:
        assert sum(1 for _ in start(rows_app, "/stream?query=yield_per")) == ROW_COUNT
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500_000  # it is about 160,000


@pytest.mark.parametrize("ending", ["close", "forget"])
@pytest.mark.parametrize("query", STREAMED)
def test_a_client_that_disconnects_during_a_stream_leaves_a_clean_connection(
    rows_app: App, query: str, ending: str
) -> None:
    for _ in range(3):  # more streams than the pool has connections
        body = start(rows_app, f"/stream?query={query}&early=1")
        next(body)
        if ending == "close":
            body.close()
        else:
            del body
            gc.collect()
        assert checked_out(rows_app) == 0
    add_ten_outside_the_pool(rows_app)
    engine = rows_app.database.engine
    with engine.connect() as first, engine.connect() as second:  # both connections
        for connection in (first, second):
            connection.execute(sa.update(Counter).values(value=Counter.value + 1))
            connection.commit()
    assert stored(rows_app) == 12


ENDINGS = {
    "returns": lambda db, rows: None,
    "commits": lambda db, rows: db.commit(),
    "rolls back": lambda db, rows: db.rollback(),
    "removes": lambda db, rows: db.remove(),
    "raises": lambda db, rows: 1 / 0,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_unread_rows_hold_no_connection_however_the_request_continues(
    tmp_path: Path, database: str, ending: str
) -> None:
    results = []

    def handler(request, session, db):
        rows = STREAMED[request.args["query"]](db)
        results.append(rows)
        assert next(iter(rows))[0] == 1
        ENDINGS[ending](db, rows)
        return {"value": db.get(Counter, 1).value}

    app = counting_app(
        tmp_path, database, Endpoint("/", handler), action("/add", increment),
        pool_size=1, max_overflow=0, pool_timeout=1,
    )  # fmt: skip
    with app.database.session() as db:
        db.add_all(Counter(id=number) for number in range(2, 9))
        db.commit()
    for count, query in enumerate(["stream_results", "query"]):
        if ending == "returns" and app.database.engine.driver == "pymysql":
            break  # it rejects another query while a result is unread
        assert ask(app, "GET", "/", f"query={query}").status == (500 if ending == "raises" else 200)
        assert checked_out(app) == 0
        add_ten_outside_the_pool(app)
        assert ask(app, "POST", "/add").text == f'{{"value":{11 * (count + 1)}}}'


def test_a_session_outside_a_request_discards_unread_rows(tmp_path: Path, database: str) -> None:
    app = counting_app(tmp_path, database, action("/add", increment), pool_size=1, max_overflow=0)
    results = []
    with app.database.session() as db:
        db.add_all(Counter(id=number) for number in range(2, 9))
        db.commit()
        results.append(STREAMED["query"](db))
        assert next(iter(results[0])) == (1,)
    add_ten_outside_the_pool(app)
    assert ask(app, "POST", "/add").text == '{"value":11}'


# ---- Pools ----------------------------------------------------------------------------------


@servers
def test_a_connection_that_died_while_idle_is_replaced_silently(
    tmp_path: Path, database: str
) -> None:
    app = counting_app(tmp_path, database, Endpoint("/", value), pool_size=2)
    kill_statements = {
        "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        "mysql": f"KILL {connection_number(app)}",
    }
    ask(app)
    with make_engine(app.config, poolclass=sa.NullPool).connect() as other:
        other.execute(sa.text(kill_statements[app.database.engine.dialect.name]))
    time.sleep(0.3)  # a connection in constant use is not pinged
    assert ask(app).status == 200


def connection_number(app: App) -> int:
    with app.database.session() as db:
        mariadb = app.database.engine.dialect.name == "mysql"
        return db.scalar(sa.text("SELECT connection_id()")) if mariadb else 0


@only_sqlite
def test_a_connection_older_than_pool_recycle_is_replaced(tmp_path: Path, database: str) -> None:
    app = counting_app(tmp_path, database, Endpoint("/", value), pool_recycle=0)
    ask(app)
    with events(app, "connect") as seen:
        ask(app)
        ask(app)
    assert len(seen) == 2


@only_mariadb
def test_mariadb_stores_every_unicode_character(tmp_path: Path, database: str) -> None:
    app = counting_app(tmp_path, database)
    with app.database.session() as db:
        assert db.scalar(sa.text("SELECT @@character_set_client")) == "utf8mb4"
        db.get(Counter, 1).label = "🦦"
        db.commit()
        assert db.scalar(sa.select(Counter.label)) == "🦦"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_an_in_memory_database_requires_debug(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="set debug: true"):
        Database(Config.from_mapping({"database": url}, tmp_path))
    app = counting_app(tmp_path, url, action("/add", increment), Endpoint("/", value), debug=True)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: answered(app, "POST", "/add"), range(4)))
    assert ask(app).text == '{"value":4}'


@pytest.mark.parametrize(("size", "warned"), [(5, True), (6, False), (None, False)])
def test_a_pool_too_small_for_the_threads_logs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, size: int | None, warned: bool
) -> None:
    counting_app(tmp_path, "sqlite:///./a.db", pool_size=size)
    assert ("for 8 threads" in caplog.text) == warned


@only_sqlite
def test_an_exhausted_pool_returns_503_instead_of_hanging(
    streaming: App, caplog: pytest.LogCaptureFixture
) -> None:
    with streaming.database.session() as db:
        db.get(Counter, 1)
        answer = ask(streaming, "POST", "/add")
        assert (answer.status, answer.header("Retry-After")) == (503, "5")
        assert ask(streaming, "GET", "/value").status == 200  # reads have their own pool
    assert ask(streaming, "POST", "/add").status == 200
    assert "QueuePool limit" in caplog.text
    assert "timeout 1.00" in caplog.text


@pytest.mark.slow
def test_requests_return_503_while_the_database_is_down_and_then_recover(
    tmp_path: Path, cluster: PrivatePostgres, caplog: pytest.LogCaptureFixture
) -> None:
    app = counting_app(tmp_path, cluster.url, action("/add", increment), Endpoint("/", value))
    ask(app, "POST", "/add")
    cluster.stop()
    answers = [ask(app, method, path) for method, path in [("GET", "/"), ("POST", "/add")] * 5]
    assert {(answer.status, answer.header("Retry-After")) for answer in answers} == {(503, "5")}
    assert 0 < sum("connection" in text for text in caplog.messages) < 10
    assert all("password" not in text and "\n" not in text for text in caplog.messages)
    assert checked_out(app) == 0
    cluster.start()
    assert ask(app, "GET", "/").text == '{"value":1}'
    assert ask(app, "POST", "/add").text == '{"value":2}'


@pytest.mark.slow
def test_a_database_that_goes_away_during_a_request_returns_503(
    tmp_path: Path, cluster: PrivatePostgres
) -> None:
    def handler(request, session, db):
        db.get(Counter, 1)
        if request.args.get("restart"):
            cluster.restart()
        return {"now": str(db.scalar(sa.text("SELECT clock_timestamp()")))}

    both = Endpoint("/", handler, methods=["GET", "POST"], cross_origin=True)
    app = counting_app(tmp_path, cluster.url, both)
    for method in ("GET", "POST"):
        assert ask(app, method, "/", "restart=1").status == 503
        assert ask(app, method, "/").status == 200


def test_an_outage_is_logged_at_most_once_a_second(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(Config.from_mapping({"database": "postgresql://127.0.0.1:1/x"}, tmp_path))
    started = time.monotonic()
    for _ in range(50):
        with database.scope(writes=False), pytest.raises(sa.exc.OperationalError) as caught:
            database.scoped.execute(sa.text("SELECT 1"))
        database.report_outage(caught.value)
    assert 1 <= len(caplog.records) <= 1 + (time.monotonic() - started)


# ---- Fork -----------------------------------------------------------------------------------

FORKING = """\
import os, sys
from counters import counting_app, increment, value, action, checked_out
from noventa import Endpoint
from pathlib import Path
from sqlalchemy import event
from visitors import ask

root, url = sys.argv[1:]
app = counting_app(Path(root), url, action("/add", increment), Endpoint("/", value))
held = app.database.engine.connect()
assert ask(app).text == '{"value":0}'
connected = []
event.listen(app.database.engine, "connect", lambda *_: connected.append(1))
child = os.fork()
if not child:
    for number in range(5):
        assert ask(app, "POST", "/add").text == '{"value":%d}' % (number + 1)
    held.close()
    assert connected and checked_out(app) == 0
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
held.exec_driver_sql("SELECT 1")
held.close()
assert ask(app).text == '{"value":5}'
assert ask(app, "POST", "/add").text == '{"value":6}'
assert not connected
assert checked_out(app) == 0
"""


@pytest.mark.slow
def test_a_forked_child_opens_its_own_connections(tmp_path: Path, database: str) -> None:
    tests = str(Path(__file__).parent)
    command = [sys.executable, "-c", FORKING, str(tmp_path), database]
    result = subprocess.run(
        command, env=environment(PYTHONPATH=f"{tests}:{environment()['PYTHONPATH']}"),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.slow
@only_postgresql
def test_a_preloaded_application_serves_from_forked_workers(tmp_path: Path, database: str) -> None:
    with gunicorn(tmp_path, database, "--workers", "2") as server:
        with ThreadPoolExecutor(2) as threads:  # each worker handles one at a time
            slow = list(threads.map(get_json, [server.port] * 2, ["/slow"] * 2))
        answers = [get_json(server.port, "/count") for _ in range(20)]
    assert {answer["count"] for answer in [*slow, *answers]} == {1}
    assert len({answer["process"] for answer in slow}) == 2


# ---- session() and sandbox() ----------------------------------------------------------------


def test_a_session_outside_a_request_can_commit(tmp_path: Path, database: str) -> None:
    app = counting_app(tmp_path, database)
    with app.database.session() as db:
        db.get(Counter, 1).value = 5
        db.commit()
    assert stored(app) == 5
    assert checked_out(app) == 0


def test_a_session_closed_without_a_commit_is_rolled_back_and_logged(
    tmp_path: Path, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = counting_app(tmp_path, database)
    with app.database.session() as db:
        db.get(Counter, 1).value = 5
    assert stored(app) == 0
    assert "changed Counter (1,)" in caplog.text


def test_an_error_rolls_back_the_session_and_propagates(tmp_path: Path, database: str) -> None:
    app = counting_app(tmp_path, database)

    def work() -> None:
        with app.database.session() as db:
            db.get(Counter, 1).value = 5
            db.execute(sa.insert(Counter).values(id=1))

    with pytest.raises(sa.exc.IntegrityError):
        work()
    assert stored(app) == 0
    assert checked_out(app) == 0


def test_a_sandbox_rolls_back_its_own_commits_and_those_of_requests(
    tmp_path: Path, database: str
) -> None:
    app = counting_app(
        tmp_path, database, action("/add", increment), Endpoint("/", value),
        Endpoint("/stream", counting_stream),
    )  # fmt: skip
    with app.database.sandbox() as db:
        counter = db.get(Counter, 1)
        counter.value = 10
        db.commit()
        assert counter.value == 10
        assert ask(app, "POST", "/add").text == '{"value":11}'
        assert counter.value == 11
        assert ask(app).text == '{"value":11}'
        assert list(start(app)) == [b"11\n"] * 3
        assert counter.value == 11
        with app.database.session() as other:
            other.get(Counter, 1).value = 12
            other.commit()
        assert counter.value == 12
    assert ask(app).text == '{"value":0}'
    assert checked_out(app) == 0


def test_a_sandbox_covers_a_session_with_custom_options(tmp_path: Path, database: str) -> None:
    def handler(request, session, db):
        db(expire_on_commit=False).add(Counter(id=2))
        db.commit()
        return {}

    app = counting_app(tmp_path, database, action("/", handler))
    with app.database.sandbox() as db:
        assert ask(app, "POST", "/").status == 200
        assert db.get(Counter, 2) is not None
    assert stored(app, 2) is None


def test_a_failed_request_in_a_sandbox_rolls_back_only_its_own_changes(
    tmp_path: Path, database: str
) -> None:
    def fails(request, session, db):
        increment(request, session, db)
        db.add(Counter(id=1))
        db.commit()

    def forgets(request, session, db):
        change(db)
        return {}

    app = counting_app(tmp_path, database, action("/fail", fails), action("/forget", forgets))
    with app.database.sandbox() as db:
        db.add(Counter(id=2))
        db.commit()
        assert ask(app, "POST", "/fail").status == 500
        assert ask(app, "POST", "/forget").status == 200
        assert db.get(Counter, 1).value == 1
        assert db.get(Counter, 2) is not None
    assert (stored(app, 1), stored(app, 2)) == (0, None)


def test_a_sandbox_covers_forms(tmp_path: Path, database: str) -> None:
    def act(request, session, db):
        return increment(request, session, db)

    app = forms(tmp_path, act, url=database)
    with app.database.sandbox() as db:
        visitor = Visitor(app)
        assert "value 1" in visitor.post(ticket=visitor.get().tickets[0]).text
        assert db.get(Counter, 1).value == 1
    assert "value 0" in ask(app).text


def test_a_sandbox_is_rolled_back_after_an_error_and_cannot_be_nested(
    tmp_path: Path, database: str
) -> None:
    app = counting_app(tmp_path, database)

    def nest() -> None:
        with app.database.sandbox() as db:
            db.get(Counter, 1).value = 5
            db.commit()
            with app.database.sandbox():
                pass

    with pytest.raises(NoventaError, match="already open"):
        nest()
    assert stored(app) == 0
    with app.database.sandbox() as db:
        assert db.get(Counter, 1).value == 0
