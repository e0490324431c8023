"""Measure interleaved rounds in one process, and start-up, memory and gunicorn in others."""

from __future__ import annotations

import gc
import io
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from .apps import make
from .work import WSGIApp, sign

ROOT = Path(__file__).resolve().parents[2]


class Job(NamedTuple):
    """One row of the table: a request that every application handles."""

    title: str
    path: str
    database: bool = False
    method: str = "GET"
    extra: int = 0  # routes in addition to the site's own


PLAIN = Job("page without a query", "/plain")
JOBS = (
    PLAIN,
    Job("one query by key", "/users/7", database=True),
    Job("fortunes: 12 rows", "/fortunes", database=True),
    Job("form action: POST, ticket, update", "/edit/7", database=True, method="POST"),
    Job("two forms for a known visitor", "/forms"),
    Job("JSON endpoint", "/message.json"),
    Job("static file", "/static/site.css"),
    Job("session read and written", "/visits"),
    *(Job(f"{count:,} routes", f"/r{count // 2}/7", extra=count) for count in (10, 1_000, 10_000)),
)
COMPONENTS = {Job("20 components", "/cards"): 20, Job("100 nested components", "/nested"): 100}


class Times(NamedTuple):
    """Seconds for one request: CPU time of this process, and wall time."""

    cpu: float
    wall: float


class Client:
    """A client that sends one job to one application, with the cookie and ticket it needs."""

    def __init__(self, name: str, app: WSGIApp, job: Job) -> None:
        self.app, self.job, self.sent = app, job, 0
        self.cookie, self.ticket = "", ""
        signs = job.method == "POST" or job.path == "/forms"
        if signs and name != "noventa":
            self.cookie = f"session={sign({'nonce': 'abc'})}"
            self.ticket = sign({"nonce": "abc", "action": "rename"})
        elif signs or job.path == "/visits":
            _, headers, body = self.fetch(self.environ("GET"))
            self.cookie = headers["set-cookie"].partition(";")[0]
            self.ticket = "".join(re.findall(r'name="_ticket" value="([^"]+)"', body.decode()))
        status, _, body = self.fetch(self.environ(job.method))
        if status[:3] != ("303" if job.method == "POST" else "200"):
            raise RuntimeError(f"{name}: {job.path} returned {status}: {body[:200]!r}")

    def environ(self, method: str) -> dict[str, Any]:
        """Return the environ of the next request. Each one renames the user to a new name."""
        self.sent += 1
        form = {"_ticket": self.ticket, "name": f"User {self.sent}"} if method == "POST" else {}
        body = urlencode(form).encode()
        environ = {
            "REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": self.job.path,
            "QUERY_STRING": "", "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1",
            "HTTP_USER_AGENT": "benchmark", "HTTP_ACCEPT": "text/html,*/*;q=0.8",
            "HTTP_COOKIE": self.cookie, "wsgi.version": (1, 0), "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body), "wsgi.errors": sys.stderr, "wsgi.multithread": True,
            "wsgi.multiprocess": True, "wsgi.run_once": False,
        }  # fmt: skip
        if body:
            environ["CONTENT_LENGTH"] = str(len(body))
            environ["CONTENT_TYPE"] = "application/x-www-form-urlencoded"
        return environ

    def fetch(self, environ: dict[str, Any]) -> tuple[str, dict[str, str], bytes]:
        """Return the status, headers and body."""
        answer: list[Any] = []
        chunks = self.app(environ, lambda status, headers, *_: answer.extend((status, headers)))
        body = b"".join(chunks)
        if hasattr(chunks, "close"):
            chunks.close()
        return answer[0], {name.lower(): value for name, value in answer[1]}, body

    def run(self, count: int) -> Times:
        """Send the job `count` times."""
        environs = [self.environ(self.job.method) for _ in range(count)]
        app = self.app
        wall, cpu = time.perf_counter(), time.process_time()
        for environ in environs:
            chunks = app(environ, _start_response)
            for _ in chunks:
                pass
            if hasattr(chunks, "close"):
                chunks.close()
        return Times((time.process_time() - cpu) / count, (time.perf_counter() - wall) / count)


def _start_response(status: str, headers: Any, error: Any = None) -> None:
    pass


