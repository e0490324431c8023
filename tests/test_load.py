"""A failed request never affects the next: failures, threads, processes and signals."""

from __future__ import annotations

import gc
import http.client
import io
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa
import webob.exc
from conftest import only_postgresql, only_sqlite, transactional
from counters import (
    Counter,
    PrivatePostgres,
    action,
    answered,
    checked_out,
    counting_app,
    fetch,
    gunicorn,
    increment,
    stored,
    value,
)
from support import make_app, make_module
from visitors import Visitor, ask
from webob import Request, Response

from noventa import App, Component, Config, Database, Endpoint, Page

pytestmark = pytest.mark.slow

# ---- Kinds of failure: every handler uses `db` before it fails ------------------------------


def error_in_the_handler(request, session, db):
    db.get(Counter, 1)
    raise RuntimeError("on purpose")


def error_after_a_flush(request, session, db):
    db.add(Counter(id=99))
    db.flush()
    raise RuntimeError("on purpose")


def error_inside_a_savepoint(request, session, db):
    db.begin_nested()
    error_after_a_flush(request, session, db)


def http_error(request, session, db):
    db.get(Counter, 1).value = 99
    raise webob.exc.HTTPForbidden


def not_found(request, session, db):
    db.get(Counter, 1)
    raise webob.exc.HTTPNotFound


def integrity_error(request, session, db):
    db.add(Counter(id=1))
    db.commit()


def invalid_statement(request, session, db):
    db.get(Counter, 1)
    db.execute(sa.text("SELECT nothing FROM nowhere"))


def missing_parameter(request, session, db):
    db.get(Counter, 1)
    db.execute(sa.text("SELECT :missing"))


def swallowed_error(request, session, db):
    db.add(Counter(id=1))
    with suppress(sa.exc.IntegrityError):
        db.flush()
    return value(request, session, db)


def system_exit(request, session, db):
    db.get(Counter, 1).value = 99
    db.flush()
    raise SystemExit(3)


def keyboard_interrupt(request, session, db):
    db.get(Counter, 1)
    raise KeyboardInterrupt


class GreenletExit(BaseException):
    """Stand-in for the exception that gevent raises in a killed greenlet."""


def killed_greenlet(request, session, db):
    db.get(Counter, 1)
    raise GreenletExit


def recursion(request, session, db):
    db.get(Counter, 1)
    return recursion(request, session, db)


def invalid_result(request, session, db):
    return db.get(Counter, 1)


def not_json(request, session, db):
    return {"counter": db.get(Counter, 1)}


def forbidden_header(request, session, db):
    db.get(Counter, 1)
    return Response("text", headerlist=[("X-Broken", "a\r\nb")])


def session_that_is_not_json(request, session, db):
    session["counter"] = db.get(Counter, 1)
    return {}


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def unprintable_error(request, session, db):
    db.get(Counter, 1)
    raise Unprintable


def forgotten_commit(request, session, db):
    db.get(Counter, 1).value = 99
    db.flush()
    return {}


def broken_connection(request, session, db):
    db.connection().connection.dbapi_connection.close()
    db.get(Counter, 1)


def body_that_is_not_iterable(request, session, db):
    db.get(Counter, 1)
    return Response(app_iter=7)


def stream(request, session, db):
    db.get(Counter, 1)
    return Response(app_iter=(b"%d" % db.get(Counter, 1).value for _ in "abc"))


def stream_that_breaks_off(request, session, db):
    def chunks():
        yield b"%d" % db.get(Counter, 1).value
        db.add(Counter(id=1))
        db.flush()
        yield b"never"

    return Response(app_iter=chunks())


def stream_that_cannot_close(request, session, db):
    def chunks():
        try:
            yield b"%d" % db.get(Counter, 1).value
        finally:
            db.get(Counter, 1)
            raise RuntimeError("on purpose")

    return Response(app_iter=chunks())


# Ways in which a server drives the application.


