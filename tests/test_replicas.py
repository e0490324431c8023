"""Replicas of PostgreSQL: entries with replica=True read there, and everything else never does."""

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
    """A copy of another cluster, which follows it."""

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
    made: list[Replica] = []
    try:
        for _ in range(2):
            made.append(Replica(cluster))
        yield made
    finally:
        for replica in made:
            replica.remove()


def server_port(request: Any, session: Any, db: Any) -> dict[str, Any]:
    return {"port": db.scalar(sa.text("SELECT inet_server_port()"))}


def sees_port(request: Any, session: Any, db: Any) -> None:
    request.guarded_by = server_port(request, session, db)["port"]


def guarded_port(request: Any, session: Any, db: Any) -> dict[str, Any]:
    return {"guard": request.guarded_by, **server_port(request, session, db)}


def stream(request: Any, session: Any, db: Any) -> Any:
    return reply(f"{server_port(request, session, db)['port']} " for _ in range(3))


def make(root: Path, primary: PrivatePostgres, replicas: list[Replica], **settings: Any) -> App:
    return counting_app(
        root, primary.url,
        Endpoint("/port", server_port, replica=True),
        Endpoint("/primary", server_port),
        Endpoint("/guarded", guarded_port, guards=[sees_port], replica=True),
        Endpoint("/value", value, replica=True),
        Endpoint("/count", increment, replica=True),
        Endpoint("/stream", stream, replica=True),
        action("/posted", server_port, replica=True),
        action("/increment", increment),
        replicas=[replica.url for replica in replicas], **settings,
    )  # fmt: skip


def ports(app: App, path: str = "/port", times: int = 6) -> set[int]:
    return {json.loads(ask(app, "GET", path).body)["port"] for _ in range(times)}


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def caught_up(replicas: list[Replica], expected: int) -> None:
    for replica in replicas:
        engine = sa.create_engine(replica.url, poolclass=sa.NullPool)

        def is_there(engine: sa.Engine = engine) -> bool:
            with orm.Session(engine) as session:
                return session.scalar(sa.select(Counter.value)) == expected

        until(is_there)


def pause(replica: Replica, verb: str = "pause") -> None:
    engine = sa.create_engine(replica.url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"SELECT pg_wal_replay_{verb}()")


def test_only_entries_with_the_word_read_from_replicas_and_in_turn(
    tmp_path: Path, cluster: PrivatePostgres, replicas: list[Replica]
) -> None:
    app = make(tmp_path, cluster, replicas)
    both = {replica.port for replica in replicas}
    assert ports(app) == both
    assert ports(app, "/primary") == {cluster.port}
    assert json.loads(ask(app, "POST", "/posted").body) == {"port": cluster.port}
    guarded = json.loads(ask(app, "GET", "/guarded").body)
    assert guarded["guard"] == cluster.port
    assert guarded["port"] in both
    streamed = set(map(int, ask(app, "GET", "/stream").text.split()))
    assert streamed <= both
    with app.database.sandbox():
        assert ports(app) == {cluster.port}
    app.database.dispose()


def test_a_write_on_a_replica_is_answered_once_more_on_the_primary(
    tmp_path: Path,
    cluster: PrivatePostgres,
    replicas: list[Replica],
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = make(tmp_path, cluster, replicas)
    assert ask(app, "GET", "/count").text == '{"value":1}'
    assert "GET /count writes: say writes=True on its entry" in caplog.text
    caught_up(replicas, 1)
    assert ask(app, "GET", "/value").text == '{"value":1}'
    app.database.dispose()


def test_a_page_on_a_replica_has_its_component_s_guard_on_the_primary(
    tmp_path: Path, cluster: PrivatePostgres, replicas: list[Replica]
) -> None:
    seen: dict[str, int] = {}

    def guard(request, session, db):
        seen["guard"] = server_port(request, session, db)["port"]

    logic = ModuleType("shown_logic")
    logic.load_template_context = server_port  # type: ignore[attr-defined]
    files = {"page.html": "{{ component('shown') }}", "shown.html": "{{ port }}"}
    app = make_app(
        tmp_path, files,
        {"database": {"url": cluster.url, "replicas": [replica.url for replica in replicas]}},
        components=[Component("shown", "shown.html", logic=logic, guard=guard)],
        routes=[Page("/", "page.html", replica=True)],
    )  # fmt: skip
    assert int(Visitor(app).get().text) in {replica.port for replica in replicas}
    assert seen == {"guard": cluster.port}
    app.database.dispose()


def test_a_replica_that_is_behind_is_left_out_until_it_has_caught_up(
    tmp_path: Path,
    cluster: PrivatePostgres,
    replicas: list[Replica],
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = make(tmp_path, cluster, replicas, max_lag=0)
    slow, quick = replicas
    assert ports(app) == {slow.port, quick.port}
    pause(slow)
    ask(app, "POST", "/increment")
    caught_up([quick], 1)
    time.sleep(1.2)  # until each is asked again
    assert ports(app) == {quick.port}
    assert caplog.text.count("is left out: it is") == 1
    pause(slow, "resume")
    caught_up([slow], 1)
    time.sleep(1.2)
    assert ports(app) == {slow.port, quick.port}
    assert caplog.text.count("is in use again") == 1
    app.database.dispose()


def test_no_request_fails_while_replicas_die_come_back_and_are_promoted(
    tmp_path: Path,
    cluster: PrivatePostgres,
    replicas: list[Replica],
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = make(tmp_path, cluster, replicas)
    statuses: list[int] = []
    ended = threading.Event()

    def visit() -> None:
        while not ended.is_set():
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
        until(lambda: ports(app) == {first.port})
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}
    assert "is left out: it was promoted" in caplog.text
    app.database.dispose()


@pytest.mark.parametrize(
    ("url", "replica", "fault"),
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
def test_replicas_of_a_database_that_has_none_are_a_fault_at_the_start(
    url: str, replica: str, fault: str
) -> None:
    with pytest.raises(ConfigError, match=fault) as caught:
        Config.from_mapping({"database": {"url": url, "replicas": [replica]}}, ".")
    assert "hunter2" not in str(caught.value)


def test_the_word_without_replicas_is_nothing_wrong(tmp_path: Path) -> None:
    app = counting_app(tmp_path, "sqlite:///./a.db", Endpoint("/", value, replica=True))
    assert ask(app).text == '{"value":0}'
