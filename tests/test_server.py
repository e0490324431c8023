"""The server: what it says, what it answers, and how it stops."""

import base64
import hashlib
import io
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from processes import (
    PROJECT,
    environment,
    free_port,
    listens,
    noventa,
    serving,
    stop,
    terminal,
    wait_for,
    write_files,
    write_project,
)

import noventa_cli
from noventa import read_result
from noventa_cli import chapters, main

pytestmark = pytest.mark.slow

SLOW = """\
import time
from pathlib import Path

from noventa import Endpoint, Registry


def slow(request, session, db):
    Path("begun").touch()
    time.sleep(1.5)
    return {"answered": True}


def pid(request, session, db):
    import os

    return {"pid": os.getpid()}


registry = Registry(routes=[Endpoint("/slow", slow), Endpoint("/pid", pid)])
"""


def get(url):
    with urlopen(url, timeout=10) as response:
        return response.read().decode()


@contextmanager
def client(port, talk):
    """Runs `talk(url)` beside a server that is started in this process, then stops the server."""
    results = []

    def run():
        try:
            wait_for(lambda: listens(port))
            results.append(talk(f"http://127.0.0.1:{port}"))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=run)
    thread.start()
    yield results
    thread.join()


# ---- in this process ------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def environment_is_restored(monkeypatch):
    monkeypatch.setenv("NOVENTA_DEBUG", "0")


def serve(root, talk, *arguments):
    port = free_port()
    with client(port, talk) as results:
        assert main(["--project", str(root), "serve", "--port", str(port), *arguments]) == 0
    return results[0]


def test_it_serves_what_wsgi_py_calls_application(tmp_path, capsys):
    assert "<h1>Hello</h1>" in serve(write_project(tmp_path), get)
    out = capsys.readouterr().out
    assert f"Serving {tmp_path.name} at http://127.0.0.1:" in out
    assert "Map" not in out


def test_each_request_is_one_log_line_that_a_path_cannot_split(tmp_path, caplog):
    caplog.set_level(logging.INFO)

    def talk(url):
        with pytest.raises(HTTPError, match="404"):
            get(f"{url}/a%0Ab%1B[2J%C3%A9?secret=1")

    serve(write_project(tmp_path), talk)
    line = next(r.getMessage() for r in caplog.records if r.name == "noventa.access")
    assert line.startswith("404 GET /a%0Ab%1B%5B2J%C3%A9 ")
    assert line.endswith(" ms")


def test_control_characters_of_any_log_line_are_escaped():
    record = logging.makeLogRecord({"msg": "serving %s", "args": ("/a\nb\x1b[2J\u2028é",)})
    shown = noventa_cli._LogFormatter(io.StringIO(), None).format(record)
    assert shown.endswith("  serving /a\\nb\\x1b[2J\\u2028é")


def test_debug_is_switched_on_by_an_option(tmp_path, capsys):
    def talk(url):
        with pytest.raises(HTTPError, match="500") as caught:
            get(url)
        return caught.value.read().decode()

    root = write_project(tmp_path, {"pages/index.html": "{{ 1 / 0 }}"})
    assert "ZeroDivisionError" in serve(root, talk, "--debug")
    assert re.search(r"Map: http://127.0.0.1:\d+/_noventa/\n", capsys.readouterr().out)


@pytest.mark.parametrize("header", ["Host: evil.example", "X-Forwarded-For: 192.0.2.1"])
def test_debug_is_served_to_no_foreign_host_and_no_proxy(tmp_path, header):
    def talk(url):
        asked = Request(url, headers=dict([header.split(": ")]))
        with pytest.raises(HTTPError, match="403") as caught:
            urlopen(asked, timeout=10)
        return caught.value.read().decode()

    root = write_project(tmp_path, {"pages/index.html": "{{ 1 / 0 }}"})
    assert "Open http://localhost" in serve(root, talk, "--debug")


