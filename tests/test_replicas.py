"""Replicas of PostgreSQL: only entries with replica=True read from them."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa
from counters import Counter, PrivatePostgres, action, answered, counting_app, increment, value
from processes import free_port
from sqlalchemy import orm
from support import make_app
from visitors import Visitor, ask

from noventa import App, Component, Config, ConfigError, Endpoint, Page, reply

pytestmark = pytest.mark.slow


class Replica(PrivatePostgres):
    """A copy of another cluster that replicates from it."""

    def __init__(self, primary: PrivatePostgres) -> None:
        self.user, self.port = primary.user, free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="noventa-replica-"))
        if self.user:
            shutil.chown(self.folder, self.user)
        self.url = f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"
        source = f"host=127.0.0.1 port={primary.port} user=postgres"
        self._run("pg_basebackup", "-R", "-X", "stream", "-c", "fast", "-d", source)
        text = (self.folder / "postgresql.conf").read_text("utf-8")
        text = text.replace(f"port={primary.port}", f"port={self.port}")
        text = text.replace(str(primary.folder), str(self.folder))
        (self.folder / "postgresql.conf").write_text(text, "utf-8")
        self.start()

    def kill(self) -> None:
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def promote(self) -> None:
        self._run("pg_ctl", "-w", "promote")


@pytest.fixture
def replicas(cluster: PrivatePostgres) -> Iterator[list[Replica]]:
    """Two replicas of the primary `cluster`."""
    started: list[Replica] = []
    try:
        for _ in range(2):
            started.append(Replica(cluster))
        yield started
    finally:
        for replica in started:
            replica.remove()


def server_port(request: Any, session: Any, db: Any) -> dict[str, Any]:
    return {"port": db.scalar(sa.text("SELECT inet_server_port()"))}


def guard_port(request: Any, session: Any, db: Any) -> None:
    request.guarded_by = server_port(request, session, db)["port"]


def guarded_port(request: Any, session: Any, db: Any) -> dict[str, Any]:
    return {"guard": request.guarded_by, **server_port(request, session, db)}


def stream(request: Any, session: Any, db: Any) -> Any:
    return reply(f"{server_port(request, session, db)['port']} " for _ in range(3))


def replicated_app(
    root: Path, primary: PrivatePostgres, replicas: list[Replica], **settings: Any
) -> App:
    return counting_app(
        root, primary.url,
        Endpoint("/port", server_port, replica=True),
        Endpoint("/primary", server_port),
        Endpoint("/guarded", guarded_port, guards=[guard_port], replica=True),
        Endpoint("/value", value, replica=True),
        Endpoint("/count", increment, replica=True),
        Endpoint("/stream", stream, replica=True),
        action("/posted", server_port, replica=True),
        action("/increment", increment),
        replicas=[replica.url for replica in replicas], **settings,
    )  # fmt: skip


def ports(app: App, path: str = "/port", times: int = 6) -> set[int]:
    return {json.loads(ask(app, "GET", path).body)["port"] for _ in range(times)}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def wait_for_replay(replicas: list[Replica], expected: int) -> None:
    for replica in replicas:
        engine = sa.create_engine(replica.url, poolclass=sa.NullPool)

        def has_replayed(engine: sa.Engine = engine) -> bool:
            with orm.Session(engine) as session:
                return session.scalar(sa.select(Counter.value)) == expected

        wait_until(has_replayed)


def pause(replica: Replica, verb: str = "pause") -> None:
    engine = sa.create_engine(replica.url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"SELECT pg_wal_replay_{verb}()")


def test_only_entries_with_replica_true_read_from_replicas_in_turn(
    tmp_path: Path, cluster: PrivatePostgres, replicas: list[Replica]
) -> None:
    app = replicated_app(tmp_path, cluster, replicas)
    replica_ports = {replica.port for replica in replicas}
    assert ports(app) == replica_ports
    assert ports(app, "/primary") == {cluster.port}
    assert json.loads(ask(app, "POST", "/posted").body) == {"port": cluster.port}
    guarded = json.loads(ask(app, "GET", "/guarded").body)
    assert guarded["guard"] == cluster.port
    assert guarded["port"] in replica_ports
    streamed = set(map(int, ask(app, "GET", "/stream").text.split()))
    assert streamed <= replica_ports
    with app.database.sandbox():
        assert ports(app) == {cluster.port}
    app.database.dispose()


def test_a_request_that_writes_on_a_replica_is_rerun_on_the_primary(
    tmp_path: Path,
    cluster: PrivatePostgres,
    replicas: list[Replica],
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = replicated_app(tmp_path, cluster, replicas)
    assert ask(app, "GET", "/count").text == '{"value":1}'
    assert "GET /count writes: say writes=True on its entry" in caplog.text
    wait_for_replay(replicas, 1)
    assert ask(app, "GET", "/value").text == '{"value":1}'
    app.database.dispose()


def test_the_component_guard_of_a_replica_page_uses_the_primary(
    tmp_path: Path, cluster: PrivatePostgres, replicas: list[Replica]
) -> None:
    guard_ports: dict[str, int] = {}

    def guard(request, session, db):
        guard_ports["guard"] = server_port(request, session, db)["port"]

    logic = ModuleType("port_logic")
    logic.load_template_context = server_port  # type: ignore[attr-defined]
    files = {"page.html": "{{ component('port') }}", "port.html": "{{ port }}"}
    app = make_app(
        tmp_path, files,
        {"database": {"url": cluster.url, "replicas": [replica.url for replica in replicas]}},
        components=[Component("port", "port.html", logic=logic, guard=guard)],
        routes=[Page("/", "page.html", replica=True)],
    )  # fmt: skip
    assert int(Visitor(app).get().text) in {replica.port for replica in replicas}
    assert guard_ports == {"guard": cluster.port}
    app.database.dispose()


def test_a_lagging_replica_is_excluded_until_it_has_caught_up(
    tmp_path: Path,
    cluster: PrivatePostgres,
    replicas: list[Replica],
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = replicated_app(tmp_path, cluster, replicas, max_lag=0)
    slow, quick = replicas
    assert ports(app) == {slow.port, quick.port}
    pause(slow)
    ask(app, "POST", "/increment")
    wait_for_replay([quick], 1)
    time.sleep(1.2)  # until the lag of each is checked again
    assert ports(app) == {quick.port}
    assert caplog.text.count("is left out: it is") == 1
    pause(slow, "resume")
    wait_for_replay([slow], 1)
    time.sleep(1.2)
    assert ports(app) == {slow.port, quick.port}
    assert caplog.text.count("is in use again") == 1
    app.database.dispose()


def test_no_request_fails_while_replicas_die_return_and_are_promoted(
    tmp_path: Path,
    cluster: PrivatePostgres,
    replicas: list[Replica],
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = replicated_app(tmp_path, cluster, replicas)
    statuses: list[int] = []
    stopped = threading.Event()

    def visit() -> None:
        while not stopped.is_set():
            statuses.append(answered(app, "GET", "/value"))
            time.sleep(0.002)

    threads = [threading.Thread(target=visit) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        first, second = replicas
        first.kill()
        time.sleep(1.5)
        assert ports(app) == {second.port}
        second.promote()
        time.sleep(1.5)
        assert ports(app) == {cluster.port}
        first.start()
        wait_until(lambda: ports(app) == {first.port})
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}
    assert "is left out: it was promoted" in caplog.text
    app.database.dispose()


@pytest.mark.parametrize(
    ("url", "replica", "message"),
    [
        ("sqlite:///./a.db", "sqlite:///./b.db", "replicas must be postgresql:// URLs"),
        (
            "mysql://root@127.0.0.1/a",
            "mysql://root@127.0.0.1/b",
            "replicas must be postgresql:// URLs",
        ),
        ("postgresql://127.0.0.1/a", "hunter2", "replicas has an invalid URL"),
    ],
)
def test_unsupported_or_invalid_replica_urls_are_rejected_at_startup(
    url: str, replica: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Config.from_mapping({"database": {"url": url, "replicas": [replica]}}, ".")
    assert "hunter2" not in str(caught.value)


def test_replica_true_without_replicas_is_allowed(tmp_path: Path) -> None:
    app = counting_app(tmp_path, "sqlite:///./a.db", Endpoint("/", value, replica=True))
    assert ask(app).text == '{"value":0}'
