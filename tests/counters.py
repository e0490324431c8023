"""Helpers of the database tests: an application with a counter, and private servers to stop."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from processes import KEY, environment, free_port, write_files
from sqlalchemy import event, orm
from support import make_app
from webob import Request

from noventa import App, Endpoint


class Base(orm.DeclarativeBase):
    pass


class Counter(Base):
    __tablename__ = "counters"

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    value: orm.Mapped[int] = orm.mapped_column(default=0)
    label: orm.Mapped[str | None] = orm.mapped_column(sa.String(40), unique=True)


def counting_app(
    root: Path, url: str, *routes: Any, debug: bool = False, files: Any = None,
    components: Any = (), guards: Any = (), errors: Any = None, **pool: Any,
) -> App:  # fmt: skip
    """Return an application with one counter, at 0. `pool` are settings below `database:`."""
    config = {"database": {"url": url, **pool}, "debug": debug}
    parts = {"routes": list(routes), "components": components, "guards": guards}
    parts["errors"] = errors or {}
    app = make_app(root, files, config, models=[Counter], **parts)
    with app.database.session() as db:
        db.merge(Counter(id=1, value=0))
        db.commit()
    return app


def action(path: str, handler: Any, **options: Any) -> Endpoint:
    """Return an Endpoint that accepts POST from any origin."""
    return Endpoint(path, handler, methods=["POST"], cross_origin=True, **options)


def increment(request: Any, session: Any, db: Any) -> dict[str, int]:
    counter = db.get(Counter, 1)
    counter.value += 1
    db.commit()
    return {"value": counter.value}


def value(request: Any, session: Any, db: Any) -> dict[str, int]:
    return {"value": db.get(Counter, 1).value}


def answered(app: App, method: str, path: str) -> int:
    """Return the status of a response. Thread-safe, unlike `ask`, which sets warning filters."""
    response = Request.blank(path, method=method).get_response(app)
    assert response.body is not None  # reads and closes the body
    return int(response.status_int)


def stored(app: App, number: int = 1) -> int | None:
    """Return the stored value of a counter, read in a new session."""
    with app.database.session() as db:
        return db.scalar(sa.select(Counter.value).where(Counter.id == number))


def checked_out(app: App) -> int:
    """Return the number of connections in use, over both engines."""
    return sum(engine.pool.checkedout() for engine in app.database.engines)  # type: ignore[attr-defined]


@contextmanager
def statements(app: App) -> Iterator[list[str]]:
    """Collect the statements sent to the database; on SQLite, BEGIN and ROLLBACK too."""
    sent: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        sent.append(statement)

    def trace(driver: Any, *_: Any) -> None:
        driver.set_trace_callback(sent.append)

    is_sqlite = app.database.engine.dialect.name == "sqlite"
    name, listener = ("checkout", trace) if is_sqlite else ("before_cursor_execute", note)
    for engine in app.database.engines:
        event.listen(engine, name, listener)
    yield sent
    for engine in app.database.engines:
        event.remove(engine, name, listener)


@contextmanager
def events(app: App, *names: str) -> Iterator[list[str]]:
    """Collect these events of the pools: `connect`, `checkout`, `checkin`, `invalidate`."""
    seen: list[str] = []
    listeners = [
        (engine.pool, name, lambda *_, name=name: seen.append(name))
        for engine in app.database.engines
        for name in names
    ]
    for listener in listeners:
        event.listen(*listener)
    yield seen
    for listener in listeners:
        event.remove(*listener)


class PrivatePostgres:
    """A PostgreSQL cluster that a test may stop, kill and start."""

    def __init__(self) -> None:
        if shutil.which("initdb") is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)("no initdb on the PATH")
        self.user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
        self.folder = Path(tempfile.mkdtemp(prefix="noventa-postgres-"))
        if self.user:
            shutil.chown(self.folder, self.user)
        self.port = free_port()
        self.url = f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"
        self._run("initdb", "-U", "postgres", "-A", "trust", "-N", "--no-instructions")
        settings = f"port={self.port}\nlisten_addresses='127.0.0.1'\nfsync=off\n"
        settings += f"unix_socket_directories='{self.folder}'\nshared_buffers=8MB\n"
        with (self.folder / "postgresql.conf").open("a") as file:
            file.write(settings)

    def start(self) -> None:
        self._run("pg_ctl", "-w", "-l", str(self.folder / "log"), "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-w", "-m", "fast", "stop")

    def restart(self) -> None:
        self.stop()
        self.start()

    def remove(self) -> None:
        with suppress(subprocess.CalledProcessError):
            self._run("pg_ctl", "-w", "-m", "immediate", "stop")
        shutil.rmtree(self.folder)

    def _run(self, *command: str) -> None:
        subprocess.run(
            [*command, "-D", self.folder], user=self.user, check=True, timeout=60, cwd="/",
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


PROJECT = {
    "models.py": """\