def sent_to(url, *pieces, pause=0.0):
    """What a server answers to these bytes, until it closes the connection."""
    with closing(socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))) as client:
        client.settimeout(20)
        with suppress(ConnectionError):  # it has closed before all was sent
            for piece in pieces:
                client.sendall(piece)
                time.sleep(pause)
        received = b""
        with suppress(ConnectionError):
            while data := client.recv(65_536):
                received += data
    return received


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\nConnection: close\r\n\r\n", b"400"),
        (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.0\r\n\r\n", b"200"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"200"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 2**16 + b"\r\n\r\n", b"431"),
    ],
)
def test_a_request_names_its_host_once_and_has_headers_of_64_kilobytes_at_most(
    request_, status, tmp_path
):
    answer = serve(write_project(tmp_path), lambda url: sent_to(url, request_))
    assert answer.split(b" ")[1] == status


@pytest.mark.parametrize("start", [CHUNKED + b"1;", CHUNKED + b"0\r\nx: "])
def test_a_line_between_chunks_that_does_not_end_is_refused_at_once(start, tmp_path):
    def talk(url):
        began = time.process_time()
        answer = sent_to(url, start, *[b"x" * 8_000] * 1_000)
        return answer, time.process_time() - began

    answer, spent = serve(write_project(tmp_path), talk)
    assert b" 400 " in answer or answer == b""  # the client still sent
    assert spent < 1


def test_blank_lines_do_not_keep_a_connection(tmp_path, monkeypatch):
    limits = {**noventa_cli._LIMITS, "channel_timeout": 1, "cleanup_interval": 1}
    monkeypatch.setattr(noventa_cli, "_LIMITS", limits)

    def talk(url):
        began = time.monotonic()
        sent_to(url, *[b"\r\n"] * 40, pause=0.2)
        return time.monotonic() - began

    assert serve(write_project(tmp_path), talk) < 6  # all lines take 8 seconds


NGINX = """\
daemon off;
pid {root}/nginx.pid;
error_log stderr;
events {{ worker_connections 300; }}
http {{
    access_log off;
    client_header_timeout 5s;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    server {{
        listen 127.0.0.1:{port};
        {location}
    }}
}}
"""


@contextmanager
def behind_nginx(root, url):
    """The URL of an nginx before the server, by the lines of the guide."""
    if (program := shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")) is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no nginx here")
    text = chapters()["deploying"].text
    location = re.search(r"```nginx no-run\n(.*?)```", text, re.DOTALL)[1]
    location = location.replace("http://127.0.0.1:8000", url)
    port = free_port()
    config = root / "nginx.conf"
    config.write_text(NGINX.format(root=root, port=port, location=location))
    process = subprocess.Popen([program, "-c", config, "-e", "stderr"], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: listens(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def test_behind_nginx_slow_clients_keep_nobody_out(tmp_path):
    registry = """\
from noventa import Page, Registry, Static
registry = Registry(routes=[Page("/", "pages/index.html"), Static("/files", "files")])
"""
    write_project(tmp_path, {"registry.py": registry, "files/large": ""})
    with (tmp_path / "files" / "large").open("wb") as file:
        file.truncate(40_000_000)
    slow = b"GET /files/large HTTP/1.0\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX: "

    def talk(url):
        with behind_nginx(tmp_path, url) as proxy, ExitStack() as opened:
            port = int(proxy.rpartition(":")[2])
            for number in range(60):
                client = opened.enter_context(socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
                client.connect(("127.0.0.1", port))
                client.sendall(slow[number % 2])
            time.sleep(1)
            return [get(proxy) for _ in range(5)]

    assert all("Hello" in page for page in serve(tmp_path, talk, "--threads", "2"))


def test_what_is_under_way_when_the_signal_comes_is_answered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    received = []

    def talk(url):
        threading.Thread(target=lambda: received.append(get(f"{url}/slow"))).start()
        wait_for(Path("begun").exists)

    serve(write_project(tmp_path, {"registry.py": SLOW}), talk)
    assert json.loads(wait_for(lambda: received)[0]) == {"answered": True}


def test_a_name_with_several_addresses_is_served_on_each(tmp_path, capsys):
    assert "Hello" in serve(write_project(tmp_path), get, "--host", "localhost")
    assert "http://localhost:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0", "--debug"], "on this machine only, not on '0.0.0.0'; use --host"),
        (["--host", "example.test", "--debug"], "not on 'example.test'; use --host 127.0.0.1"),
        (["--host", "no such host"], "Cannot listen on no such host, port 8000: no such address"),
        (["--host", "192.0.2.1"], "Cannot listen on 192.0.2.1, port 8000: "),
        (["--port", "70000"], "Cannot listen on 127.0.0.1, port 70000: no such address"),
    ],
)
def test_an_address_that_will_not_do_is_one_message(arguments, message, tmp_path, capsys):
    assert main(["--project", str(write_project(tmp_path)), "serve", *arguments]) == 1
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert "Serving" not in out


