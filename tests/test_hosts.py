"""One project, unchanged, under every host, and other applications mounted in Noventa.

Each host is a real process on a free loopback port. Hosts that need more than a command have a
file in `tests/hosts`; the guide shows the same lines.
"""

import ast
import gc
import html
import http.client
import importlib.util
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlencode
from wsgiref.validate import validator

import pytest
from processes import KEY, ROOT, environment, free_port, wait_for, write_files
from sqlalchemy import text
from support import make_app, make_module
from webob import Request, Response

from noventa import Component, Endpoint, Mount, Page, Static, redirect

pytestmark = [pytest.mark.hosts, pytest.mark.slow]

HERE = Path(__file__).parent / "hosts"
GUIDE = ROOT / "templates" / "guide" / "deploying.md"
BIN = Path(sys.executable).parent
# Debian's path
MOD_WSGI = Path("/usr/lib/apache2/modules/mod_wsgi.so-{}.{}".format(*sys.version_info))
PATIENCE = 20  # seconds a server may take to start, stop or respond
COUNT = text("SELECT count(*) FROM guests")
INSERT_ADA = text("INSERT INTO guests VALUES (1, 'Ada')")

PROJECT = {
    "config.yaml": f'database: "sqlite:///./hosts.db"\nsecret_keys: ["{KEY}"]\n',
    "wsgi.py": """\
from pathlib import Path

from noventa import App, Config

from registry import registry

app = App(registry, Config.load(Path(__file__).parent))
application = app
""",
    "registry.py": """\
import endpoints
import guestbook_logic
import guestbook_models
from noventa import Component, Endpoint, Page, Registry, Static

registry = Registry(
    components=[
        Component("guestbook", "guestbook.html", logic=guestbook_logic, models=[guestbook_models])
    ],
    routes=[
        Page("/", "index.html"),
        Page("/guests/{name}/", "guest.html"),
        Endpoint("/api/guests.json", endpoints.guests),
        Endpoint("/old", endpoints.old),
        Endpoint("/stream", endpoints.stream),
        Endpoint("/slow", endpoints.slow),
        Static("/files", "files"),
    ],
)
""",
    "guestbook_models.py": """\
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Guest(Base):
    __tablename__ = "guests"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column()
""",
    "guestbook_logic.py": """\
from guestbook_models import Guest


def load_template_context(request, session, db):
    return {"guests": db.query(Guest).all(), "last": session.get("last")}


def action_sign(request, session, db):
    db.add(Guest(name=request.form["name"]))
    db.commit()
    session["last"] = request.form["name"]
    return {"_redirect": "/guests/" + request.form["name"] + "/"}
""",
    "endpoints.py": """\
import time
from pathlib import Path

from guestbook_models import Guest
from noventa import redirect
from sqlalchemy import event
from sqlalchemy.pool import Pool
from webob import Response

HERE = Path(__file__).parent


@event.listens_for(Pool, "close")
def write_down(connection, record):
    (HERE / "disconnected.txt").touch()


class Lines:
    def __init__(self, db, count):
        self.db, self.count = db, count

    def __iter__(self):
        for number in range(self.count):
            yield f"{number}: {self.db.query(Guest).count()} guests\\n".ljust(9_000).encode()
            time.sleep(0.01)

    def close(self):
        with (HERE / "closed.txt").open("a") as file:
            file.write("closed\\n")


def guests(request, session, db):
    return [guest.name for guest in db.query(Guest)]


def old(request, session, db):
    return redirect("/guests/Zoë/?from=old")


def stream(request, session, db):
    lines = Lines(db, request.args.get("count", 3, type=int))
    return Response(app_iter=lines, content_type="text/plain")


def slow(request, session, db):
    before = db.query(Guest).count()
    (HERE / "started.txt").touch()
    time.sleep(0.8)
    return {"before": before, "after": db.query(Guest).count()}
""",
    "guestbook.html": """\
<form method="post">{{ action("sign") }}<input name="name"><button>Sign</button></form>
<p id="last">{{ last or "nobody" }}</p>
{% for guest in guests %}<a href="{{ url("/guests/" ~ guest.name ~ "/") }}">{{ guest.name }}</a>
{% endfor %}
""",
    "index.html": """\
<link rel="stylesheet" href="{{ static("site.css") }}"><a id="home" href="{{ url("/") }}">Home</a>
{{ component("guestbook") }}
""",
    "guest.html": "<h1>{{ name }}</h1>\n",
    "files/site.css": "body { color: #111 }\n",
}


