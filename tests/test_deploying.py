"""The chapters on deploying and scaling work as written: commands, servers, containers, data."""

from __future__ import annotations

import fnmatch
import http.client
import json
import os
import re
import shlex
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa
from conftest import new_database
from counters import action, answered, counting_app, value
from processes import ROOT, environment, free_port, listens, wait_for, write_files, write_project
from test_starter import clean_environment, run

import noventa_cli
from noventa_cli import main

pytestmark = pytest.mark.slow

GUIDE = ROOT / "templates" / "guide"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
SITE = {
    "pages/index.html": '<form method="post">{{ action("sign") }}</form><b>{{ scheme }}</b>\n',
    "pages/index_logic.py": """\
def load_template_context(request, session, db):
    return {"scheme": request.scheme}


def action_sign(request, session, db):
    return {"_redirect": "/"}
""",
    "registry.py": """\
from noventa import Page, Registry

from pages import index_logic

registry = Registry(routes=[Page("/", "pages/index.html", logic=index_logic)])
""",
}


def code_block(language: str, part: str, chapter: str = "deploying") -> str:
    """Return the chapter's only code block in `language` that contains `part`."""
    text = (GUIDE / f"{chapter}.md").read_text("utf-8")
    blocks = re.findall(rf"^```{language}(?: no-run)?\n(.*?)^```$", text, re.DOTALL | re.M)
    (block,) = [block for block in blocks if part in block]
    return str(block)


def console_commands(part: str) -> str:
    """Return the commands of a console block as a shell script."""
    lines = re.findall(r"^\$ (.*)$", code_block("console", part), re.MULTILINE)
    return "\n".join(lines)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deploying")


