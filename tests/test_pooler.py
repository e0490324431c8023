"""Database: PostgreSQL behind a real PgBouncer in transaction mode."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from conftest import new_database
from counters import Counter, action, answered, counting_app, increment
from processes import KEY, environment, free_port, listens, noventa, wait_for, write_project
from sqlalchemy import orm
from support import make_app
from visitors import ask

from noventa import App, Config, Endpoint, Registry, reply

pytestmark = pytest.mark.slow
PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
SETTINGS = """\
[databases]
{database} = host={host} port={port} user={user}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
"""


class PgBouncer:
    """A private PgBouncer in front of a database, with three connections for all clients."""

    def __init__(self, url: str) -> None:
        if PGBOUNCER is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)("no pgbouncer here")
        server, self.port = sa.make_url(url), free_port()
        self.url = server.set(port=self.port).render_as_string(hide_password=False)
        self.user = "nobody" if os.getuid() == 0 else None  # it refuses to run as root
        self.folder = Path(tempfile.mkdtemp(prefix="noventa-pgbouncer-"))
        self.folder.chmod(0o755)
        settings = SETTINGS.format(
            database=server.database, host=server.host, port=server.port or 5432,
            user=server.username, listen_port=self.port,
        )  # fmt: skip
        (self.folder / "pgbouncer.ini").write_text(settings, "utf-8")
        self.process = subprocess.Popen(
            [PGBOUNCER, self.folder / "pgbouncer.ini"], user=self.user, cwd="/",
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(lambda: listens(self.port))

    def remove(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        shutil.rmtree(self.folder)


@pytest.fixture
def direct() -> Iterator[str]:
    """The URL of an empty database, reached directly."""
    with new_database("postgresql") as url:
        yield url


@pytest.fixture
def pooled(direct: str) -> Iterator[str]:
    """The URL of the same database through PgBouncer."""
    pooler = PgBouncer(direct)
    yield pooler.url
    pooler.remove()


def make_model(name: str) -> Any:
    """Return a model whose table is called `name`."""

    class Base(orm.DeclarativeBase):
        pass

    class Row(Base):
        __tablename__ = name

        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        owner: orm.Mapped[str]

    return Row


def make_rows_app(root: Path, url: str, name: str, **settings: Any) -> App:
    """Return an application that adds rows to its own table and reads them in several ways."""
    model = make_model(name)

    def add(request, session, db):
        db.add(model(owner=name))
        db.commit()
        return {}

    def count(request, session, db):
        return {"count": db.scalar(sa.select(sa.func.count()).select_from(model))}

    def owners(request, session, db):
        rows = db.scalars(sa.select(model.owner).execution_options(yield_per=5))
        return reply(f"{owner} " for owner in rows)

    def look(request, session, db):
        db.scalar(sa.select(sa.func.set_config("app.tenant", name, True)))
        return {"tenant": db.scalar(sa.text("SELECT current_setting('app.tenant')"))}

    routes = [
        action("/add", add),
        *map(Endpoint, ("/count", "/owners", "/look"), (count, owners, look)),
    ]
    config = {"database": {"url": url, **settings}}
    root.mkdir()
    return make_app(root, None, config, models=[model], routes=routes)


def send_requests(apps: list[App], requests: int) -> list[int]:
    """Send `requests` requests of all kinds to each app from eight threads; return the statuses."""
    tasks = [
        (app, *request)
        for app in apps
        for request in [("POST", "/add"), ("GET", "/count"), ("GET", "/owners"), ("GET", "/look")]
        * (requests // 4)
    ]
    random.Random(4).shuffle(tasks)
    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(lambda task: answered(*task), tasks))


def owners(url: str, name: str) -> list[str]:
    """Return the distinct owners of the rows of a table."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        return [row[0] for row in connection.execute(f"SELECT DISTINCT owner FROM {name}")]


def count_rows(url: str, name: str) -> int:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        (row,) = connection.execute(f"SELECT count(*) FROM {name}").fetchall()
        return int(row[0])


def test_rows_of_two_applications_are_kept_apart(tmp_path: Path, direct: str, pooled: str) -> None:
    names = ["apples", "pears"]
    apps = [make_rows_app(tmp_path / name, pooled, name, pooler=True) for name in names]
    assert set(send_requests(apps, 400)) == {200}
    for app, name in zip(apps, names, strict=True):
        assert (owners(direct, name), count_rows(direct, name)) == ([name], 100)
        assert ask(app, path="/count").text == '{"count":100}'
        assert ask(app, path="/owners").text == f"{name} " * 100
        app.database.dispose()


def test_an_unrelated_client_can_write_and_has_default_settings(
    tmp_path: Path, direct: str, pooled: str
) -> None:
    app = make_rows_app(tmp_path / "app", pooled, "apples", pooler=True)
    assert set(send_requests([app], 80)) == {200}
    with psycopg.connect(direct.replace("+psycopg", "")) as connection:
        expected = settings_of(connection)
        locks = connection.execute(  # locks in other databases belong to other tests
            "SELECT count(*) FROM pg_locks JOIN pg_database ON database = pg_database.oid"
            " WHERE locktype = 'advisory' AND datname = current_database()"
        )
        assert locks.fetchone() == (0,)
    plain = pooled.replace("+psycopg", "")
    clients = [psycopg.connect(plain, prepare_threshold=None) for _ in range(3)]
    for client in clients:  # together they occupy all of the pooler's connections
        assert settings_of(client) == expected
        client.execute("INSERT INTO apples (owner) VALUES ('a stranger')")
    for client in clients:
        client.commit()
        client.close()
    assert count_rows(direct, "apples") == 20 + 3
    app.database.dispose()


def settings_of(client: psycopg.Connection[Any]) -> dict[str, str]:
    """Return the settings of a session, except those that depend on the client program."""
    rows = client.execute(
        "SELECT name, setting FROM pg_settings"
        " WHERE name NOT IN ('application_name', 'client_encoding', 'port')"
    )
    prepared = client.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
    return {**dict(rows.fetchall()), "prepared statements": str(prepared)}


def test_concurrent_increments_behind_the_pooler_lose_no_update(
    tmp_path: Path, pooled: str
) -> None:
    def add(request, session, db):
        db.execute(sa.update(Counter).values(value=Counter.value + 1))
        db.commit()
        return {}

    app = counting_app(tmp_path, pooled, action("/", add), Endpoint("/get", increment), pooler=True)
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: answered(app, "POST", "/"), range(200))) == {200}
    assert ask(app, path="/get").text == '{"value":201}'
    app.database.dispose()


@pytest.mark.parametrize("pooler", [True, False])
def test_an_undeclared_pooler_is_logged_at_startup(
    tmp_path: Path, direct: str, pooled: str, pooler: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for url in (direct, pooled):
        config = {"database": {"url": url, "pooler": pooler}}
        App(Registry(), Config.from_mapping(config, tmp_path)).database.dispose()
        assert ("database.pooler: true" in caplog.text) == (url == pooled and not pooler)


def test_check_deploy_also_reports_an_undeclared_pooler(
    tmp_path: Path, direct: str, pooled: str
) -> None:
    write_project(tmp_path)
    for url, reported in ((direct, False), (pooled, True)):
        text = f'database: "{url}"\nsecret_keys: ["${{NOVENTA_SECRET_KEY}}"]\n'
        (tmp_path / "config.yaml").write_text(text, "utf-8")
        result = noventa(
            "--project", tmp_path, "check", "--deploy", env=environment(NOVENTA_SECRET_KEY=KEY)
        )
        assert ("database.pooler: true" in result.stdout + result.stderr) == reported, result
