"""The server: its output, its responses, reloading and shutdown."""

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
    Path("started").touch()
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
def client(port, use_server):
    """Call `use_server(url)` in a thread once this process serves, then stop the server."""
    results = []

    def run():
        try:
            wait_for(lambda: listens(port))
            results.append(use_server(f"http://127.0.0.1:{port}"))
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


def serve(root, use_server, *arguments):
    port = free_port()
    with client(port, use_server) as results:
        assert main(["--project", str(root), "serve", "--port", str(port), *arguments]) == 0
    return results[0]


def test_serve_runs_the_application_of_wsgi_py(tmp_path, capsys):
    assert "<h1>Hello</h1>" in serve(write_project(tmp_path), get)
    out = capsys.readouterr().out
    assert f"Serving {tmp_path.name} at http://127.0.0.1:" in out
    assert "Map" not in out


def test_each_request_is_one_log_line_whatever_its_path(tmp_path, caplog):
    caplog.set_level(logging.INFO)

    def use_server(url):
        with pytest.raises(HTTPError, match="404"):
            get(f"{url}/a%0Ab%1B[2J%C3%A9?secret=1")

    serve(write_project(tmp_path), use_server)
    line = next(r.getMessage() for r in caplog.records if r.name == "noventa.access")
    assert line.startswith("404 GET /a%0Ab%1B%5B2J%C3%A9 ")
    assert line.endswith(" ms")


def test_control_characters_in_log_lines_are_escaped():
    record = logging.makeLogRecord({"msg": "serving %s", "args": ("/a\nb\x1b[2J\u2028é",)})
    line = noventa_cli._LogFormatter(io.StringIO(), None).format(record)
    assert line.endswith("  serving /a\\nb\\x1b[2J\\u2028é")


def test_the_debug_option_enables_debug(tmp_path, capsys):
    def use_server(url):
        with pytest.raises(HTTPError, match="500") as raised:
            get(url)
        return raised.value.read().decode()

    root = write_project(tmp_path, {"pages/index.html": "{{ 1 / 0 }}"})
    assert "ZeroDivisionError" in serve(root, use_server, "--debug")
    assert re.search(r"Map: http://127.0.0.1:\d+/_noventa/\n", capsys.readouterr().out)


@pytest.mark.parametrize("header", ["Host: evil.example", "X-Forwarded-For: 192.0.2.1"])
def test_debug_rejects_foreign_hosts_and_proxies(tmp_path, header):
    def use_server(url):
        request = Request(url, headers=dict([header.split(": ")]))
        with pytest.raises(HTTPError, match="403") as raised:
            urlopen(request, timeout=10)
        return raised.value.read().decode()

    root = write_project(tmp_path, {"pages/index.html": "{{ 1 / 0 }}"})
    assert "Open http://localhost" in serve(root, use_server, "--debug")


def send_raw(url, *pieces, pause=0.0):
    """Send bytes to a server and return its response, read until the connection closes."""
    with closing(socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))) as client:
        client.settimeout(20)
        with suppress(ConnectionError):  # closed before everything was sent
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
def test_duplicate_hosts_and_headers_over_64_kilobytes_are_rejected(request_, status, tmp_path):
    response = serve(write_project(tmp_path), lambda url: send_raw(url, request_))
    assert response.split(b" ")[1] == status


@pytest.mark.parametrize("start", [CHUNKED + b"1;", CHUNKED + b"0\r\nx: "])
def test_an_endless_line_between_chunks_is_rejected_at_once(start, tmp_path):
    def use_server(url):
        began = time.process_time()
        response = send_raw(url, start, *[b"x" * 8_000] * 1_000)
        return response, time.process_time() - began

    response, spent = serve(write_project(tmp_path), use_server)
    assert b" 400 " in response or response == b""  # the client was still sending
    assert spent < 1


def test_blank_lines_do_not_keep_a_connection_open(tmp_path, monkeypatch):
    limits = {**noventa_cli._LIMITS, "channel_timeout": 1, "cleanup_interval": 1}
    monkeypatch.setattr(noventa_cli, "_LIMITS", limits)

    def use_server(url):
        began = time.monotonic()
        send_raw(url, *[b"\r\n"] * 40, pause=0.2)
        return time.monotonic() - began

    assert serve(write_project(tmp_path), use_server) < 6  # sending all lines takes 8 seconds


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
    """Run nginx in front of the server, configured as in the guide, and yield its URL."""
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