@pytest.fixture(scope="module")
def wheels(place: Path) -> Path:
    """A folder with Noventa's wheel, for `pip --find-links`."""
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", place, ROOT, cwd=place)
    return place


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The URL of an empty PostgreSQL database, with a password that needs escaping in systemd."""
    with new_database("postgresql") as url:
        yield str(sa.make_url(url).set(password="p@ss").render_as_string(hide_password=False))


@pytest.fixture(scope="module")
def site(wheels: Path, database: str) -> Path:
    """A project set up by following the chapter up to the systemd unit."""
    root = wheels / "shop"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noventa_cli, "_run_tests", lambda _: 0)
        assert main(["new", str(root), "--empty", "--database", database]) == 0
    write_files(root, SITE | {"config.yaml": code_block("yaml", "health: /health")})
    write_files(root, {"shop.env": f"DATABASE_URL='{database}'\n"})
    script = "set -e\n" + console_commands("python3 -m venv .venv") + "\n"
    script += console_commands("openssl rand -hex 32 > secret.key") + "\n"
    script += console_commands("noventa seed")
    script = script.replace("python3 -m venv", f"{shlex.quote(sys.executable)} -m venv")
    ended = subprocess.run(
        ["bash", "-c", script], cwd=root, check=False, capture_output=True, text=True, timeout=1200,
        env=clean_environment() | {"PIP_FIND_LINKS": str(wheels)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return root


def test_the_commands_create_a_project_with_private_secrets(site: Path) -> None:
    for name in ("secret.key", "shop.env"):
        assert stat.S_IMODE((site / name).stat().st_mode) == 0o600
    assert not (site / "noventa.db").exists()


def test_a_missing_variable_stops_startup_and_creates_no_file(site: Path) -> None:
    command = [site / ".venv" / "bin" / "python", "-m", "noventa", "migrate"]
    ended = subprocess.run(
        command, cwd=site, env=clean_environment(), check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode != 0
    assert "DATABASE_URL" in ended.stderr
    assert not [*site.glob("*.db")]


# ---- the server and nginx -------------------------------------------------------------------


def environment_file(root: Path) -> dict[str, str]:
    """Return the variables that systemd reads from the EnvironmentFile."""
    name, _, text = (root / "shop.env").read_text("utf-8").strip().partition("=")
    return {name: text.strip("'")}


@contextmanager
def running_process(*command: Any, **options: Any) -> Iterator[None]:
    process = subprocess.Popen(command, **options)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def served(root: Path, line: str, **more: str) -> Iterator[int]:
    """Start gunicorn with a command line of the chapter and yield its port."""
    port = free_port()
    words = shlex.split(re.sub(r"--bind [\d.]+:8000", f"--bind 127.0.0.1:{port}", line))
    words[0] = str(root / ".venv" / "bin" / "gunicorn")
    options = {"env": clean_environment() | environment_file(root) | more, "cwd": root}
    with running_process(*words, **options):
        path = more.get("SCRIPT_NAME", "") + "/health"
        wait_for(lambda: listens(port) and ask(port, path, "10.1.2.3").status == 200, 60)
        yield port


UNIT = re.search(r"^ExecStart=(.*)$", code_block("ini", "ExecStart"), re.MULTILINE)[1]  # type: ignore[index]
REMOTE_PROXY = console_commands("--forwarded-allow-ips")  # for a proxy on another machine


@contextmanager
def nginx(folder: Path, block: str, port: int) -> Iterator[int]:
    """Run nginx with a block of the chapter in front of the server on `port`; yield its port."""
    if NGINX is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no nginx here")
    nginx_port = free_port()
    block = block.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    block = block.replace("$scheme", "https")  # as if nginx terminated HTTPS
    logs = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = f"daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
    text += (
        f"http {{ access_log off; {logs} server {{ listen 127.0.0.1:{nginx_port};\n{block} }} }}\n"
    )
    (folder / "nginx.conf").write_text(text, "utf-8")
    command = [NGINX, "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"]
    if os.getuid() == 0:
        command += ["-g", "user root;"]
    with running_process(*command):
        wait_for(lambda: listens(nginx_port))
        yield nginx_port


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    text: str


def ask(port: int, path: str, host: str, fields: Any = None, **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    sent = {"Host": host, **{name.replace("_", "-"): text for name, text in headers.items()}}
    if fields:
        sent["Content-Type"] = "application/x-www-form-urlencoded"
    with closing(connection):
        method, body = ("POST", urlencode(fields)) if fields else ("GET", None)
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read().decode())


def visit_and_post(port: int, path: str) -> tuple[Answer, Answer]:
    """Request a page on port 8443 and post its form like a browser that sends only `Origin`."""
    host = "shop.example.com:8443"
    page = ask(port, path, host)
    assert page.status == 200, page.text
    ticket = re.search(r'name="_ticket" value="([^"]*)"', page.text)
    assert ticket
    cookie = (page.headers["Set-Cookie"] or "").partition(";")[0]
    fields = {"_ticket": ticket[1]}
    return page, ask(port, path, host, fields, Origin=f"https://{host}", Cookie=cookie)


def test_nginx_passes_host_with_its_port_and_the_scheme(site: Path, tmp_path: Path) -> None:
    block = code_block("nginx", "location / {")
    with served(site, UNIT) as port:
        with nginx(tmp_path, block, port) as front:
            page, posted = visit_and_post(front, "/")
            assert "<b>https</b>" in page.text
            assert (posted.status, posted.headers["Location"]) == (303, "/")
        with nginx(tmp_path, block.replace("$http_host", "$host"), port) as front:
            assert visit_and_post(front, "/")[1].status == 403


def test_nginx_serves_a_prefix(site: Path, tmp_path: Path) -> None:
    block = code_block("nginx", "location /m/")
    with served(site, UNIT, SCRIPT_NAME="/m") as port, nginx(tmp_path, block, port) as front:
        _, posted = visit_and_post(front, "/m/")
        assert (posted.status, posted.headers["Location"]) == (303, "/m/")
        bare = ask(front, "/m", "shop.example.com:8443")
        assert (bare.status, bare.headers["Location"]) == (308, "/m/")


def test_gunicorn_trusts_a_remote_proxy_only_in_a_configured_network(
    site: Path, tmp_path: Path
) -> None:
    block = code_block("nginx", "location / {")
    block = f"proxy_bind 127.9.9.9;\n{block}"  # as if on another machine
    for line, scheme in (
        (UNIT, "http"),
        (REMOTE_PROXY.replace("10.0.0.0/8", "127.8.0.0/13"), "https"),
    ):
        with served(site, line) as port, nginx(tmp_path, block, port) as front:
            assert f"<b>{scheme}</b>" in ask(front, "/", "shop.example.com").text


def test_a_health_check_by_ip_address_succeeds_but_other_pages_return_400(site: Path) -> None:
    with served(site, UNIT) as port:
        assert ask(port, "/health", "10.1.2.3").status == 200
        assert ask(port, "/", "10.1.2.3").status == 400


# ---- a container ----------------------------------------------------------------------------


def is_ignored(path: str, patterns: list[str]) -> bool:
    """Return True if Docker would exclude `path` from the build context."""
    parents = [path, *map(str, Path(path).parents)]
    names = [pattern.removeprefix("**/") for pattern in patterns if pattern.startswith("**/")]
    if any(fnmatch.fnmatch(parent, pattern) for parent in parents for pattern in patterns):
        return True
    return any(Path(parent).name == name for parent in parents for name in names)


def run_copy_step(context: Path, target: Path, source: str) -> None:
    lines = (context / ".dockerignore").read_text("utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    chosen = context.rglob("*") if source == "." else [context / source]
    for path in filter(Path.is_file, chosen):
        name = str(path.relative_to(context))
        if not is_ignored(name, patterns):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / name)


def test_the_dockerfile_builds_a_working_image_without_secrets(
    site: Path, wheels: Path, tmp_path: Path
) -> None:
    image, served_by = tmp_path / "image", []
    image.mkdir()
    path = f"{site / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    options = {"PATH": path, "PIP_FIND_LINKS": str(wheels)}
    for step in code_block("dockerfile", "FROM").splitlines():
        word, _, rest = step.partition(" ")
        if word == "COPY":
            run_copy_step(site, image, rest.split()[0])
        elif word == "RUN" and "useradd" not in rest:  # do not add a user to this machine
            env = clean_environment() | options
            subprocess.run(["bash", "-c", rest], cwd=image, env=env, check=True, timeout=300)
        elif word == "CMD":
            served_by = json.loads(rest)
    assert {"registry.py", "config.yaml"} <= {file.name for file in image.iterdir()}
    for secret in ("secret.key", "database.url", "shop.env", ".venv", ".git"):
        assert not (image / secret).exists()
    (image / ".venv").symlink_to(site / ".venv")  # pip's environment in the image
    shutil.copy(site / "secret.key", image)  # mounted
    shutil.copy(site / "shop.env", image)  # --env-file
    with served(image, shlex.join(served_by)) as port:
        assert ask(port, "/", "shop.example.com").status == 200


# ---- timeouts -------------------------------------------------------------------------------


def pause(request: Any, session: Any, db: Any) -> dict[str, Any]:
    db.execute(sa.text("SELECT pg_sleep(20)"))
    return {}


def test_an_endless_statement_is_cancelled_and_the_next_request_works(
    tmp_path: Path, database: str
) -> None:
    admin = sa.create_engine(database, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    role = f"shop_{os.getpid()}"
    limits = code_block("sql", "statement_timeout", "scaling").replace("ROLE shop", f"ROLE {role}")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN SUPERUSER")
        try:
            for statement in limits.replace("'30s'", "'300ms'").strip().split("\n"):
                connection.exec_driver_sql(statement)
            url = sa.make_url(database).set(username=role).render_as_string(hide_password=False)
            app = counting_app(tmp_path, url, action("/pause", pause), action("/value", value))
            statuses = [answered(app, "POST", path) for path in ("/pause", "/value")]
            app.database.dispose()
        finally:
            connection.exec_driver_sql(f"DROP OWNED BY {role} CASCADE")
            connection.exec_driver_sql(f"DROP ROLE {role}")
    assert statuses == [500, 200]


# ---- batches and SQLite ---------------------------------------------------------------------

PRODUCTS = """\
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Product(Base):
    __tablename__ = "products"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    name: Mapped[str | None]
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project on SQLite with 2,500 products that have no name yet."""
    root = tmp_path / "shop"
    registry = "from noventa import Registry\n\nfrom models import products\n\n"
    files = {
        "config.yaml": "database: sqlite:///./shop.db\n",
        "registry.py": registry + "registry = Registry(models=[products])\n",
        "models/products.py": PRODUCTS,
        "fill_names.py": code_block("python", "SIZE = 1000", "scaling"),
        "backup.py": code_block("python", "VACUUM INTO"),
        "copy_rows.py": code_block("python", "sorted_tables", "scaling"),
    }
    write_project(root, files)
    make = ["migrate", "revision", "--autogenerate", "-m", "Products"]
    for words in (make, ["migrate"]):
        assert main(["--project", str(root), *words]) == 0
    with closing(sqlite3.connect(root / "shop.db")) as db, db:
        rows = [(number, f"title {number}") for number in range(1, 2501)]
        db.executemany("INSERT INTO products (id, title) VALUES (?, ?)", rows)
    return root


def test_names_are_filled_in_batches(shop: Path) -> None:
    assert main(["--project", str(shop), "run", str(shop / "fill_names.py")]) == 0
    with closing(sqlite3.connect(shop / "shop.db")) as db:
        unfilled = "SELECT count(*) FROM products WHERE name IS NOT title"
        assert db.execute(unfilled).fetchone() == (0,)


def python(root: Path, *words: str) -> str:
    return subprocess.run(
        [sys.executable, *words], cwd=root, env=environment(), check=True, timeout=120,
        capture_output=True, text=True,
    ).stdout  # fmt: skip


def test_a_backup_during_writes_is_consistent(shop: Path) -> None:
    stopped, written = threading.Event(), []

    def write() -> None:
        with closing(sqlite3.connect(shop / "shop.db", timeout=30)) as db:
            while not stopped.is_set():
                with db:  # two rows or none
                    for title in ("left", "right"):
                        db.execute("INSERT INTO products (title) VALUES (?)", [title])
                written.append(time.monotonic())

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_for(lambda: len(written) > 5)
        before = len(written)
        assert python(shop, "backup.py", "backup.db") == "ok\n"
        assert len(written) > before  # writers did not wait for the backup
    finally:
        stopped.set()
        writer.join()
    with closing(sqlite3.connect(shop / "backup.db")) as db:
        count = "SELECT count(*) FROM products WHERE title = ?"
        left, right = (db.execute(count, [title]).fetchone()[0] for title in ("left", "right"))
    assert left == right >= before


def test_rows_are_copied_to_postgresql_and_ids_continue(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_database("postgresql") as url:
        (shop / "config.yaml").write_text(f'database: "{url}"\n', "utf-8")
        assert main(["--project", str(shop), "migrate"]) == 0
        assert python(shop, "copy_rows.py", "sqlite:///./shop.db", url) == "products 2500\n"
        assert main(["--project", str(shop), "check"]) == 0
        with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
            insert = "INSERT INTO products (title) VALUES ('new') RETURNING id"
            assert connection.exec_driver_sql(insert).scalar() == 2501