def test_a_port_that_is_taken_is_one_message(tmp_path, capsys):
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = str(other.getsockname()[1])
        assert main(["--project", str(write_project(tmp_path)), "serve", "--port", port]) == 1
    assert f"port {port}: it is in use; stop the program that uses it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"wsgi.py": "app = None"}, "wsgi.py defines no `application`; write application = app."),
        ({"wsgi.py": "import wgsi"}, "wsgi.py cannot be imported: wsgi.py:1: ModuleNotFound"),
        ({"pages/index.html": "{% if %}"}, "The registry has 1 problem:\n  pages/index.html:1: "),
        ({"config.yaml": "server: {port: high}"}, "server.port is 'high'; expected a whole"),
    ],
)
def test_what_cannot_be_served_is_one_message(files, message, tmp_path, capsys):
    assert main(["--project", str(write_project(tmp_path, files)), "serve"]) == 1
    assert message in capsys.readouterr().err


def test_a_missing_wsgi_file_is_one_message(tmp_path, capsys):
    (write_project(tmp_path) / "wsgi.py").unlink()
    assert main(["--project", str(tmp_path), "serve"]) == 1
    assert "wsgi.py does not exist; " in capsys.readouterr().err


def test_pending_migrations_are_said_in_one_line_at_the_start(tmp_path):
    revision = "revision = 'a1'\ndown_revision = None\n"
    write_project(tmp_path, {"migrations/versions/a1_first.py": revision})
    with (tmp_path / "log").open("w") as log, serving(tmp_path, log=log):
        pass
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.endswith("run `python -m noventa migrate`.")


@pytest.mark.parametrize(("limits", "status"), [("", 413), (', limits={"body": 3000}', 200)])
@pytest.mark.parametrize(
    "route",
    ['Mount("/guest", guest', 'Endpoint("/guest", host, methods=["POST"], cross_origin=True'],
)
def test_waitress_takes_in_for_a_route_what_it_may_have(route, limits, status, tmp_path):
    registry = f"""\
from noventa import Endpoint, Mount, Registry

def host(request, session, db):
    return {{"length": len(request.body)}}

def guest(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", "4")])
    return [b"%d" % len(body)]

registry = Registry(routes=[{route}{limits})])
"""
    config = PROJECT["config.yaml"] + "limits: {body: 1000}\n"
    root = write_project(tmp_path, {"registry.py": registry, "config.yaml": config})

    def talk(url):
        connection = HTTPConnection(url.removeprefix("http://"), timeout=10)
        with closing(connection):
            connection.request("POST", "/guest", b"x" * 2000)
            return connection.getresponse().status

    assert serve(root, talk) == status


def test_an_ipv6_address_stands_in_brackets(tmp_path):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with serving(write_project(tmp_path), "--host", "::1") as server:
        assert re.fullmatch(r"http://\[::1\]:\d+", server.url)
        assert "Hello" in get(server.url)


def test_a_server_in_another_thread_leaves_the_signals_alone(monkeypatch):
    received = []

    def run():
        with noventa_cli._stop_signals() as stopping:
            received.append(stopping)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert received == [[]]
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_second_interrupt_does_not_wait(tmp_path):
    write_project(tmp_path, {"registry.py": SLOW.replace("1.5", "60")})
    with serving(tmp_path) as server:
        thread = threading.Thread(target=answer_of, args=(f"{server.url}/slow",))
        thread.start()
        wait_for((tmp_path / "begun").exists)
        server.send_signal(signal.SIGINT)
        wait_for(lambda: not listens(int(server.url.rpartition(":")[2])))
        server.send_signal(signal.SIGINT)
        assert server.wait(10) == 130
        thread.join()