from sqlalchemy import orm

class Base(orm.DeclarativeBase):
    pass

class Counter(Base):
    __tablename__ = "counters"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    value: orm.Mapped[int] = orm.mapped_column(default=0)
""",
    "handlers.py": """\
import os
import time
from models import Counter

def increment(request, session, db):
    counter = db.get(Counter, 1)
    counter.value = value = counter.value + 1
    db.commit()
    return {"value": value, "process": os.getpid()}

def add(request, session, db):
    db.add(Counter(id=int(request.form["id"])))
    db.commit()
    return {"process": os.getpid()}

def guard(request, session, db):
    db.query(Counter).one()
    open("guarded", "w").close()

def count(request, session, db):
    return {"count": db.query(Counter).count(), "process": os.getpid()}

def slow(request, session, db):
    db.query(Counter).first()
    open(f"slow.{os.getpid()}", "w").close()
    time.sleep(0.8)
    return {"count": db.query(Counter).count(), "process": os.getpid()}
""",
    "registry.py": """\
import handlers
import models
from noventa import Endpoint, Registry

def action(path, handler, **options):
    return Endpoint(path, handler, methods=["POST"], cross_origin=True, **options)

registry = Registry(
    models=[models],
    routes=[
        action("/increment", handlers.increment),
        action("/add", handlers.add),
        action("/guarded", handlers.increment, guards=[handlers.guard]),
        Endpoint("/count", handlers.count),
        Endpoint("/slow", handlers.slow),
    ],
)
""",
    "wsgi.py": """\
from pathlib import Path
from noventa import App, Config
from registry import registry

app = App(registry, Config.load(Path(__file__).parent))
application = app
registry.metadata.create_all(app.database.engine)
with app.database.session() as db:
    db.merge(registry.models[0].Counter(id=1, value=0))
    db.commit()
""",
}


@contextmanager
def gunicorn(root: Path, url: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run the project above under gunicorn, preloaded; yield the process, with its `port`."""
    config = f'database: "{url}"\nsecret_keys: ["{KEY}"]\n'
    write_files(root, {**PROJECT, "config.yaml": config})
    command = [sys.executable, "-m", "gunicorn", "wsgi:application", "--preload"]
    with (root / "gunicorn.log").open("w+") as log:
        server: Any = subprocess.Popen(
            [*command, "--bind", "127.0.0.1:0", "--graceful-timeout", "10", *options],
            cwd=root, env=environment(), stdout=log, stderr=log, text=True,
        )  # fmt: skip
        try:
            server.port = _wait_for_port(
                server, root / "gunicorn.log", 2 if "--workers" in options else 1
            )
            yield server
        finally:
            if server.poll() is None:
                server.send_signal(signal.SIGTERM)
            server.wait(20)


def get_json(port: int, path: str) -> Any:
    return fetch(port, "GET", path)


def fetch(port: int, method: str, path: str, body: str = "") -> Any:
    """Return the JSON of a response, whose status must be 200."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, (answer.status, text)
        return json.loads(text)


def _wait_for_port(server: subprocess.Popen[str], log: Path, workers: int) -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and server.poll() is None:
        text = log.read_text("utf-8")
        found = re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", text)
        if found and text.count("Booting worker") >= workers:
            with closing(socket.create_connection(("127.0.0.1", int(found[1])), 20)):
                return int(found[1])
        time.sleep(0.05)
    raise AssertionError(f"gunicorn did not start:\n{log.read_text('utf-8')}")
