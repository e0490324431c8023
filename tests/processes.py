"""Helpers of the command-line tests: small projects and real processes."""

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
KEY = "a key for tests, 32 characters or more"

PROJECT = {
    "config.yaml": f'database: "sqlite:///./noventa.db"\nsecret_keys: ["{KEY}"]\n',
    "registry.py": """\
from noventa import Page, Registry

registry = Registry(routes=[Page("/", "pages/index.html")])
""",
    "wsgi.py": """\
from pathlib import Path

from noventa import App, Config

from registry import registry

app = App(registry, Config.load(Path(__file__).parent))
application = app
""",
    "pages/index.html": "<h1>Hello</h1>\n",
}


def write_files(folder, files):
    """Write `files`, a mapping of paths to contents, below `folder`; skip those that are None."""
    for name, text in files.items():
        if text is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, "utf-8")
    return folder


def write_project(folder, files=None):
    """Write the smallest project. `files` are added to its own or replace them."""
    return write_files(folder, PROJECT | (files or {}))


def environment(**more):
    """Return the environment of a child process that can import the modules under test."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **more}


def noventa(*arguments, **options):
    """Run `python -m noventa …` to completion."""
    command = [sys.executable, "-m", "noventa", *map(str, arguments)]
    options = {"env": environment(), "timeout": 180} | options
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def wait_for(condition, seconds=60):
    """Wait until `condition()` is true, and return its result."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"{condition} did not become true"
        time.sleep(0.03)
    return result


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def serving(root, *arguments, python=sys.executable, env=None, log=None, port="0"):
    """Run `python -m noventa serve` in its own process; yield the process, with its `url`.

    If `port` is None, the settings choose it.
    """
    command = [python, "-m", "noventa", "--project", str(root), "serve"]
    process = subprocess.Popen(
        [*command, *(["--port", port] if port else []), *arguments],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=environment() if env is None else env,
        cwd=root,
    )
    try:
        process.url = read_url(process)
        yield process
    finally:
        stop(process)


def read_url(process, lines=None):
    """Return the URL that a starting server prints. Append its lines up to there to `lines`."""
    for line in process.stdout:
        if lines is not None:
            lines.append(line)
        if found := re.search(r"(?<= at )http://\S+", line):
            return found[0].rstrip("/")
    raise AssertionError(f"the server exited with {process.wait()} without printing a URL")


def stop(process, number=signal.SIGTERM):
    """Stop `process` if it is running, and return its exit code."""
    if process.poll() is None:
        process.send_signal(number)
    try:
        return process.wait(30)
    finally:
        process.kill()
        process.stdout.close()


class TerminalOutput(bytearray):
    """The bytes written to a terminal."""

    def text(self):
        return self.decode().replace("\r\n", "\n")

    def lines(self):
        """Return the lines, without colours."""
        return re.sub(r"\x1b\[[\d;]*[mK]", "", self.text()).splitlines()


@contextmanager
def terminal(columns=60):
    """Replace standard output and error with a terminal. Its output is complete after the block."""
    output = TerminalOutput()
    master, slave = pty.openpty()

    def read():
        with suppress(OSError):  # every writer has closed it
            while data := os.read(master, 65_536):
                output.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        patch.setenv("TERM", "xterm")
        patch.delenv("NO_COLOR", raising=False)
        with os.fdopen(slave, "w") as stream, redirect_stdout(stream), redirect_stderr(stream):
            yield output
    reader.join()
    os.close(master)


def from_npm(folder, package):
    """Install an npm package such as `htmx.org@2`, preferably from the cache; return its folder."""
    options = ("--prefer-offline", "--no-audit", "--fetch-retry-mintimeout=1000")
    command = ["npm", "install", *options, "--fetch-retry-maxtimeout=1000", package]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        reason = f"npm could not install {package}: {getattr(error, 'stderr', None) or error}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return folder / "node_modules" / package.partition("@")[0]
