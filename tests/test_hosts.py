"""One project, unchanged, under every host; and other applications below ours.

Each host is a real process on a free loopback port. `tests/hosts` holds what is to be written
for those that need more than a command; the README shows the same lines.
"""

import html
import http.client
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

import pytest

from processes import KEY, ROOT, environment, write_files

pytestmark = pytest.mark.hosts

HERE = Path(__file__).parent / "hosts"
BIN = Path(sys.executable).parent
PATIENCE = 20  # seconds for a server to start, to stop, or to notice

PROJECT = {
    "config.yaml": f'database: "sqlite:///./hosts.db"\nsecret_keys: ["{KEY}"]\n',
    "wsgi.py": """\
from pathlib import Path

from noventa import App, Config

from registry import registry

application = App(registry, Config.load(Path(__file__).parent))
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
from webob import Response

HERE = Path(__file__).parent


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
    """A server with its command, in which `PORT` stands for the port."""

    name: str
    command: str
    prefix: str = ""
    variables: dict = field(default_factory=dict)
    stop: int = signal.SIGTERM


GUNICORN = "gunicorn --bind 127.0.0.1:PORT "
WAITRESS = "waitress-serve --listen=127.0.0.1:PORT "
SERVERS = [
    Host("waitress", "python serve_waitress.py PORT"),
    Host("gunicorn", GUNICORN + "--workers 2 wsgi:application"),
    Host("gunicorn-preload", GUNICORN + "--workers 2 --preload wsgi:application"),
    Host(
        "gthread", GUNICORN + "--worker-class gthread --threads 8 wsgi:application",
        "/m", {"SCRIPT_NAME": "/m"},
    ),
    Host(
        "gthread-preload",
        GUNICORN + "--worker-class gthread --threads 8 --preload wsgi:application",
    ),
    Host("gevent", GUNICORN + "--worker-class gevent wsgi:application"),
    Host("gevent-preload", GUNICORN + "--worker-class gevent --preload wsgi:application"),
    Host(
        "uwsgi",
        "uwsgi --http-socket 127.0.0.1:PORT --master --processes 2 --threads 4 --need-app"
        " --manage-script-name --mount /m=wsgi:application"
        " --hook-master-start 'unix_signal:15 gracefully_kill_them_all'",
        "/m",
    ),
    Host("mod_wsgi", "apache2 -D FOREGROUND -f PROJECT/apache.conf", "/m", stop=signal.SIGWINCH),
    Host(
        "granian",
        "granian --interface wsgi --port PORT --blocking-threads 8 --url-path-prefix /m"
        " wsgi:application",
        "/m",
    ),
    Host("a2wsgi", "uvicorn --port PORT in_asgi:application", "/m"),
]  # fmt: skip
STACKS = [
    Host("werkzeug", WAITRESS + "in_werkzeug:application", "/deep/down"),
    Host("pyramid", WAITRESS + "in_pyramid:application", "/m"),
    Host("django", WAITRESS + "in_django:application", "/m"),
    Host("paste", WAITRESS + "in_paste:application", "/m"),
    Host("noventa", WAITRESS + "in_noventa:application", "/m"),
]


class Running:
    """A host that runs the project; and a browser, which keeps cookies and minds their path."""

    def __init__(self, host, folder):
        self.host, self.folder, self.prefix = host, folder, host.prefix
        self.port, self.cookies = free_port(), {}
        self.log = (folder / "server.log").open("wb")
        replaced = host.command.replace("PORT", str(self.port)).replace("PROJECT", str(folder))
        program, *arguments = split_command(replaced)
        found = shutil.which(program, path=f"{BIN}{os.pathsep}/usr/sbin{os.pathsep}/usr/bin")
        if found is None:
            pytest.skip(f"{program} is not installed")
        self.process = subprocess.Popen(
            [found, *arguments], cwd=folder, stdout=self.log, stderr=self.log,
            env=environment(**host.variables, PYTHONDONTWRITEBYTECODE="1"),
        )
        wait_for(self.answers, self)

    def answers(self):
        assert self.process.poll() is None, self.logged()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def logged(self):
        return (self.folder / "server.log").read_text("utf-8", "replace")

    def connect(self, method, path, body=None, headers=()):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        sent = [f"{name}={value}" for name, (value, scope) in self.cookies.items()
                if path == scope or path.startswith(scope.rstrip("/") + "/")]
        connection.request(method, path, body, {"Cookie": "; ".join(sent), **dict(headers)})
        return connection, connection.getresponse()

    def request(self, method, path, body=None, headers=()):
        """The answer, read to its end, with `text`. `path` is whole, with the prefix."""
        connection, answer = self.connect(method, path, body, headers)
        with connection_closed(connection):
            answer.text = answer.read().decode("utf-8")
        for cookie in answer.headers.get_all("Set-Cookie", ()):
            name, value = cookie.split(";")[0].split("=", 1)
            self.cookies[name] = value, re.search(r"(?i);\s*path=([^;]*)", cookie)[1]
        return answer

    def get(self, path, **headers):
        return self.request("GET", self.prefix + path, headers=headers.items())

    def post_form(self, page, at, **fields):
        """Posts the first form of `page`, which was shown at the path `at`, back to it."""
        fields |= dict(re.findall(r'name="(_ticket)" value="([^"]*)"', page.text))
        kind = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
        return self.request("POST", at, urlencode(fields), kind)

    def rows(self):
        with sqlite3.connect(self.folder / "hosts.db") as database:
            return [name for (name,) in database.execute("SELECT name FROM guests")]

    def closed(self):
        file = self.folder / "closed.txt"
        return file.read_text().count("closed") if file.exists() else 0

    def end(self):
        """Stops the server by the signal that is its own; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(self.host.stop)
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.log.close()


APACHE = """\
ServerRoot "{folder}"
ServerName localhost
Listen 127.0.0.1:{port}
PidFile "{folder}/apache.pid"
ErrorLog "{folder}/error.log"
{user}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule wsgi_module {modules}/mod_wsgi.so
WSGISocketPrefix "{folder}/wsgi"
WSGIDaemonProcess hello processes=2 threads=4 python-path={folder}:{packages}
WSGIProcessGroup hello
WSGIApplicationGroup %{{GLOBAL}}
WSGIScriptAlias /m "{folder}/wsgi.py"
<Directory "{folder}">
    Require all granted
</Directory>
"""