@dataclass(frozen=True)
class Host:
    """A server and its command, in which `PORT` is replaced.

    `needs` lists the modules from the extra `hosts` that the server imports.
    """

    name: str
    command: str
    prefix: str = ""
    needs: tuple[str, ...] = ()
    variables: dict = field(default_factory=dict)
    stop: int = signal.SIGTERM
    exit_handlers: bool = True


GUNICORN = "gunicorn --bind 127.0.0.1:PORT "
WAITRESS = "waitress-serve --listen=127.0.0.1:PORT "
SERVERS = [
    Host("waitress", "python serve_waitress.py PORT"),
    Host("gunicorn", GUNICORN + "--workers 2 wsgi:application"),
    Host("gunicorn-preload", GUNICORN + "--workers 2 --preload wsgi:application"),
    Host(
        "gthread",
        GUNICORN + "--worker-class gthread --threads 8 wsgi:application",
        "/m",
        variables={"SCRIPT_NAME": "/m"},
    ),
    Host(
        "gthread-preload",
        GUNICORN + "--worker-class gthread --threads 8 --preload wsgi:application",
    ),
    Host("gevent", GUNICORN + "--worker-class gevent wsgi:application", needs=("gevent",)),
    Host(
        "gevent-preload",
        GUNICORN + "--worker-class gevent --preload wsgi:application",
        needs=("gevent",),
    ),
    Host(
        "uwsgi",
        "uwsgi --http-socket 127.0.0.1:PORT --master --processes 2 --threads 4 --need-app"
        " --manage-script-name --mount /m=wsgi:application"
        " --hook-master-start 'unix_signal:15 gracefully_kill_them_all'",
        "/m",
    ),
    # SIGTERM makes Apache drop running requests; `apachectl graceful-stop` sends SIGWINCH.
    Host(
        "mod_wsgi",
        "apache2 -D FOREGROUND -f PROJECT/apache.conf",
        "/m",
        variables={"PYTHONPATH": ""},  # would be appended to the paths of apache.conf
        stop=signal.SIGWINCH,
    ),
    Host(
        "granian",
        "granian --interface wsgi --port PORT --blocking-threads 8 --url-path-prefix /m"
        " wsgi:application",
        "/m",
        needs=("granian",),
        exit_handlers=False,  # up to Python 3.12 its worker is forked by multiprocessing
    ),
    Host(
        "a2wsgi",
        "uvicorn --port PORT in_asgi:application",
        "/m",
        needs=("uvicorn", "a2wsgi", "starlette"),
    ),
]
STACKS = [
    Host("werkzeug", WAITRESS + "in_werkzeug:application", "/deep/down", needs=("werkzeug",)),
    Host("pyramid", WAITRESS + "in_pyramid:application", "/m", needs=("pyramid",)),
    Host("django", WAITRESS + "in_django:application", "/m", needs=("django",)),
    Host("paste", WAITRESS + "in_paste:application", "/m", needs=("paste", "paste.deploy")),
    Host("noventa", WAITRESS + "in_noventa:application", "/m"),
]