# ---- in a process of its own ----------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_under_way_is_answered_before_the_server_stops(number, tmp_path):
    write_project(tmp_path, {"registry.py": SLOW})
    received = []
    with serving(tmp_path) as server:
        thread = threading.Thread(target=lambda: received.append(get(f"{server.url}/slow")))
        thread.start()
        wait_for((tmp_path / "begun").exists)
        server.send_signal(number)
        time.sleep(0.5)
        with pytest.raises(OSError, match="refused"):
            get(f"{server.url}/pid")
        thread.join()
        assert server.wait(10) == 0
    assert json.loads(received[0]) == {"answered": True}


def test_idle_connections_do_not_keep_the_server_from_stopping(tmp_path):
    with serving(write_project(tmp_path)) as server:
        port = int(server.url.rpartition(":")[2])
        with closing(socket.create_connection(("127.0.0.1", port))) as idle:
            idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert idle.recv(15) == b"HTTP/1.1 200 OK"
            began = time.monotonic()
            assert stop(server) == 0
            assert time.monotonic() - began < 3


COUNTING = """\
from noventa import Endpoint, Page, Registry
from sqlalchemy import text


def many(request, session, db):
    return [db.scalar(text(f"SELECT {n // 4}")) for n in range(5)]


def broken(request, session, db):
    prices = {"Ada": db.scalar(text("SELECT 1"))}
    try:
        return prices["Bob"]
    except KeyError as error:
        raise LookupError("no price\\nforged") from error


registry = Registry(
    routes=[
        Page("/", "pages/index.html"),
        Page("/template", "pages/template.html"),
        Endpoint("/many", many),
        Endpoint("/broken", broken),
    ],
)
"""
TEMPLATE = "<ul>\n  {% for n in (1, 0) %}<li>{{ 1 // n }} and so on, and so on</li>{% endfor %}\n"
PATHS = ("/", "/many", "/nope", "/broken", "/template")


def caught(call):
    """What `sys.exc_info()` says of the exception that a call raises."""
    with pytest.raises(Exception) as info:  # noqa: PT011 - any
        call()
    return info.type, info.value, info.tb


def log_of(root, *arguments, columns=None, files=()):
    """The log of a server that was asked for each of PATHS: of a file, or of a terminal."""
    write_project(root, {"registry.py": COUNTING, "pages/template.html": TEMPLATE, **dict(files)})
    with (root / "log").open("w+b") as file, terminal(columns or 80) as shown:
        log = sys.stderr if columns else file
        with serving(root, *arguments, log=log, env=environment()) as server:
            for path in PATHS:
                with suppress(HTTPError):
                    get(server.url + path)
    return shown.text() if columns else (root / "log").read_text()


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return log_of(tmp_path_factory.mktemp("logged"))


def test_a_line_of_the_log_says_when_what_how_fast_and_how_many_queries(log):
    at, took = r"(?m)^\d\d:\d\d:\d\d  ", r" +\d{1,4} ms"
    assert re.search(f"{at}200  GET  / {took}$", log)
    assert re.search(f"{at}200  GET  /many {took}   5 queries  4 repeated$", log)
    assert re.search(f"{at}404  GET  /nope {took}$", log)
    assert re.search(f"{at}500  GET  /broken {took}   1 query$", log)
    assert "\x1b" not in log


BROKEN = """\
          LookupError: no price
          forged
          registry.py:14
              raise LookupError("no price\\nforged") from error
          from KeyError: 'Bob'
          registry.py:12
              return prices["Bob"]
                     ~~~~~~^^^^^^^
          N more frames with --verbose
"""
IN_TEMPLATE = """\
          ZeroDivisionError: integer division or modulo by zero
          pages/template.html:2
              {% for n in (1, 0) %}<li>{{ 1 // n }} and so on, and so on</li>{% endfor %}
          N more frames with --verbose
"""


def test_an_error_in_the_log_is_the_projects_own_lines(log):
    log = re.sub(r"\d+ more", "N more", log)
    assert re.search(rf"  500  GET  /broken  .*: LookupError, .*\n{re.escape(BROKEN)}", log)
    assert re.search(rf"/template.html: ZeroDivisionError, .*\n{re.escape(IN_TEMPLATE)}", log)


