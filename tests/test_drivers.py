"""Databases and drivers: each supports exactly what the guide's table lists."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from conftest import Site, new_database
from counters import PrivatePostgres, action, answered
from processes import ROOT, environment, free_port
from sqlalchemy import orm
from support import make_app
from visitors import ask, post
from webob import Request, Response

from noventa import App, Config, ConfigError, Database, Endpoint

pytestmark = [pytest.mark.drivers, pytest.mark.slow]

GUIDE = ROOT / "templates" / "guide" / "databases.md"


class Driver(NamedTuple):
    """`name` is the URL scheme. The empty database is `file`, or is created on `backend`."""

    database: str
    module: str
    name: str
    backend: str = "sqlite"
    file: str = ""


DRIVERS = (
    Driver("SQLite", "sqlite3", "sqlite", file="sqlite:///./noventa.db"),
    Driver("SQLCipher", "sqlcipher3", "sqlite+pysqlcipher",
           file="sqlite+pysqlcipher://:hunter2@/noventa.db"),
    Driver("PostgreSQL", "psycopg", "postgresql+psycopg", "postgresql"),
    Driver("PostgreSQL", "psycopg2", "postgresql+psycopg2", "postgresql"),
    Driver("PostgreSQL", "pg8000", "postgresql+pg8000", "postgresql"),
    Driver("MariaDB", "pymysql", "mysql+pymysql", "mariadb"),
    Driver("MariaDB", "MySQLdb", "mysql+mysqldb", "mariadb"),
    Driver("MariaDB", "mariadb", "mariadb+mariadbconnector", "mariadb"),
    Driver("DuckDB", "duckdb_engine", "duckdb", file="duckdb:///noventa.db"),
)  # fmt: skip


class Base(orm.DeclarativeBase):
    pass


class Counter(Base):
    __tablename__ = "counters"

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True, autoincrement=False)  # for DuckDB
    value: orm.Mapped[int] = orm.mapped_column(default=0)


MODELS = """
class Counter(Base):
    __tablename__ = "counters"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[int] = mapped_column(default=0)

def seed_counters(db):
    db.add(Counter(id=1, value=7))
    db.commit()