def drive(app: App, path: str, method: str = "POST") -> None:
    with suppress(BaseException):
        body = app(Request.blank(path, method=method).environ, lambda *_: lambda _: None)
        try:
            list(body)
        finally:
            getattr(body, "close", int)()


def drive_in_a_thread(app: App, path: str) -> None:
    thread = threading.Thread(target=drive, args=(app, path))
    thread.start()
    thread.join()


def drive_head(app: App, path: str) -> None:
    drive(app, path, "HEAD")


def drive_with_a_failing_start_response(app: App, path: str) -> None:
    def start_response(*_):
        raise OSError("the client went away")

    with pytest.raises(OSError, match="went away"):
        app(Request.blank(path, method="POST").environ, start_response)


def drive_until_the_client_disconnects(app: App, path: str) -> None:
    body = app(Request.blank(path, method="POST").environ, lambda *_: lambda _: None)
    next(iter(body))
    body.close()


def drive_and_abandon(app: App, path: str) -> None:
    """Abandon the body without close(), as asgiref's adapter does."""
    body = app(Request.blank(path, method="POST").environ, lambda *_: lambda _: None)
    next(iter(body))
    del body
    gc.collect()


FAILURES = [
    (drive, error_in_the_handler),
    (drive, error_after_a_flush),
    (drive, error_inside_a_savepoint),
    (drive, http_error),
    (drive, not_found),
    (drive, integrity_error),
    (drive, invalid_statement),
    (drive, missing_parameter),
    (drive, swallowed_error),
    (drive, system_exit),
    (drive_in_a_thread, system_exit),
    (drive, keyboard_interrupt),
    (drive, killed_greenlet),
    (drive, recursion),
    (drive, invalid_result),
    (drive, not_json),
    (drive, forbidden_header),
    (drive, session_that_is_not_json),
    (drive, unprintable_error),
    (drive, forgotten_commit),
    (drive, broken_connection),
    (drive, body_that_is_not_iterable),
    (drive, stream_that_breaks_off),
    (drive, stream_that_cannot_close),
    (drive_head, stream),
    (drive_with_a_failing_start_response, increment),
    (drive_with_a_failing_start_response, stream),
    (drive_until_the_client_disconnects, stream),
    (drive_and_abandon, stream),
]
METHODS = ["GET", "POST"]


def failing_app(root: Path, url: str, *failures: Callable[..., Any], **options: Any) -> App:
    """Return an application with a pool of one connection, so that a leak shows at once."""
    routes = [
        Endpoint(f"/{failure.__name__}", failure, methods=METHODS, cross_origin=True)
        for failure in dict.fromkeys(failures)
    ]
    pool = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 1}
    return counting_app(root, url, *routes, action("/add", increment), **pool, **options)


@pytest.mark.parametrize(
    ("drive", "failure"), FAILURES, ids=[f"{d.__name__}-{f.__name__}" for d, f in FAILURES]
)
@pytest.mark.parametrize("debug", [False, True], ids=["production", "debug"])
def test_no_connection_is_checked_out_after_a_failure(
    tmp_path: Path, drive: Any, failure: Any, debug: bool
) -> None:
    app = failing_app(tmp_path, "sqlite:///./a.db", failure, debug=debug)
    drive(app, f"/{failure.__name__}")
    assert checked_out(app) == 0
    assert (stored(app, 1) or 0) < 2
    assert stored(app, 99) is None


def test_system_exit_in_a_worker_thread_returns_500(tmp_path: Path) -> None:
    app = failing_app(tmp_path, "sqlite:///./a.db", system_exit)
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(answered, app, "POST", "/system_exit").result() == 500
    with pytest.raises(SystemExit):
        ask(app, "POST", "/system_exit")


def test_no_failure_affects_the_next_request(tmp_path: Path, database: str) -> None:
    app = failing_app(tmp_path, database, *(failure for _, failure in FAILURES))
    for drive, failure in FAILURES:
        before = stored(app)
        drive(app, f"/{failure.__name__}")
        assert checked_out(app) == 0
        after = before + (failure is increment)
        assert ask(app, "POST", "/add").text == f'{{"value":{after + 1}}}', failure
    assert stored(app, 99) is None