def test_slow_clients_do_not_block_others_behind_nginx(tmp_path):
    registry = """\
from noventa import Page, Registry, Static
registry = Registry(routes=[Page("/", "pages/index.html"), Static("/files", "files")])
"""
    write_project(tmp_path, {"registry.py": registry, "files/large": ""})
    with (tmp_path / "files" / "large").open("wb") as file:
        file.truncate(40_000_000)
    slow = b"GET /files/large HTTP/1.0\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX: "

    def use_server(url):
        with behind_nginx(tmp_path, url) as proxy, ExitStack() as opened:
            port = int(proxy.rpartition(":")[2])
            for number in range(60):
                client = opened.enter_context(socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
                client.connect(("127.0.0.1", port))
                client.sendall(slow[number % 2])
            time.sleep(1)
            return [get(proxy) for _ in range(5)]

    assert all("Hello" in page for page in serve(tmp_path, use_server, "--threads", "2"))


def test_a_running_request_finishes_after_the_stop_signal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    received = []

    def use_server(url):
        threading.Thread(target=lambda: received.append(get(f"{url}/slow"))).start()
        wait_for(Path("started").exists)

    serve(write_project(tmp_path, {"registry.py": SLOW}), use_server)
    assert json.loads(wait_for(lambda: received)[0]) == {"answered": True}


def test_a_hostname_with_several_addresses_is_served_on_each(tmp_path, capsys):
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
def test_an_unusable_address_is_one_message(arguments, message, tmp_path, capsys):
    assert main(["--project", str(write_project(tmp_path)), "serve", *arguments]) == 1
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert "Serving" not in out


def test_a_port_in_use_is_one_message(tmp_path, capsys):
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
def test_an_unservable_project_is_one_message(files, message, tmp_path, capsys):
    assert main(["--project", str(write_project(tmp_path, files)), "serve"]) == 1
    assert message in capsys.readouterr().err


def test_a_missing_wsgi_file_is_one_message(tmp_path, capsys):
    (write_project(tmp_path) / "wsgi.py").unlink()
    assert main(["--project", str(tmp_path), "serve"]) == 1
    assert "wsgi.py does not exist; " in capsys.readouterr().err


def test_pending_migrations_are_logged_in_one_line_at_startup(tmp_path):
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
def test_waitress_accepts_bodies_up_to_the_limit_of_the_route(route, limits, status, tmp_path):
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

    def use_server(url):
        connection = HTTPConnection(url.removeprefix("http://"), timeout=10)
        with closing(connection):
            connection.request("POST", "/guest", b"x" * 2000)
            return connection.getresponse().status

    assert serve(root, use_server) == status


def test_an_ipv6_address_is_printed_in_brackets(tmp_path):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with serving(write_project(tmp_path), "--host", "::1") as server:
        assert re.fullmatch(r"http://\[::1\]:\d+", server.url)
        assert "Hello" in get(server.url)


def test_stop_signals_are_not_installed_outside_the_main_thread(monkeypatch):
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


def test_a_second_interrupt_stops_the_server_at_once(tmp_path):
    write_project(tmp_path, {"registry.py": SLOW.replace("1.5", "60")})
    with serving(tmp_path) as server:
        thread = threading.Thread(target=page_at, args=(f"{server.url}/slow",))
        thread.start()
        wait_for((tmp_path / "started").exists)
        server.send_signal(signal.SIGINT)
        wait_for(lambda: not listens(int(server.url.rpartition(":")[2])))
        server.send_signal(signal.SIGINT)
        assert server.wait(10) == 130
        thread.join()


# ---- in a separate process ------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_running_request_finishes_before_the_server_stops(number, tmp_path):
    write_project(tmp_path, {"registry.py": SLOW})
    received = []
    with serving(tmp_path) as server:
        thread = threading.Thread(target=lambda: received.append(get(f"{server.url}/slow")))
        thread.start()
        wait_for((tmp_path / "started").exists)
        server.send_signal(number)
        time.sleep(0.5)
        with pytest.raises(OSError, match="refused"):
            get(f"{server.url}/pid")
        thread.join()
        assert server.wait(10) == 0
    assert json.loads(received[0]) == {"answered": True}


def test_idle_connections_do_not_delay_the_shutdown(tmp_path):
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


def exc_info_of(call):
    """Return `sys.exc_info()` for the exception that a call raises."""
    with pytest.raises(Exception) as info:  # noqa: PT011 - any
        call()
    return info.type, info.value, info.tb


def collect_log(root, *arguments, columns=None, files=()):
    """Request each of PATHS and return the log, from a file or (with `columns`) a terminal."""
    write_project(root, {"registry.py": COUNTING, "pages/template.html": TEMPLATE, **dict(files)})
    with (root / "log").open("w+b") as file, terminal(columns or 80) as screen:
        log = sys.stderr if columns else file
        with serving(root, *arguments, log=log, env=environment()) as server:
            for path in PATHS:
                with suppress(HTTPError):
                    get(server.url + path)
    return screen.text() if columns else (root / "log").read_text()


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return collect_log(tmp_path_factory.mktemp("logged"))


def test_an_access_line_shows_time_request_duration_and_queries(log):
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


def test_a_logged_error_shows_only_lines_of_the_project(log):
    log = re.sub(r"\d+ more", "N more", log)
    assert re.search(rf"  500  GET  /broken  .*: LookupError, .*\n{re.escape(BROKEN)}", log)
    assert re.search(rf"/template.html: ZeroDivisionError, .*\n{re.escape(IN_TEMPLATE)}", log)


@pytest.mark.parametrize(("options", "level"), [(["--verbose"], "info"), ([], "debug")])
def test_the_full_traceback_is_logged_on_request(options, level, tmp_path):
    config = f"{PROJECT['config.yaml']}log_level: {level}\n"
    log = collect_log(tmp_path, *options, files={"config.yaml": config})
    assert "  Traceback (most recent call last):\n    File " in log
    assert f'File "{Path(noventa_cli.__file__).with_name("noventa.py")}", line ' in log


def test_an_error_without_project_lines_is_logged_in_full(tmp_path):
    kind, error, lines = exc_info_of(lambda: json.loads("{"))
    in_library = lines.tb_next.tb_next  # skip the test's own lines, which count as a project's
    formatter = noventa_cli._LogFormatter(io.StringIO(), tmp_path)
    output = formatter.formatException((kind, error.with_traceback(in_library), in_library))
    assert output.startswith("  Traceback (most recent call last):\n")


def test_a_noventa_error_is_logged_without_a_traceback(tmp_path):
    kind, error, lines = exc_info_of(lambda: read_result(5, exc_info_of))
    in_noventa = lines.tb_next.tb_next
    formatter = noventa_cli._LogFormatter(io.StringIO(), tmp_path)
    output = formatter.formatException((kind, error.with_traceback(in_noventa), in_noventa))
    message, more = map(str.strip, output.split("\n"))
    assert (message, more) == (f"noventa.NoventaError: {error}", "1 more frame with --verbose")


def test_the_log_uses_the_colours_and_width_of_the_terminal(tmp_path):
    log = collect_log(tmp_path, columns=50)
    for colour, status in ((32, "200  GET  /  "), (33, "404  GET  /nope"), (31, "500  GET  /")):
        assert f"\x1b[{colour}m{status[:3]}\x1b[0m{status[3:]}" in log
    plain = re.sub(r"\x1b\[\d*m", "", log).splitlines()
    assert max(len(line) for line in plain if "so on" not in line and "raise" not in line) <= 50


def test_an_unreachable_database_is_logged_at_startup(tmp_path):
    url = f"postgresql+psycopg://me:hidden-word@127.0.0.1:{free_port()}/x"
    write_project(tmp_path, {"config.yaml": f'database: "{url}"\n'})
    with (tmp_path / "log").open("w") as log, serving(tmp_path, log=log) as server:
        assert "Hello" in get(server.url)
    (line,) = (tmp_path / "log").read_text().splitlines()[:1]
    redacted = url.replace("hidden-word", "***")
    assert line.startswith(
        f"The database {redacted} does not respond: OperationalError: connection "
    )
    assert line.endswith("refused. Requests get a 503 until it does.")


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
    return status.rpartition(")")[2].split()[0] != "Z"  # a zombie has exited


@pytest.fixture
def reloading(tmp_path):
    """A reloading server on a fixed port, with its folder as `root`."""
    write_project(tmp_path, {"registry.py": SLOW})
    with serving(tmp_path, "--reload", "--port", str(free_port())) as server:
        server.root = tmp_path
        yield server


def page_at(url):
    with suppress(OSError):
        return get(url)


def error_page_at(url):
    """Return the page and headers of a 503 response; None for other responses or no server."""
    try:
        get(url)
    except HTTPError as error:
        return (error.read().decode(), error.headers) if error.code == 503 else None
    except OSError:
        return None


def test_a_reloading_server_shows_a_startup_error_on_the_same_port(reloading):
    wait_for(lambda: pid_of(reloading.url))
    registry = reloading.root / "registry.py"
    registry.write_text(SLOW + "\nbroken = (\n")
    page, headers = wait_for(lambda: error_page_at(reloading.url))
    assert "registry.py:21: SyntaxError: &#39;(&#39; was never closed</p>" in page
    assert "<mark><b>21</b>broken = <em>(</em></mark>" in page
    assert '<noscript><meta http-equiv="refresh" content="3"></noscript>' in page
    assert "location.reload()" in get(f"{reloading.url}/_noventa/reload.js")
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}';"
    assert headers["Content-Security-Policy"].startswith(policy)
    registry.write_text(SLOW.replace('"/pid"', '"/other"').replace('"pid":', '"pid": 0, "was":'))
    assert '"was"' in wait_for(lambda: page_at(f"{reloading.url}/other"))