@pytest.mark.parametrize(("options", "level"), [(["--verbose"], "info"), ([], "debug")])
def test_the_whole_traceback_is_shown_when_asked_for(options, level, tmp_path):
    config = f"{PROJECT['config.yaml']}log_level: {level}\n"
    log = log_of(tmp_path, *options, files={"config.yaml": config})
    assert "  Traceback (most recent call last):\n    File " in log
    assert f'File "{Path(noventa_cli.__file__).with_name("noventa.py")}", line ' in log


def test_an_error_without_a_line_of_the_project_is_shown_whole(tmp_path):
    kind, error, lines = caught(lambda: json.loads("{"))
    in_library = lines.tb_next.tb_next  # the lines of tests are those of some project
    formatter = noventa_cli._LogFormatter(io.StringIO(), tmp_path)
    shown = formatter.formatException((kind, error.with_traceback(in_library), in_library))
    assert shown.startswith("  Traceback (most recent call last):\n")


def test_an_error_of_ours_says_itself_where_it_comes_from(tmp_path):
    kind, error, lines = caught(lambda: read_result(5, caught))
    of_ours = lines.tb_next.tb_next
    formatter = noventa_cli._LogFormatter(io.StringIO(), tmp_path)
    shown = formatter.formatException((kind, error.with_traceback(of_ours), of_ours))
    said, more = map(str.strip, shown.split("\n"))
    assert (said, more) == (f"noventa.NoventaError: {error}", "1 more frame with --verbose")


def test_the_log_on_a_terminal_has_colours_and_fits_its_width(tmp_path):
    log = log_of(tmp_path, columns=50)
    for colour, status in ((32, "200  GET  /  "), (33, "404  GET  /nope"), (31, "500  GET  /")):
        assert f"\x1b[{colour}m{status[:3]}\x1b[0m{status[3:]}" in log
    plain = re.sub(r"\x1b\[\d*m", "", log).splitlines()
    assert max(len(line) for line in plain if "so on" not in line and "raise" not in line) <= 50


def test_a_database_that_does_not_answer_is_said_at_the_start(tmp_path):
    url = f"postgresql+psycopg://me:hidden-word@127.0.0.1:{free_port()}/x"
    write_project(tmp_path, {"config.yaml": f'database: "{url}"\n'})
    with (tmp_path / "log").open("w") as log, serving(tmp_path, log=log) as server:
        assert "Hello" in get(server.url)
    (line,) = (tmp_path / "log").read_text().splitlines()[:1]
    shown = url.replace("hidden-word", "***")
    assert line.startswith(f"The database {shown} does not respond: OperationalError: connection ")
    assert line.endswith(
        "refused. Each request tries again, and gets a 503 until the database responds."
    )


def pid_of(url):
    try:
        return json.loads(get(f"{url}/pid"))["pid"]
    except OSError:
        return None


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat").read_text()
    return status.rpartition(")")[2].split()[0] != "Z"  # a zombie has ended


@pytest.fixture
def reloading(tmp_path):
    """A server that reloads, with the folder it serves and the port it always has."""
    write_project(tmp_path, {"registry.py": SLOW})
    with serving(tmp_path, "--reload", "--port", str(free_port())) as server:
        server.root = tmp_path
        yield server


def answer_of(url):
    with suppress(OSError):
        return get(url)


def fault_at(url):
    """What a browser is shown of a fault, with its headers; None where there is none, or nobody."""
    try:
        get(url)
    except HTTPError as error:
        return (error.read().decode(), error.headers) if error.code == 503 else None
    except OSError:
        return None


def test_while_a_fault_is_in_the_way_a_reloading_server_shows_it_on_the_same_port(reloading):
    wait_for(lambda: pid_of(reloading.url))
    registry = reloading.root / "registry.py"
    registry.write_text(SLOW + "\nbroken = (\n")
    page, headers = wait_for(lambda: fault_at(reloading.url))
    assert "registry.py:21: SyntaxError: &#39;(&#39; was never closed</p>" in page
    assert "<mark><b>21</b>broken = <em>(</em></mark>" in page
    assert '<noscript><meta http-equiv="refresh" content="3"></noscript>' in page
    assert "location.reload()" in get(f"{reloading.url}/_noventa/reload.js")
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}';"
    assert headers["Content-Security-Policy"].startswith(policy)
    registry.write_text(SLOW.replace('"/pid"', '"/other"').replace('"pid":', '"pid": 0, "was":'))
    assert '"was"' in wait_for(lambda: answer_of(f"{reloading.url}/other"))