def test_a_failing_error_page_leaves_no_connection_checked_out(tmp_path: Path) -> None:
    app = failing_app(tmp_path, "sqlite:///./a.db", error_after_a_flush)
    app.responder._error_page = app.jinja.from_string("{{ nothing.at.all }}")
    drive(app, "/error_after_a_flush")
    drive(app, "/no-such-page")
    assert checked_out(app) == 0
    assert ask(app, "POST", "/add").text == '{"value":1}'


@pytest.mark.parametrize("template", ["{{ 1 // 0 }}", '{{ component("none" ~ 1) }}'])
def test_a_failing_template_leaves_no_connection_checked_out(tmp_path: Path, template: str) -> None:
    def guard(request, session, db):
        db.get(Counter, 1)

    page = Page("/", "page.html", guards=[guard])
    app = make_app(
        tmp_path, {"page.html": '{{ component("c") }}', "c.html": template},
        components=[Component("c", "c.html", models=[Counter])], routes=[page],
    )  # fmt: skip
    assert ask(app).status == 500
    assert checked_out(app) == 0


def test_the_request_after_an_integrity_error_succeeds(tmp_path: Path, database: str) -> None:
    app = failing_app(tmp_path, database, integrity_error)
    for number in range(1, 4):
        assert ask(app, "POST", "/integrity_error").status == 500
        assert ask(app, "POST", "/add").text == f'{{"value":{number}}}'


# ---- Threads and processes ------------------------------------------------------------------


@only_sqlite
def test_eight_threads_lose_no_update(tmp_path: Path, database: str) -> None:
    app = counting_app(tmp_path, database, action("/add", increment))
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: answered(app, "POST", "/add"), range(400)))
    assert answers == [200] * 400
    assert stored(app) == 400
    assert checked_out(app) == 0


@only_sqlite
def test_two_processes_lose_no_update(tmp_path: Path, database: str) -> None:
    options = ("--workers", "2", "--threads", "4")
    with gunicorn(tmp_path, database, *options) as server, ThreadPoolExecutor(8) as threads:
        work = [threads.submit(fetch, server.port, "POST", "/increment") for _ in range(400)]
        answers = [done.result() for done in work]
    assert sorted(answer["value"] for answer in answers) == list(range(1, 401))
    assert len({answer["process"] for answer in answers}) == 2


def test_four_threads_share_two_connections(tmp_path: Path, database: str) -> None:
    app = counting_app(
        tmp_path, database, Endpoint("/", value), Endpoint("/stream", stream),
        action("/a", increment), pool_size=2, max_overflow=0,
    )  # fmt: skip
    requests = [("GET", "/"), ("POST", "/a"), ("GET", "/stream"), ("GET", "/none")] * 50
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda request: answered(app, *request), requests))
    assert answers == [200, 200, 200, 404] * 50
    assert app.database.engine.pool.checkedin() <= 2
    assert checked_out(app) == 0


# ---- Servers that go away -------------------------------------------------------------------


def test_a_database_restart_between_two_requests_goes_unnoticed(
    tmp_path: Path, cluster: PrivatePostgres
) -> None:
    app = counting_app(tmp_path, cluster.url, action("/add", increment))
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda _: answered(app, "POST", "/add"), range(8))) == {200}
    cluster.restart()
    time.sleep(0.2)  # a connection that was in use just now is not pinged
    for _ in range(4):
        assert ask(app, "POST", "/add").status == 200
    assert checked_out(app) == 0


class SlowBody(io.BytesIO):
    """A request body that the client sends only after `meanwhile()` has run."""

    def __init__(self, body: bytes, meanwhile: Callable[[], None]) -> None:
        super().__init__(body)
        self.meanwhile: Callable[[], None] | None = meanwhile

    def read(self, size: int | None = -1) -> bytes:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            meanwhile()
        return super().read(size)


def read_counter(request: Any, session: Any, db: Any) -> None:
    request.counter = db.get(Counter, 1)