@pytest.mark.parametrize(
    ("file", "broken"),
    [("pages/index.html", "{% if %}"), ("config.yaml", "server: [")],
)
def test_a_template_or_settings_error_is_shown_until_it_is_fixed(file, broken, tmp_path):
    port = free_port()
    settings = f"{PROJECT['config.yaml']}server: {{port: {port}}}\n"
    files = {"config.yaml": settings, "pages/index.html": "<h1>Hello</h1>"}
    write_project(tmp_path, files)
    with serving(tmp_path, "--reload", port=None) as server:
        (tmp_path / file).write_text(broken)
        (tmp_path / "wsgi.py").touch()
        page, _ = wait_for(lambda: error_page_at(server.url))
        assert f"{file}:" in page
        for header in ("Host: evil.example", "X-Forwarded-For: 192.0.2.1"):
            request = Request(server.url, headers=dict([header.split(": ")]))
            with pytest.raises(HTTPError, match="403"):
                urlopen(request, timeout=10)
        (tmp_path / file).write_text(files[file])
        assert "Hello" in wait_for(lambda: page_at(server.url))


def test_reload_watches_the_settings(reloading):
    first = wait_for(lambda: pid_of(reloading.url))
    with (reloading.root / "config.yaml").open("a") as config:
        config.write("log_level: debug\n")
    wait_for(lambda: pid_of(reloading.url) not in (None, first))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_reloading_server_stops_its_child(number, reloading):
    child = wait_for(lambda: pid_of(reloading.url))
    assert child != reloading.pid
    assert stop(reloading, number) == 0
    assert not is_running(child)


