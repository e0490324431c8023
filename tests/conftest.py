"""Shared fixtures. A test that uses `database` runs on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

import compileall
import gc
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from textwrap import dedent, indent

import hypothesis
import pytest
import sqlalchemy as sa
from counters import PrivatePostgres
from processes import write_files
from visitors import Visitor
from webtest import TestApp
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

import noventa
import noventa_cli
from noventa import App, Config, make_engine
from noventa_cli import main

collect_ignore = ["applications"]  # they have their own conftest: see test_applications.py
SHARED_SETUP = {  # files whose tests share an expensive project, environment or server
    "test_changes.py", "test_deploying.py", "test_field_values.py", "test_guide.py",
    "test_hosts.py", "test_htmx.py", "test_replicas.py", "test_screens.py", "test_starter.py",
}  # fmt: skip


class Scheduler(LoadScopeScheduling):
    """Run each of those files in one worker, and every other test in any free worker."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if Path(file).name in SHARED_SETUP else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduler:
    return Scheduler(config, log)


hypothesis.settings.register_profile(
    "noventa", deadline=None,  # the machine may be busy
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)  # fmt: skip
hypothesis.settings.load_profile("noventa")


SHARED_MEMORY = Path("/dev/shm")


def pytest_configure() -> None:
    """Cache the bytecode of Noventa and of the tests, and create the tests' files in memory.

    Without bytecode every process compiles Noventa again (0.5 s), and every worker the tests (6 s).
    Creating a database on a disk takes 30 ms longer.
    """
    for module in (noventa, noventa_cli):
        compileall.compile_file(module.__file__, quiet=2)
    sys.dont_write_bytecode = False
    if SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK):
        memory = os.statvfs(SHARED_MEMORY)
        executable = not memory.f_flag & os.ST_NOEXEC
        if executable and memory.f_bavail * memory.f_frsize > 4_000_000_000:
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(SHARED_MEMORY))


def pytest_collection_finish() -> None:
    """Exclude everything loaded so far from garbage collection.

    Projects that tests create are run without cached bytecode, which would be stale if a file is
    written twice within a second. Their own tests run without the plugins installed here and
    without the options of this run.
    """
    sys.dont_write_bytecode = True
    os.environ.pop("PYTEST_ADDOPTS", None)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    gc.freeze()


SERVERS = {
    "postgresql": "postgresql+psycopg://postgres@127.0.0.1:5432/postgres",
    # Otherwise PyMySQL loads the system's certificates for every connection (25 ms).
    "mariadb": "mysql+pymysql://root@127.0.0.1:3306/?ssl_disabled=true",
}
DATABASES = ("sqlite", *SERVERS)

USER_MODELS = """\
# components/user/user_models.py
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase):
    pass

class User(Base):
    __tablename__ = "users"
    
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str] = mapped_column()
"""  # noqa: W293  (copied from the document unchanged)


@cache
def server(backend: str) -> sa.Engine | str:
    """Return an engine that can create scratch databases, or the reason why there is none."""
    engine = sa.create_engine(
        SERVERS[backend], poolclass=sa.NullPool, isolation_level="AUTOCOMMIT",
        connect_args={"connect_timeout": 5},
    )  # fmt: skip
    try:
        engine.connect().close()
    except sa.exc.OperationalError as error:
        return f"no {backend} on 127.0.0.1: {error.orig}"
    return engine


def reach(backend: str) -> sa.Engine:
    """Return the engine of the server. Without one, skip the test, or fail it in CI."""
    engine = server(backend)
    if isinstance(engine, str):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(engine)
    return engine


@contextmanager
def new_database(backend: str) -> Iterator[str]:
    """Yield the URL of an empty database, and drop it at the end."""
    if backend == "sqlite":
        yield "sqlite:///./noventa.db"
        return
    engine, name = reach(backend), f"noventa_test_{secrets.token_hex(6)}"
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
        if backend == "postgresql":
            connection.exec_driver_sql(f"ALTER DATABASE {name} SET synchronous_commit = off")
    yield engine.url.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        if backend == "postgresql":
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
            return
        connections_query = f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"
        for number in connection.exec_driver_sql(connections_query).scalars().all():
            with suppress(sa.exc.OperationalError):  # it has ended in the meantime
                connection.exec_driver_sql(f"KILL {number}")
        connection.exec_driver_sql(f"DROP DATABASE {name}")


