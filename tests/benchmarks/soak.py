"""Send reads and writes while workers are killed, PostgreSQL restarts and the pool is full.

    PYTHONPATH=tests python -m tests.benchmarks.soak [--minutes 15]

starts its own PostgreSQL and gunicorn (3 workers with 4 threads each) and prints a table. Each
increment stores a row with a unique token. This shows afterwards which increments were lost
(status 200 but not stored) or doubled (stored twice). The first worker is never killed, so that
its memory and descriptors can be compared. Not part of the tests.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa
from counters import PrivatePostgres
from processes import KEY, environment, free_port, listens, wait_for, write_project

CLIENTS, KILL_EVERY, RESTART_EVERY, FILL_EVERY = 8, 10, 30, 20  # the last three in seconds
REGISTRY = """\
import handlers
import models
from noventa import Endpoint, Registry

registry = Registry(
    models=[models],
    routes=[
        Endpoint("/value", handlers.value),
        Endpoint("/hold", handlers.hold),
        Endpoint("/increment/{token}", handlers.increment, methods=["POST"], cross_origin=True),
    ],
)
"""
MODELS = """\
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Counter(Base):
    __tablename__ = "counters"
    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int]


class Step(Base):
    __tablename__ = "steps"
    id: Mapped[int] = mapped_column(primary_key=True)
    token: Mapped[str]
"""
HANDLERS = """\
import time

from models import Counter, Step


def value(request, session, db):
    return {"value": db.get(Counter, 1).value}


def hold(request, session, db):
    db.get(Counter, 1)
    time.sleep(3)
    return {}


def increment(request, session, db, *, token):
    db.get(Counter, 1, with_for_update=True).value += 1
    db.add(Step(token=token))
    db.commit()
    return {}