def test_the_child_of_a_killed_reloader_exits(reloading):
    child = wait_for(lambda: pid_of(reloading.url))
    reloading.kill()
    reloading.wait()
    wait_for(lambda: not is_running(child))


def test_a_folder_without_a_project_is_not_watched(tmp_path):
    ended = noventa("--project", tmp_path, "serve", "--reload")
    assert ended.returncode == 1
    assert "config.yaml does not exist" in ended.stderr


def run_reloader(root, monkeypatch, command, meanwhile):
    """Run `serve --reload` with `command` as the server until `meanwhile()` returns."""

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


def test_the_reloader_ignores_files_outside_the_project(tmp_path, monkeypatch, capsys):
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)

    def has_run(times):
        wait_for(lambda: Path("runs").exists() and Path("runs").read_text().count("\n") == times)
        time.sleep(0.5)  # give the reloader time to notice

    def meanwhile():
        has_run(1)
        for name in (".venv/a.py", "__pycache__/b.py", "venv/c.py", "pages/d.html"):
            write_files(tmp_path, {name: ""})
        has_run(1)
        write_files(tmp_path, {"models/e.py": ""})
        has_run(2)

    run_reloader(tmp_path, monkeypatch, COUNT, meanwhile)
    assert capsys.readouterr().out == f"{ENDED}A file has changed; restarting.\n{ENDED}"


def test_a_child_that_does_not_exit_is_killed(tmp_path, monkeypatch):
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(noventa_cli, "_DRAIN_SECONDS", 0.1)
    stubborn = "import os, signal, time; signal.signal(15, signal.SIG_IGN)"
    write_pid = "print(os.getpid(), file=open('pid', 'w'), flush=True)"
    pid = tmp_path / "pid"
    run_reloader(
        tmp_path, monkeypatch, f"{stubborn}; {write_pid}; time.sleep(60)",
        lambda: wait_for(lambda: pid.exists() and pid.read_text()),
    )  # fmt: skip
    assert not is_running(int(pid.read_text()))