COUNT = """
    from counters import increment

    def action_count(request, session, db):
        assert request.counter.value == 1  # the guard's object is reloaded, too
        return increment(request, session, db)
"""


@pytest.mark.parametrize("path", ["/endpoint", "/page"])
def test_no_connection_is_held_while_a_slow_client_sends(
    tmp_path: Path, database: str, path: str
) -> None:
    logic, guards = make_module("slowly.slowly_logic", COUNT), [read_counter]
    app = counting_app(
        tmp_path, database, action("/increment", increment),
        action("/endpoint", logic.action_count, guards=guards),
        Page("/page", "page.html", guards=guards),
        files={"page.html": "{{ component('slow') }}", "slow.html": "{{ action('count') }}"},
        components=[Component("slow", "slow.html", logic=logic)],
    )  # fmt: skip
    visitor, answers, held = Visitor(app), [], []

    def save() -> None:
        answers.append(answered(app, "POST", "/increment"))

    def another_saves() -> None:
        held.append(checked_out(app))
        thread = threading.Thread(target=save)
        thread.start()
        thread.join(20)

    tickets = visitor.get("/page").tickets
    body = urlencode({"_ticket": tickets[0]}).encode()
    slow = {"wsgi.input": SlowBody(body, another_saves), "CONTENT_LENGTH": str(len(body))}
    assert visitor.post(path, **slow).status == 200
    assert (held, answers, stored(app)) == ([0], [200], 2)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_a_slow_client_under_gunicorn_does_not_block_other_writers(
    tmp_path: Path, database: str
) -> None:
    head = b"POST /guarded HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
    with (
        gunicorn(tmp_path, database, "--worker-class", "gthread", "--threads", "2") as server,
        socket.create_connection(("127.0.0.1", server.port), 30) as client,
    ):
        client.sendall(head + b"a=")
        deadline = time.monotonic() + 20
        while not (tmp_path / "guarded").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert fetch(server.port, "POST", "/increment")["value"] == 1
        if database.startswith("postgresql"):
            assert idle_in_transaction(database) == 0
        client.sendall(b"1")
        assert b'"value":2' in client.makefile("rb").read()


def idle_in_transaction(url: str) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    query += " AND state = 'idle in transaction'"
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as watch:
        return int(watch.scalar(sa.text(query)))


@transactional
def test_a_killed_worker_loses_no_committed_row(tmp_path: Path, database: str) -> None:
    acknowledged: list[int] = []
    killed = threading.Event()

    def add(number: int) -> None:
        with suppress(OSError, http.client.HTTPException):
            answer = fetch(server.port, "POST", "/add", f"id={number}")
            acknowledged.append(number)
            if number >= 100 and not killed.is_set():
                killed.set()
                os.kill(answer["process"], signal.SIGKILL)

    with gunicorn(tmp_path, database, "--workers", "2", "--threads", "2") as server:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(add, range(2, 202)))
        assert fetch(server.port, "GET", "/count")["count"] >= len(acknowledged)
    reopened = Database(Config.load(tmp_path))
    with reopened.session() as db:
        rows = set(db.scalars(sa.select(Counter.id)))
    assert killed.is_set()
    assert len(acknowledged) > 150
    assert set(acknowledged) <= rows
    reopened.engine.dispose()


@only_postgresql
@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_sigterm_lets_running_requests_finish(tmp_path: Path, database: str, kind: str) -> None:
    with gunicorn(tmp_path, database, "--worker-class", kind, "--threads", "2") as server:
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(fetch, server.port, "GET", "/slow")
            deadline = time.monotonic() + 20
            while not list(tmp_path.glob("slow.*")) and time.monotonic() < deadline:
                time.sleep(0.05)
            server.send_signal(signal.SIGTERM)
            assert running.result()["count"] == 1
        assert server.wait(20) == 0
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    with sa.create_engine(database, poolclass=sa.NullPool).connect() as watch:
        assert watch.scalar(sa.text(query)) == 1  # this query's own connection