EMPTY_DATABASE = """\
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid();
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema$)' LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', name);
    END LOOP;
    EXECUTE format('ALTER DATABASE %I RESET ALL', current_database());
    EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database());
END $$;
CREATE SCHEMA public AUTHORIZATION pg_database_owner;
GRANT USAGE ON SCHEMA public TO PUBLIC;
"""


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """One database for many tests: PostgreSQL creates one in 0.3 s, and empties it in 0.01 s."""
    with new_database("postgresql") as url:
        yield url


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty database that no other test uses at the same time."""
    if request.param != "postgresql":
        with new_database(request.param) as url:
            yield url
        return
    url = request.getfixturevalue("postgresql")
    yield url
    options = {"isolation_level": "AUTOCOMMIT", "no_parameters": True}
    engine = sa.create_engine(url, poolclass=sa.NullPool, execution_options=options)
    with engine.connect() as connection:
        connection.exec_driver_sql(EMPTY_DATABASE)


@pytest.fixture
def visitor(app: App) -> Visitor:
    """A browser in this process. The test file defines the fixture `app`."""
    return Visitor(app)


@pytest.fixture
def client(app: App) -> TestApp:
    """WebTest's client, which can fill in forms."""
    same_origin = {"HTTP_HOST": "localhost", "HTTP_SEC_FETCH_SITE": "same-origin"}
    return TestApp(app, extra_environ=same_origin)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (  # options for a browser that requests only the pages under test
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip("no Chromium here; `apt install chromium` for the tests in a browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@contextmanager
def visiting(chromium, server, *, expected=(), **options):
    """Yield a browser page; then assert that it reported no errors and requested no other server.

    `expected` are prefixes of console messages to ignore.
    """
    context = chromium.new_context(base_url=server.url, **options)
    page, messages, urls = context.new_page(), [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: urls.append(request.url))
    try:
        yield page
    finally:
        context.close()
    assert [text for text in messages if not text.startswith(tuple(expected))] == []
    assert [url for url in urls if not url.startswith((server.url, "data:"))] == []


def leave(page, link):
    """Click an element that loads a page, and wait until it has loaded."""
    with page.expect_event("load"):
        link.click()


class Site:
    """A project in a folder, driven through its command line."""

    def __init__(self, root: Path, url: str) -> None:
        self.root, self.url = root, url
        self.backend = sa.make_url(url).get_backend_name()
        self.write("config.yaml", f'database: "{url}"\n')
        self.register()

    def write(self, name: str, text: str) -> Path:
        write_files(self.root, {name: dedent(text)})
        return self.root / name

    def register(self, models: str = "", seeds: str = "") -> None:
        """Write registry.py. `models` and `seeds` are dotted names of modules and functions."""
        names = [*models.split(), *(name.rpartition(".")[0] for name in seeds.split())]
        imports = "".join(f"import {name}\n" for name in names)
        lists = f"models=[{', '.join(models.split())}], seeds=[{', '.join(seeds.split())}]"
        text = f"{imports}from noventa import Registry\n\nregistry = Registry({lists})\n"
        self.write("registry.py", text)

    def models(self, text: str) -> None:
        """Replace the project's models with `text`, which need not define Base."""
        base = "class Base(orm.DeclarativeBase):\n    pass\n\n"
        header = "import enum\n\nimport sqlalchemy as sa\nfrom sqlalchemy import orm\n"
        header += "from sqlalchemy.orm import Mapped, mapped_column\n\n\n"
        self.write("models/shop_models.py", header + base + dedent(text))
        self.register("models.shop_models")

    def run(self, *words: str) -> int:
        return main(["--project", str(self.root), *words])

    def migrate(self, *words: str) -> int:
        return self.run("migrate", *words)

    def autogenerate(self, title: str = "change", *words: str) -> str:
        """Generate a revision from the models and return its text. Exactly one must be written."""
        before = set(self.revisions())
        assert self.migrate(*words, "revision", "--autogenerate", "-m", title) == 0
        (path,) = set(self.revisions()) - before
        return path.read_text("utf-8")

    def revision(self, number: str, upgrade: str, downgrade: str = "pass", after: str = "") -> Path:
        """Write a revision with the given functions. `after` is the revision before it."""
        parts = ("import sqlalchemy as sa", "from alembic import op", f"revision = {number!r}")
        head = "\n".join([*parts, f"down_revision = {after or None!r}"])
        bodies = [
            f"def {name}():\n" + indent(dedent(text).strip(), "    ")
            for name, text in (("upgrade", upgrade), ("downgrade", downgrade))
        ]
        text = "\n\n\n".join([head, *bodies]) + "\n"
        return self.write(f"migrations/versions/{number}_.py", text)

    def revisions(self) -> list[Path]:
        return sorted((self.root / "migrations" / "versions").glob("*.py"))

    @property
    def config(self) -> Config:
        return Config.load(self.root)

    @property
    def engine(self) -> sa.Engine:
        return make_engine(self.config, poolclass=sa.NullPool)

    def rows(self, query: str) -> list[tuple]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(query))]

    def execute(self, *statements: str) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(sa.text(statement))

    def tables(self) -> set[str]:
        return set(sa.inspect(self.engine).get_table_names()) - {"alembic_version"}

    def at(self) -> list[str]:
        """Return the revisions that the database is at."""
        return [row[0] for row in self.rows("SELECT version_num FROM alembic_version")]


@pytest.fixture
def site(tmp_path: Path, database: str) -> Site:
    """An empty project on each of the three databases."""
    return Site(tmp_path, database)


only_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
only_postgresql = pytest.mark.parametrize("database", ["postgresql"], indirect=True)
only_mariadb = pytest.mark.parametrize("database", ["mariadb"], indirect=True)
transactional = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
servers = pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivatePostgres]:
    """A private PostgreSQL, which tests may stop and start."""
    postgres = PrivatePostgres()
    postgres.start()
    yield postgres
    postgres.remove()