def race(clients: Mapping[str, Client], rounds: int, seconds: float) -> dict[str, list[Times]]:
    """Return every client's times per round. In a round each runs for about `seconds` in turn."""
    sizes = {}
    for name, client in clients.items():
        client.run(50)  # fills caches
        sizes[name] = max(1, int(seconds / client.run(5).wall))
    gc.collect()
    gc.freeze()  # objects of the other applications must not slow this one down
    times: dict[str, list[Times]] = {name: [] for name in clients}
    names = list(clients)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(clients[name].run(sizes[name]))
    gc.unfreeze()
    return times


def median(times: Sequence[Times]) -> Times:
    """Return the median of each kind of time."""
    return Times(*(statistics.median(kind) for kind in zip(*times, strict=True)))


def ratio(times: Sequence[Times], floor: Sequence[Times]) -> Times:
    """Return the median of the rounds' ratios: a slow moment of the machine affects both."""
    rounds = [Times(t.cpu / f.cpu, t.wall / f.wall) for t, f in zip(times, floor, strict=True)]
    return median(rounds)


def start_up(names: Iterable[str], url: str, runs: int) -> dict[str, float]:
    """Return CPU seconds from the interpreter's start to the first response, with cached bytecode.

    `libraries` imports what Noventa imports, and does nothing.
    """
    imports = "from tests.benchmarks.apps import make; from tests.benchmarks import measure as m"
    scripts = {n: f"{imports}; m.Client({n!r}, make({n!r}, {url!r}), m.PLAIN)" for n in names}
    scripts["libraries"] = f"{imports}; import sqlalchemy.orm, jinja2, yaml, webob, multipart"
    durations: dict[str, list[float]] = {name: [] for name in scripts}
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(runs + 1):
            for name, script in scripts.items():
                output = _python(f"{script}; import time; print(time.process_time())", cache)
                durations[name].append(float(output))
    return {name: statistics.median(values[1:]) for name, values in durations.items()}


def memory(name: str, url: str, count: int) -> tuple[float, float]:
    """Return the megabytes of a process after a tenth of `count` requests and after all of them."""
    script = f"from tests.benchmarks.measure import _hold; _hold({name!r}, {url!r}, {count})"
    after_tenth, at_end = json.loads(_python(script))
    return after_tenth, at_end


def _hold(name: str, url: str, count: int) -> None:
    app = make(name, url)
    clients = [Client(name, app, job) for job in JOBS if not job.extra]
    sizes = []
    for _tenth in range(10):
        for _ in range(count // 1_000):  # a run keeps its requests until it ends
            for client in clients:
                client.run(100 // len(clients))
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        sizes.append(pages * 4096 / 1e6)
    print(json.dumps([sizes[0], sizes[-1]]))


def _python(script: str, cache: str | None = None) -> str:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "" if cache else "1"}
    environment["PYTHONPYCACHEPREFIX"] = cache or ""
    command = [sys.executable, "-W", "ignore", "-c", script]
    return subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def under_gunicorn(
    names: Iterable[str], url: str, jobs: Sequence[Job], rounds: int, seconds: int
) -> dict[str, dict[str, float]]:
    """Return requests per second by job and application, with one worker and eight clients."""
    speeds: dict[str, dict[str, list[float]]] = {job.title: {} for job in jobs}
    for _ in range(rounds):
        for name in names:
            port = _free_port()
            server = _serve(name, url, port)
            try:
                for job in jobs:
                    speed = _wrk(f"http://127.0.0.1:{port}{job.path}", seconds)
                    speeds[job.title].setdefault(name, []).append(speed)
            finally:
                server.terminate()
                server.wait()
    return {
        title: {name: statistics.median(values) for name, values in row.items()}
        for title, row in speeds.items()
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve(name: str, url: str, port: int) -> subprocess.Popen[bytes]:
    target = f"tests.benchmarks.apps:make({name!r}, {url!r})"
    options = ["--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "4"]
    command = [sys.executable, "-W", "ignore", "-m", "gunicorn", "--log-level", "error"]
    server = subprocess.Popen([*command, *options, target], cwd=ROOT)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return server
        except OSError:
            time.sleep(0.1)
    server.terminate()
    raise RuntimeError(f"gunicorn did not start {name}")


def _wrk(url: str, seconds: int) -> float:
    wrk = shutil.which("wrk")
    if wrk is None:
        raise RuntimeError("wrk is not installed: apt-get install wrk")
    command = [wrk, "--threads=1", "--connections=8", f"--duration={seconds}s", url]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    if "Non-2xx" in output:
        raise RuntimeError(f"{url}: {output}")
    return float(re.findall(r"Requests/sec: +([0-9.]+)", output)[0])