"""
TABLES = (
    "CREATE TABLE counters (id serial PRIMARY KEY, value integer NOT NULL)",
    "CREATE TABLE steps (id serial PRIMARY KEY, token varchar NOT NULL)",
    "INSERT INTO counters (value) VALUES (0)",
)


class Soak:
    """The server, its clients, and the responses they received."""

    def __init__(self, folder: Path, postgres: PrivatePostgres) -> None:
        self.postgres, self.port, self.log = postgres, free_port(), folder / "server.log"
        self.stopped, self.answers = threading.Event(), Counter[str]()
        self.statuses: dict[str, int] = {}  # of each increment; 0 without a response
        self.disturbances = Counter[str]()
        config = f'secret_keys: ["{KEY}"]\nlog_level: error\ndatabase: {{url: "{postgres.url}", '
        config += "pool_size: 2, max_overflow: 0, pool_timeout: 1}\nserver: {health: /health}\n"
        files = {"models.py": MODELS, "handlers.py": HANDLERS, "registry.py": REGISTRY}
        write_project(folder, {**files, "config.yaml": config})
        self.engine = sa.create_engine(postgres.url, poolclass=sa.NullPool)
        with self.engine.begin() as connection:
            for statement in TABLES:
                connection.exec_driver_sql(statement)
        command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{self.port}"]
        command += ["--workers", "3", "--worker-class", "gthread", "--threads", "4"]
        with self.log.open("wb") as log:
            self.master = subprocess.Popen(
                [*command, "wsgi:application"], cwd=folder, env=environment(), stdout=log,
                stderr=log,
            )  # fmt: skip
        wait_for(lambda: listens(self.port) and self.ask("GET", "/health") == 200, 240)
        self.spared = min(self.workers())

    def workers(self) -> list[int]:
        number = self.master.pid
        return [*map(int, Path(f"/proc/{number}/task/{number}/children").read_text().split())]

    def ask(self, method: str, path: str) -> int:
        """Return the status of a response; 0 if the connection ended without one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, headers={"Content-Length": "0"})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()
        return answer.status

    def visit(self, client: int) -> None:
        number = 0
        while not self.stopped.is_set():
            number += 1
            if number % 4:
                self.answers[f"GET {self.ask('GET', '/value') or 'no response'}"] += 1
            else:
                token = f"{client}-{number}"
                self.statuses[token] = self.ask("POST", f"/increment/{token}")
                self.answers[f"POST {self.statuses[token] or 'no response'}"] += 1
            time.sleep(0.01)

    def disturb(self, every: int, disturbance: str) -> None:
        while not self.stopped.wait(every):
            self.disturbances[disturbance] += 1
            if disturbance == "restarts of PostgreSQL":
                self.postgres.restart()
            elif disturbance == "workers killed":
                others = [number for number in self.workers() if number != self.spared]
                for number in others[:1]:
                    with suppress(ProcessLookupError):
                        os.kill(number, signal.SIGKILL)
            else:
                held = [threading.Thread(target=self.ask, args=["GET", "/hold"]) for _ in range(6)]
                for thread in held:
                    thread.start()
                for thread in held:
                    thread.join()

    def state(self) -> str:
        if self.spared not in self.workers():
            return "exited; see the log"
        status = Path(f"/proc/{self.spared}/status").read_text()
        folder = Path(f"/proc/{self.spared}/fd")
        memory = int(status.partition("VmRSS:")[2].split()[0])
        return f"{memory / 1024:.1f} MB, {len([*folder.iterdir()])} descriptors"

    def run(self, minutes: float) -> None:
        """Send requests, disturb the server, and print the table."""
        tasks = [threading.Thread(target=self.visit, args=[client]) for client in range(CLIENTS)]
        for every, disturbance in (
            (KILL_EVERY, "workers killed"),
            (RESTART_EVERY, "restarts of PostgreSQL"),
            (FILL_EVERY, "pool exhaustions"),
        ):
            tasks.append(threading.Thread(target=self.disturb, args=[every, disturbance]))
        for task in tasks:
            task.start()
        time.sleep(min(20, minutes * 30))
        before = self.state()
        time.sleep(max(0, minutes * 60 - 20))
        self.stopped.set()
        for task in tasks:
            task.join()
        self.report(minutes, before)

    def report(self, minutes: float, before: str) -> None:
        with self.engine.connect() as connection:
            value = connection.exec_driver_sql("SELECT value FROM counters").scalar()
            stored = Counter(connection.exec_driver_sql("SELECT token FROM steps").scalars())
        acknowledged = {token for token, status in self.statuses.items() if status == 200}
        unsure = sum(token in stored for token in self.statuses.keys() - acknowledged)
        rows = {
            "minutes": f"{minutes:g}", **self.disturbances, **dict(sorted(self.answers.items())),
            "increments with a 200 that were lost": len(acknowledged - stored.keys()),
            "increments stored twice": sum(count > 1 for count in stored.values()),
            "increments without a 200 that were stored": unsure,
            "counter and stored rows": f"{value}, {stored.total()}",
            "spared worker after 20 seconds": before,
            "spared worker at the end": self.state(),
            "GET /health at the end": self.ask("GET", "/health"),
        }  # fmt: skip
        print("| measure | result |\n| --- | --- |")
        for name, count in rows.items():
            print(f"| {name} | {count} |")
        lines = self.log.read_text("utf-8").splitlines()
        errors = Counter(line[:200] for line in lines if re.search(" 500 |Error|TIMEOUT", line))
        for line, count in errors.most_common(20):
            print(f"{count} times: {line}", file=sys.stderr)

    def close(self) -> None:
        self.master.terminate()
        self.master.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15)
    minutes = parser.parse_args().minutes
    postgres = PrivatePostgres()
    try:
        postgres.start()
        with tempfile.TemporaryDirectory() as folder:
            soak = Soak(Path(folder), postgres)
            try:
                soak.run(minutes)
            finally:
                soak.close()
    finally:
        postgres.remove()


if __name__ == "__main__":
    main()