"""


class Trial(NamedTuple):
    """A driver under test, with an empty database and a folder."""

    driver: Driver
    url: str
    root: Path

    def app(self, *routes: Any, **pool: Any) -> App:
        """Return an application with eleven counters at 0."""
        settings = {"database": {"url": self.url, **pool}, "server": {"threads": 4}}
        app = make_app(self.root, config=settings, models=[Counter], routes=routes)
        with app.database.session() as db:
            db.add_all(Counter(id=number) for number in range(1, 12))
            db.commit()
        return app

    def site(self) -> Site:
        """Return a project with the same table, not migrated yet."""
        site = Site(self.root, self.url)
        site.models(MODELS)
        site.register("models.shop_models", "models.shop_models.seed_counters")
        return site

    def migrated(self) -> Site:
        site = self.site()
        site.autogenerate("counters")
        assert site.migrate() == 0
        return site


def increment(request: Any, session: Any, db: Any) -> Any:
    counter = db.get(Counter, 1)
    counter.value += 1
    db.commit()
    return {"value": counter.value}


def show(request: Any, session: Any, db: Any) -> Any:
    return {"value": db.get(Counter, 1).value}


def stored(app: App, number: int = 1) -> int | None:
    """Return the stored value of a counter, read in a new session."""
    with app.database.session() as db:
        return db.scalar(sa.select(Counter.value).where(Counter.id == number))


# ---- Checks ----------------------------------------------------------------------------------


def migrates_once_if_three_start_together(trial: Trial) -> None:
    site = trial.site()
    site.autogenerate("counters")
    command = [sys.executable, "-m", "noventa", "migrate"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = [
        subprocess.Popen(command, cwd=site.root, env=environment(), **pipes) for _ in range(3)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert sum("Nothing to do" in text for text in outputs) == 2, outputs
    assert site.tables() >= {"counters"}


def seeds(trial: Trial) -> None:
    site = trial.migrated()
    for _ in range(2):  # the second time there is nothing to do
        assert site.run("seed") == 0
        assert site.rows("SELECT id, value FROM counters") == [(1, 7)]


def finds_no_drift(trial: Trial) -> None:
    site = trial.migrated()
    assert site.migrate("check") == 0


def downgrades(trial: Trial) -> None:
    site = trial.migrated()
    assert site.migrate("downgrade", "base") == 0
    assert "counters" not in site.tables()


def reads(trial: Trial) -> None:
    app = trial.app(Endpoint("/value", show))
    assert [ask(app, "GET", "/value").text for _ in range(2)] == ['{"value":0}'] * 2


def acts(trial: Trial) -> None:
    app = trial.app(action("/add", increment))
    assert [ask(app, "POST", "/add").text for _ in range(2)] == ['{"value":1}', '{"value":2}']
    assert stored(app) == 2


def loses_no_increment_of_eight_threads(trial: Trial) -> None:
    def add(request: Any, session: Any, db: Any) -> Any:
        db.get(Counter, 1, with_for_update=True).value += 1
        db.commit()
        return {}

    app = trial.app(action("/add", add))
    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(lambda _: answered(app, "POST", "/add"), range(400)))
    assert set(statuses) == {200}
    assert stored(app) == 400


def streams(trial: Trial) -> None:
    """Start the query in the handler or in the body; read all rows or abandon them."""

    def rows(db: Any) -> Any:
        return db.scalars(sa.select(Counter.id).order_by(Counter.id).execution_options(yield_per=3))

    def handler(request: Any, session: Any, db: Any) -> Any:
        early = rows(db) if "early" in request.args else None
        return Response(app_iter=(b"%d " % row for row in early or rows(db)))

    def begin(query: str) -> Any:
        return app(Request.blank(f"/rows?{query}").environ, lambda *_: lambda _: None)

    app = trial.app(
        Endpoint("/rows", handler), Endpoint("/value", show), action("/add", increment),
        pool_size=1, max_overflow=0, pool_timeout=1,
    )  # fmt: skip
    for number, query in enumerate(("early=1", "late=1"), 1):
        for read_all in (True, False):
            body = begin(query)
            assert next(body) == b"1 "
            if read_all:
                assert b"".join(body) == b"2 3 4 5 6 7 8 9 10 11 "
            body.close()
            assert ask(app, "GET", "/value").status == 200
        assert ask(app, "POST", "/add").text == f'{{"value":{number}}}'


def isolates_a_failed_insert(trial: Trial) -> None:
    def insert(request: Any, session: Any, db: Any) -> Any:
        db.add(Counter(id=20))
        db.flush()
        db.execute(sa.insert(Counter).values(id=1, value=0))  # it exists already
        return {}

    app = trial.app(
        action("/insert", insert), action("/add", increment), Endpoint("/value", show),
        pool_size=1, max_overflow=0,
    )  # fmt: skip
    assert ask(app, "POST", "/insert").status == 500
    assert ask(app, "GET", "/value").text == '{"value":0}'
    assert ask(app, "POST", "/add").text == '{"value":1}'
    assert stored(app, 20) is None


def retries_a_conflict(trial: Trial) -> None:
    """Two actions deadlock, and the database aborts one of them."""
    both = threading.Barrier(2)
    attempts = []

    def lock(request: Any, session: Any, db: Any, *, first: int, second: int) -> Any:
        db.get(Counter, first, with_for_update=True)
        attempts.append(first)
        if len(attempts) <= 2:
            both.wait(10)
        db.get(Counter, second, with_for_update=True).value += 1
        db.commit()
        return {}

    app = trial.app(action("/lock/{first:int}/{second:int}", lock, retries=3))
    with ThreadPoolExecutor(2) as threads:
        paths = ("/lock/1/2", "/lock/2/1")
        statuses = list(threads.map(lambda path: answered(app, "POST", path), paths))
    assert statuses == [200, 200]
    assert len(attempts) == 3
    assert (stored(app, 1), stored(app, 2)) == (1, 1)


def returns_400_for_a_bad_value(trial: Trial) -> None:
    def find(request: Any, session: Any, db: Any) -> Any:
        return {"found": db.query(Counter).filter(Counter.id == request.args["id"]).count()}

    def store(request: Any, session: Any, db: Any) -> Any:
        db.get(Counter, 1).value = int(request.form["value"])
        db.commit()
        return {}

    app = trial.app(Endpoint("/find", find), action("/store", store))
    assert ask(app, "GET", "/find", "id=1").text == '{"found":1}'
    bad = ask(app, "GET", "/find", "id=abc")
    assert bad.status == 400 or bad.text == '{"found":0}'  # if it compares strings with numbers
    assert post(app, "/store", [("value", str(10**30))]).status == 400
    assert ask(app, "GET", "/find", "id=1").text == '{"found":1}'


def recovers_after_an_outage(trial: Trial) -> None:
    with stoppable_server(trial) as (url, stop, start):
        app = trial._replace(url=url).app(Endpoint("/value", show), action("/add", increment))
        assert ask(app, "GET", "/value").status == ask(app, "POST", "/add").status == 200
        stop()
        assert ask(app, "GET", "/value").status == ask(app, "POST", "/add").status == 503
        start()
        assert ask(app, "GET", "/value").text == '{"value":1}'
        assert ask(app, "POST", "/add").text == '{"value":2}'
        app.database.dispose()


CHECKS: dict[str, Callable[[Trial], None]] = {  # by their labels in the guide's table
    "three concurrent migrations": migrates_once_if_three_start_together,
    "seed": seeds,
    "read": reads,
    "action": acts,
    "8 threads × 50 increments": loses_no_increment_of_eight_threads,
    "stream": streams,
    "request after a failed insert": isolates_a_failed_insert,
    "conflict retried": retries_a_conflict,
    "bad value returns 400": returns_400_for_a_bad_value,
    "503 during an outage, then recovery": recovers_after_an_outage,
    "downgrade": downgrades,
    "no drift": finds_no_drift,
}


@contextmanager
def stoppable_server(trial: Trial) -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
    """Yield the URL of a server, a function that stops it and one that starts it again."""
    url = sa.make_url(trial.url)
    server: Any
    if url.get_backend_name() == "postgresql":
        server, url = PrivatePostgres(), url.set(database="postgres")
    else:
        server = Relay(url.port or 3306)
    server.start()
    try:
        url = url.set(port=server.port)
        yield url.render_as_string(hide_password=False), server.stop, server.start
    finally:
        server.remove()


class Relay:
    """A relay in front of a server. While it is stopped, connections are lost and refused."""

    def __init__(self, server: int) -> None:
        self.server, self.port = server, free_port()
        self.sockets: list[socket.socket] = []

    def start(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.sockets = [listener]
        threading.Thread(target=self._accept, args=[listener], daemon=True).start()

    def stop(self) -> None:
        for open_socket in self.sockets:
            with suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
            open_socket.close()

    remove = stop

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # it was stopped
            while True:
                client = listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self.server))
                self.sockets += [client, server]
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._copy, args=pair, daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


# ---- The guide's tables ----------------------------------------------------------------------


def rows_of(section: str) -> list[list[str]]:
    """Return the cells of every table in a section, row by row, without the separator rows."""
    text = GUIDE.read_text("utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row] for row in rows]
    return [row for row in cells if set(row[0]) != {"-"}]


ROWS = rows_of("Databases and drivers")
ADDRESSES, SUPPORT = ROWS[: len(DRIVERS) + 1], ROWS[len(DRIVERS) + 1 :]
CELLS = [
    (row[0], driver, cell)
    for row in SUPPORT[1:]
    for driver, cell in zip(DRIVERS, row[1:], strict=True)
]


def cases(*wanted: str) -> list[Any]:
    return [
        pytest.param(CHECKS[check], driver, id=f"{driver.module}: {check}")
        for check, driver, cell in CELLS
        if cell in wanted
    ]


@pytest.fixture
def trial(driver: Driver, tmp_path: Path) -> Iterator[Trial]:
    if importlib.util.find_spec(driver.module) is None:
        refuse = pytest.fail if os.environ.get("NOVENTA_DRIVERS") == "all" else pytest.skip
        refuse(f"no {driver.module} here; it is in the extra `drivers`")
    with new_database(driver.backend) as new_url:
        url = sa.make_url(driver.file or new_url).set(drivername=driver.name, query={})
        if driver.file:
            url = url.set(database=str(tmp_path / "noventa.db"))
        yield Trial(driver, url.render_as_string(hide_password=False), tmp_path)


@pytest.mark.parametrize(("check", "driver"), cases("yes"))
def test_a_driver_supports_what_the_guide_lists(
    check: Callable[[Trial], None], driver: Driver, trial: Trial
) -> None:
    check(trial)


@pytest.mark.parametrize(("check", "driver"), cases("no"))
def test_a_driver_fails_what_the_guide_lists_as_unsupported(
    check: Callable[[Trial], None], driver: Driver, trial: Trial
) -> None:
    try:
        check(trial)
    except Exception:
        return
    pytest.fail("it is supported: change the guide's no to yes")


def test_the_tables_in_the_guide_list_every_driver_and_check() -> None:
    assert [row[0] for row in SUPPORT[1:]] == list(CHECKS)
    assert {cell for _, _, cell in CELLS} == {"yes", "no", "–"}
    for (database, url, package), driver in zip(ADDRESSES[1:], DRIVERS, strict=True):
        assert (database, url.split(":")[0].strip("`")) == (driver.database, driver.name)
        assert package == "–" or package.startswith("`pip install ")
    for head, driver in zip(SUPPORT[0][1:], DRIVERS, strict=True):
        assert head in (driver.database, driver.name.partition("+")[2])


# ---- Unsupported databases -------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["sqlite+aiosqlite:///a.db", "sqlite+libsql:///a.db", "libsql://a.turso.io",
     "sqlite+turso:///a.db", "postgresql+asyncpg://h/n", "postgresql+psycopg_async://h/n",
     "mysql+aiomysql://h/n", "mysql+asyncmy://h/n", "mariadb+aiomysql://h/n",
     "sqlite:///file:a.db?cache=shared&uri=true", "firebird+firebird://h/n",
     "oracle+oracledb://h/n", "mssql+pyodbc://h/n", "nothing://h/n"],
)  # fmt: skip
def test_an_unsupported_url_is_rejected_in_one_line_at_startup(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Database(Config.from_mapping({"database": url}, tmp_path))
    assert str(raised.value).startswith("config.yaml: database")
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("driver", [DRIVERS[-1]])
def test_check_reports_what_duckdb_lacks(
    driver: Driver, trial: Trial, capsys: pytest.CaptureFixture[str]
) -> None:
    trial.site().run("check")
    captured = capsys.readouterr()
    assert "no read-only connections" in captured.out
    assert "no migration lock" in captured.out
    assert "Alembic does not support 'duckdb'" in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("driver", [DRIVERS[-1]])
def test_migrate_on_duckdb_fails_with_a_message(
    driver: Driver, trial: Trial, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trial.site().migrate("revision", "--autogenerate", "-m", "counters") == 1
    assert "Alembic does not support 'duckdb'" in capsys.readouterr().err