class Site:
    """A host running the project, and a client that keeps cookies and respects their paths."""

    def __init__(self, host, folder):
        self.host, self.folder, self.prefix = host, folder, host.prefix
        self.port, self.cookies = free_port(), {}
        words = host.command.replace("PORT", str(self.port)).replace("PROJECT", str(folder))
        program, *arguments = shlex.split(words)
        found = shutil.which(program, path=f"{BIN}:/usr/sbin:/usr/bin")
        missing = [name for name in host.needs if not importable(name)]
        if found is None or missing or (host.name == "mod_wsgi" and not MOD_WSGI.exists()):
            refuse = pytest.fail if os.environ.get("NOVENTA_HOSTS") == "all" else pytest.skip
            refuse(f"{host.name}: {' '.join(missing) or program} is not installed for this Python")
        variables = {
            "LISTEN_PORT": str(self.port),
            "PROJECT": str(folder),
            "PACKAGES": f"{ROOT}:{Path(pytest.__file__).parents[1]}",
            **host.variables,
        }
        self.log = (folder / "server.log").open("wb")
        self.process = subprocess.Popen(
            [found, *arguments], cwd=folder, stdout=self.log, stderr=self.log,
            env=environment(**variables), start_new_session=True,
        )  # fmt: skip
        try:
            wait_for(self.is_up)
        except BaseException:
            self.end()
            print(self.logged())
            raise

    def is_up(self):
        if self.process.poll() is not None:
            raise AssertionError(self.logged())
        try:
            return self.get("/").status < 500
        except (ConnectionError, http.client.BadStatusLine):
            return False

    def logged(self):
        """Return everything the server logged."""
        logs = [self.folder / "server.log", self.folder / "error.log"]
        return "".join(log.read_text("utf-8", "replace") for log in logs if log.exists())

    def connect(self, method, path, body=None, headers=()):
        """Return a connection and a response with an unread body. `path` includes the prefix."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        sent = [
            f"{name}={value}"
            for name, (value, scope) in self.cookies.items()
            if path == scope or path.startswith(scope.rstrip("/") + "/")
        ]
        cookies = {"Cookie": "; ".join(sent)} if sent else {}
        connection.request(method, path, body, cookies | dict(headers))
        return connection, connection.getresponse()

    def request(self, method, path, body=None, headers=()):
        """Send a request and return the response, with its body as `text`."""
        connection, response = self.connect(method, path, body, headers)
        with closing(connection):
            response.text = response.read().decode("utf-8")
        for cookie in response.headers.get_all("Set-Cookie", ()):
            name, value = cookie.split(";")[0].split("=", 1)
            self.cookies[name] = value, re.search(r"(?i);\s*path=([^;]*)", cookie)[1]
        return response

    def get(self, path, headers=()):
        """Send a GET request for a path below the prefix."""
        return self.request("GET", self.prefix + path, headers=headers)

    def post_form(self, page, at, **fields):
        """Post the form of `page` to `at`."""
        fields |= dict(re.findall(r'name="(_ticket)" value="([^"]*)"', page.text))
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Sec-Fetch-Site": "same-origin",
        }
        return self.request("POST", at, urlencode(fields), headers)

    def location(self, response):
        """Return the path of a redirect. Only Pyramid turns it into a complete URL."""
        host = f"http://127.0.0.1:{self.port}" if self.host.name == "pyramid" else ""
        return response.headers["Location"].removeprefix(host)

    def rows(self):
        """Read the names from the database, in this process."""
        with closing(sqlite3.connect(self.folder / "hosts.db")) as database:
            return [name for (name,) in database.execute("SELECT name FROM guests ORDER BY id")]

    def closed(self):
        """Return the number of streamed bodies that were closed."""
        file = self.folder / "closed.txt"
        return file.read_text().count("closed") if file.exists() else 0

    def end(self):
        """Stop the server with its stop signal and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(self.host.stop)
        try:
            return self.process.wait(PATIENCE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # leftover workers
            self.log.close()


def importable(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False


def write_site(folder):
    """Write the project and the files of all hosts, and create its table with one row."""
    write_files(folder, PROJECT)
    shutil.copytree(HERE, folder, dirs_exist_ok=True)
    with closing(sqlite3.connect(folder / "hosts.db")) as database:
        database.execute("CREATE TABLE guests (id INTEGER PRIMARY KEY, name VARCHAR NOT NULL)")
        database.execute("INSERT INTO guests (name) VALUES ('Zoë')")
        database.commit()
    return folder


@pytest.fixture(scope="module")
def sites():
    """A function that returns a running site for a host; only one host runs at a time."""
    running, folders, broken = [], [], set()

    def site(host):
        assert host.name not in broken, "the host failed to start in an earlier test"
        if running and (running[0].host != host or running[0].process.poll() is not None):
            running.pop().end()
        if not running:
            # Apache runs as another user, who cannot enter tmp_path.
            folder = Path(tempfile.mkdtemp(prefix="noventa-hosts-"))
            folders.append(folder)
            write_site(folder)
            if os.getuid() == 0 and host.name == "mod_wsgi":
                folder.chmod(0o755)
                for path in [folder, *folder.rglob("*")]:
                    shutil.chown(path, "www-data", "www-data")
            try:
                running.append(Site(host, folder))
            except Exception:
                broken.add(host.name)  # so later tests fail at once
                raise
        running[0].cookies.clear()
        return running[0]

    yield site
    for site_left in running:
        site_left.end()
    for folder in folders:
        shutil.rmtree(folder)


@pytest.fixture(scope="module", params=[*SERVERS, *STACKS], ids=lambda host: host.name)
def host(request):
    return request.param


@pytest.fixture
def site(host, sites):
    return sites(host)


def test_links_on_a_page_include_the_prefix(site):
    page = site.get("/")
    assert page.status == 200, site.logged()
    link = f"{site.prefix}/guests/{quote('Zoë')}/"
    assert f'href="{link}"' in page.text
    assert site.request("GET", link).text == "<h1>Zoë</h1>"


def test_a_posted_form_commits_and_redirects_below_the_prefix(site):
    response = site.post_form(site.get("/"), f"{site.prefix}/", name="Ada")
    assert response.status == 303, site.logged()
    assert site.location(response) == f"{site.prefix}/guests/Ada/"
    assert site.rows()[-1] == "Ada"


def test_the_session_cookie_is_limited_to_the_prefix(site):
    page = site.get("/")
    assert '<p id="last">nobody' in page.text
    site.post_form(page, f"{site.prefix}/", name="Grace")
    assert site.cookies["noventa_session"][1] == (site.prefix or "/")
    assert '<p id="last">Grace' in site.get("/").text


def test_redirects_stay_below_the_prefix(site):
    response = site.get("/old")
    assert response.status == 303
    assert site.location(response) == f"{site.prefix}/guests/Zo%C3%AB/?from=old"
    response = site.get("/guests/Ada?a=1")
    assert response.status == 308
    assert site.location(response) == f"{site.prefix}/guests/Ada/?a=1"


def test_the_bare_prefix_serves_the_home_page_with_a_working_form(site):
    page = site.request("GET", site.prefix or "/")
    if page.status == 307:  # the ASGI router redirects
        assert page.headers["Location"].endswith(f"{site.prefix}/")
        return
    for at in (site.prefix or "/", f"{site.prefix}/"):
        assert site.post_form(page, at, name="Kay").status == 303, at


def test_static_files_support_ranges_and_conditional_requests(site):
    path = re.search(r'stylesheet" href="([^"]*)"', site.get("/").text)[1]
    assert path.startswith(f"{site.prefix}/files/site.css?v=")
    full = site.request("GET", path)
    assert (full.status, full.text) == (200, PROJECT["files/site.css"])
    assert full.headers["Content-Type"].startswith("text/css")
    part = site.request("GET", path, headers={"Range": "bytes=0-3"})
    assert (part.status, part.text) == (206, "body")
    again = site.request("GET", path, headers={"If-None-Match": full.headers["ETag"]})
    assert (again.status, again.text) == (304, "")
    head = site.request("HEAD", path)
    assert (head.headers["Content-Length"], head.text) == (str(len(full.text)), "")


def test_a_streamed_body_can_read_the_database_and_is_closed(site):
    before, guests = site.closed(), len(site.rows())
    response = site.get("/stream?count=4")
    assert [line.strip() for line in response.text.split("guests")[:-1]] == [
        f"{number}: {guests}" for number in range(4)
    ]
    wait_for(lambda: site.closed() == before + 1)


def test_a_streamed_body_is_closed_if_the_client_disconnects(site):
    before = site.closed()
    connection, response = site.connect("GET", f"{site.prefix}/stream?count=300")
    response.read(1_000)
    response.close()
    connection.close()
    wait_for(lambda: site.closed() == before + 1)


@pytest.mark.parametrize("host", SERVERS, indirect=True, ids=lambda host: host.name)
def test_stopping_finishes_running_requests_and_closes_the_database(site):
    (site.folder / "started.txt").unlink(missing_ok=True)
    with ThreadPoolExecutor() as pool:
        under_way = pool.submit(site.get, "/slow")
        wait_for((site.folder / "started.txt").exists)
        (site.folder / "disconnected.txt").unlink(missing_ok=True)
        code = site.end()
        response = under_way.result()
    assert response.status == 200
    assert '"after"' in response.text
    assert code in (0, -site.host.stop), site.logged()
    if site.host.exit_handlers:
        assert (site.folder / "disconnected.txt").exists()


GUESTS = Host(
    "guests", WAITRESS + "with_guests:application", "/m", needs=("werkzeug", "flask", "django")
)


@pytest.mark.parametrize("guest", ["flask", "django"])
def test_a_mounted_guests_links_forms_files_and_session_work(guest, sites):
    site = sites(GUESTS)
    at = f"/{guest}/"
    assert site.get(at).text == f"/m/{guest}/sign/ None"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = site.request("POST", f"/m{at}sign/", "name=Ada", headers)
    assert (response.status, response.headers["Location"]) == (302, f"/m/{guest}/")
    assert site.get(at).text == f"/m/{guest}/sign/ Ada"
    assert site.get(f"{at}file/").text == PROJECT["files/site.css"]
    assert site.get(f"{at}nowhere/").status == 404


@pytest.mark.parametrize("guest", ["flask", "django"])
def test_a_guests_streamed_body_is_closed(guest, sites):
    site = sites(GUESTS)
    (site.folder / "closed.txt").unlink(missing_ok=True)
    assert site.get(f"/{guest}/stream/").text == "line 0\nline 1\nline 2\n"
    wait_for((site.folder / "closed.txt").exists)


def test_an_application_leaves_the_global_state_of_its_process_alone(tmp_path):
    write_site(tmp_path)
    command = [sys.executable, "untouched.py"]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    assert ended.stderr.splitlines()[0] == "200 OK"


def imported_by(file):
    """Yield the packages that a file of tests/hosts imports, directly or through its siblings."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in [node.module] if isinstance(node, ast.ImportFrom) else names:
            sibling = HERE / f"{name}.py"
            yield from imported_by(sibling) if sibling.exists() else [name.partition(".")[0]]


@pytest.mark.parametrize(
    "host", [*SERVERS, *STACKS, GUESTS], indirect=True, ids=lambda host: host.name
)
def test_a_host_lists_every_package_that_its_file_imports(host):
    file = re.search(r"(\w+):application", host.command)
    imported = {*imported_by(HERE / f"{file[1]}.py")} if file and file[1] != "wsgi" else set()
    provided = {"noventa", "webob", "wsgi", *sys.stdlib_module_names}
    assert imported - provided <= {name.partition(".")[0] for name in host.needs}


FIRST_LINES = {  # file: start of the part that the guide shows
    "serve_waitress.py": "import signal",
    "apache.conf": "WSGIDaemonProcess",
    "in_werkzeug.py": "from werkzeug",
    "in_pyramid.py": "from pyramid",
    "in_django.py": "from django",
    "in_paste.ini": "[composite",
    "make_noventa.py": "def from_wsgi",
    "in_asgi.py": "from contextlib",
}


@pytest.mark.parametrize("name", FIRST_LINES)
def test_the_guide_shows_the_tested_files(name):
    lines = (HERE / name).read_text("utf-8")
    assert lines[lines.index(FIRST_LINES[name]) :].strip() in GUIDE.read_text("utf-8")


@pytest.mark.parametrize("host", SERVERS, ids=lambda host: host.name)
def test_the_guide_shows_the_tested_command(host):
    command = host.command.replace("PORT", "8000").replace(" --preload", "")
    if not command.startswith(("python", "apache2")):  # the guide shows these as files
        assert f"`{command}`" in GUIDE.read_text("utf-8")


# ---- WSGI calls, without a server ------------------------------------------------------------


def echo_path(environ, start_response):
    """A WSGI application that returns its prefix and path."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['SCRIPT_NAME']} {environ['PATH_INFO']}".encode("latin-1")]


def linking_app(tmp_path):
    def home(request, session, db):
        session["seen"] = True
        return redirect("/next")

    return make_app(
        tmp_path, {"page.html": "{{ url('/next') }}"},
        routes=[Page("/", "page.html"), Page("/next", "page.html"), Endpoint("/home", home)],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("script_name", "prefix"),
    [
        ("", ""), ("/", ""), ("/m", "/m"), ("/m/", "/m"), ("/a/b", "/a/b"), ("m", "/m"),
        ("//elsewhere.example", "/elsewhere.example"), ("/m\xc3\xbc", "/m%C3%BC"),
        ("/a b", "/a%20b"), ("/~ada@home", "/~ada@home"), ('/a";b', "/a%22%3Bb"),
    ],
)  # fmt: skip
def test_links_redirects_and_cookies_agree_on_the_prefix(script_name, prefix, tmp_path):
    app = linking_app(tmp_path)
    page = Request.blank("/", environ={"SCRIPT_NAME": script_name}).get_response(app)
    assert html.unescape(page.text) == f"{prefix}/next"
    response = Request.blank("/home", environ={"SCRIPT_NAME": script_name}).get_response(app)
    assert dict(response.headerlist)["Location"] == f"{prefix}/next"
    assert f"; Path={prefix or '/'};" in response.headers["Set-Cookie"]


@pytest.mark.parametrize("missing", ["SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"])
def test_a_host_may_omit_empty_environ_keys(missing, tmp_path):
    request = Request.blank("/")
    del request.environ[missing]
    assert request.get_response(linking_app(tmp_path)).status_int == 200


@pytest.mark.parametrize("path", ["x/home", "home", "*"])
def test_a_path_without_a_leading_slash_is_rejected(path, tmp_path):
    request = Request.blank("/", environ={"PATH_INFO": path})
    assert request.get_response(linking_app(tmp_path)).status_int == 400


@pytest.mark.parametrize(
    ("path", "called"),
    [
        ("/old", "/m/old "), ("/old/", "/m/old /"), ("/old/a/b", "/m/old /a/b"),
        ("/old//a/", "/m/old //a/"), ("/old/Zo%C3%AB", "/m/old /Zoë"),
        ("/by/Zo%C3%AB/x", "/m/by/Zoë /x"), ("/older", None), ("/ol", None),
    ],
)  # fmt: skip
def test_a_guest_receives_its_own_prefix_and_path(path, called, tmp_path):
    app = make_app(tmp_path, routes=[Mount("/old", echo_path), Mount("/by/{name}", echo_path)])
    response = Request.blank(path, environ={"SCRIPT_NAME": "/m"}).get_response(app)
    assert (response.text if response.status_int == 200 else None) == called


def test_a_guests_request_and_response_pass_through_unchanged(tmp_path):
    def guest(environ, start_response):
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        headers = [("Location", "/elsewhere"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
        start_response("299 So So", [*headers, ("Content-Length", str(len(body)))])
        return [environ["REQUEST_METHOD"].encode(), body]

    app = make_app(tmp_path, config={"limits": {"body": 10}}, routes=[Mount("/g", guest)])
    request = Request.blank("/g", method="PROPFIND", body=b"x" * 1000)
    status, headers, body = request.call_application(app)
    assert (status, b"".join(body)) == ("299 So So", b"PROPFIND" + b"x" * 1000)
    kept = [("Location", "/elsewhere"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    assert headers == [*kept, ("Content-Length", "1000")]


def test_a_guest_can_replace_its_response_until_the_body_starts(tmp_path):
    def guest(environ, start_response):
        start_response("200 OK", [])
        try:
            raise ValueError
        except ValueError:
            start_response("500 Its Own Page", [], sys.exc_info())
        return [b"sorry"]

    app = make_app(tmp_path, routes=[Mount("/g", guest)])
    response = Request.blank("/g").get_response(app)
    assert (response.status, response.body) == ("500 Its Own Page", b"sorry")


def test_a_failing_guest_returns_500_and_the_next_request_works(tmp_path):
    app = make_app(tmp_path, {"p.html": "fine"}, routes=[Mount("/g", {}.get), Page("/", "p.html")])
    assert Request.blank("/g").get_response(app).status_int == 500
    assert Request.blank("/").get_response(app).text == "fine"


class Body:
    """A body that counts calls of close() and can fail halfway."""

    def __init__(self, breaks=False):
        self.closed, self.breaks = 0, breaks

    def __iter__(self):
        yield b"one"
        if self.breaks:
            raise ValueError("as the test wants")
        yield b"two"

    def close(self):
        self.closed += 1


def serve_body(tmp_path, body, mounted):
    def guest(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return body

    def endpoint(request, session, db):
        return Response(app_iter=body)

    route = Mount("/", guest) if mounted else Endpoint("/", endpoint)
    return validator(make_app(tmp_path, routes=[route]))


@pytest.mark.parametrize("mounted", [True, False])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_body_is_closed_once_for_get_and_head(method, mounted, tmp_path):
    body = Body()
    response = serve_body(tmp_path, body, mounted)(blank(method), lambda *_: None)
    assert b"".join(response) == (b"onetwo" if method == "GET" else b"")
    response.close()
    response.close()
    assert body.closed == 1


@pytest.mark.parametrize("mounted", [True, False])
def test_an_error_in_a_body_is_raised_in_the_host_and_the_body_is_closed(mounted, tmp_path):
    body = Body(breaks=True)
    response = serve_body(tmp_path, body, mounted)(blank("GET"), lambda *_: None)
    with pytest.raises(ValueError, match="as the test wants"):
        list(response)
    response.close()
    assert body.closed == 1


@pytest.mark.parametrize("mounted", [True, False])
def test_a_body_is_closed_if_start_response_fails(mounted, tmp_path):
    def start_response(*_):
        raise ConnectionResetError

    body = Body()
    with pytest.raises(ConnectionResetError):
        serve_body(tmp_path, body, mounted)(blank("GET"), start_response)
    assert body.closed == 1


def test_an_abandoned_body_is_closed_when_garbage_collected(tmp_path):
    body = Body()

    def endpoint(request, session, db):
        return Response(app_iter=body)

    app = make_app(tmp_path, routes=[Endpoint("/", endpoint)])
    Request.blank("/").call_application(app)
    gc.collect()
    assert body.closed == 1


def guestbook(root, key, *routes):
    """Create the project's guestbook as an application in this process."""
    models = make_module("guestbook_models", PROJECT["guestbook_models.py"])
    logic = make_module("guestbook_logic", PROJECT["guestbook_logic.py"])
    return make_app(
        root, PROJECT, {"secret_keys": [f"the key of application {key}, for tests"]},
        components=[Component("guestbook", "guestbook.html", logic=logic, models=[models])],
        routes=[Page("/", "index.html"), Static("/files", "files"), *routes],
    )  # fmt: skip


def sign(app, page, name, **headers):
    fields = {"_ticket": re.search(r'name="_ticket" value="([^"]*)"', page.text)[1], "name": name}
    request = Request.blank("/", POST=fields, headers=headers)
    return request.get_response(app)


def test_two_applications_in_one_process_share_no_rows_sessions_or_tickets(tmp_path):
    first, second = guestbook(tmp_path / "a", "a"), guestbook(tmp_path / "b", "b")
    page = Request.blank("/").get_response(first)
    cookie = {"Cookie": page.headers["Set-Cookie"].split(";")[0]}
    signed = sign(first, page, "Ada", **cookie)
    assert signed.status_int == 303
    assert sign(second, page, "Ada", **cookie).status_int == 403
    cookie = {"Cookie": signed.headers["Set-Cookie"].split(";")[0]}
    pages = [Request.blank("/", headers=cookie).get_response(app).text for app in (first, second)]
    assert ["Ada" in text for text in pages] == [True, False]
    assert ["nobody" in text for text in pages] == [False, True]


def test_an_application_can_call_another_inside_a_transaction(tmp_path):
    def outer(request, session, db):
        db.execute(INSERT_ADA)
        inner = Request.blank("/inner").get_response(second).json
        db.commit()
        return {**inner, "after": db.execute(COUNT).scalar()}

    def inner(request, session, db):
        seen = first.database.scoped.execute(COUNT).scalar()
        return {"own": db.execute(COUNT).scalar(), "seen": seen}

    first = guestbook(tmp_path / "a", "a", Endpoint("/outer", outer))
    second = guestbook(tmp_path / "b", "b", Endpoint("/inner", inner))
    response = Request.blank("/outer").get_response(first)
    assert response.json == {"own": 0, "seen": 1, "after": 1}
    assert [app.database.engine.pool.checkedout() for app in (first, second)] == [0, 0]


def test_interleaved_streams_of_two_applications_read_their_own_databases(tmp_path):
    def stream(request, session, db):
        return Response(app_iter=(str(db.execute(COUNT).scalar()).encode() for _ in range(2)))

    first, second = (guestbook(tmp_path / key, key, Endpoint("/s", stream)) for key in "ab")
    with first.database.session() as db:
        db.execute(INSERT_ADA)
        db.commit()
    bodies = [Request.blank("/s").get_response(app).app_iter for app in (first, second)]
    assert [next(body) for body in bodies * 2] == [b"1", b"0", b"1", b"0"]
    for body in bodies:
        body.close()


def blank(method):
    return Request.blank("/", method=method).environ