@pytest.mark.parametrize(
    ("file", "broken"),
    [("pages/index.html", "{% if %}"), ("config.yaml", "server: [")],
)
def test_a_fault_of_a_template_or_of_the_settings_is_shown_until_it_is_mended(
    file, broken, tmp_path
):
    port = free_port()
    settings = f"{PROJECT['config.yaml']}server: {{port: {port}}}\n"
    files = {"config.yaml": settings, "pages/index.html": "<h1>Hello</h1>"}
    write_project(tmp_path, files)
    with serving(tmp_path, "--reload", port=None) as server:
        (tmp_path / file).write_text(broken)
        (tmp_path / "wsgi.py").touch()
        page, _ = wait_for(lambda: fault_at(server.url))
        assert f"{file}:" in page
        for header in ("Host: evil.example", "X-Forwarded-For: 192.0.2.1"):
            asked = Request(server.url, headers=dict([header.split(": ")]))
            with pytest.raises(HTTPError, match="403"):
                urlopen(asked, timeout=10)
        (tmp_path / file).write_text(files[file])
        assert "Hello" in wait_for(lambda: answer_of(server.url))


def test_reload_notices_the_settings(reloading):
    first = wait_for(lambda: pid_of(reloading.url))
    with (reloading.root / "config.yaml").open("a") as config:
        config.write("log_level: debug\n")
    wait_for(lambda: pid_of(reloading.url) not in (None, first))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_reloading_server_stops_with_its_child(number, reloading):
    child = wait_for(lambda: pid_of(reloading.url))
    assert child != reloading.pid
    assert stop(reloading, number) == 0
    assert not is_running(child)


def test_the_child_of_a_killed_reloader_ends_itself(reloading):
    child = wait_for(lambda: pid_of(reloading.url))
    reloading.kill()
    reloading.wait()
    wait_for(lambda: not is_running(child))


def test_a_folder_without_a_project_is_not_watched(tmp_path):
    ended = noventa("--project", tmp_path, "serve", "--reload")
    assert ended.returncode == 1
    assert "config.yaml does not exist" in ended.stderr


def reload_meanwhile(root, monkeypatch, command, meanwhile):
    """Runs `serve --reload` with `command` as the server, until `meanwhile()` has come back."""

    def run():
        try:
            meanwhile()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-c", command])
    monkeypatch.setattr(noventa_cli, "_WATCH_SECONDS", 0.05)
    thread = threading.Thread(target=run)
    thread.start()
    assert main(["--project", str(root), "serve", "--reload"]) == 0
    thread.join()


ENDED = "The server has exited; waiting for a change.\n"
COUNT = "import os; open('runs', 'a').write(os.environ['NOVENTA_RELOADER'] + '\\n')"


def test_what_is_watched_leaves_out_what_is_not_the_projects(tmp_path, monkeypatch, capsys):
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)

    def has_run(times):
        wait_for(lambda: Path("runs").exists() and Path("runs").read_text().count("\n") == times)
        time.sleep(0.5)  # to be noticed

    def meanwhile():
        has_run(1)
        for name in (".venv/a.py", "__pycache__/b.py", "venv/c.py", "pages/d.html"):
            write_files(tmp_path, {name: ""})
        has_run(1)
        write_files(tmp_path, {"models/e.py": ""})
        has_run(2)

    reload_meanwhile(tmp_path, monkeypatch, COUNT, meanwhile)
    assert capsys.readouterr().out == f"{ENDED}A file has changed; restarting.\n{ENDED}"


def test_a_child_that_does_not_end_is_killed(tmp_path, monkeypatch):
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(noventa_cli, "_DRAIN_SECONDS", 0.1)
    stubborn = "import os, signal, time; signal.signal(15, signal.SIG_IGN)"
    tell = "print(os.getpid(), file=open('pid', 'w'), flush=True)"
    pid = tmp_path / "pid"
    reload_meanwhile(
        tmp_path, monkeypatch, f"{stubborn}; {tell}; time.sleep(60)",
        lambda: wait_for(lambda: pid.exists() and pid.read_text()),
    )  # fmt: skip
    assert not is_running(int(pid.read_text()))
