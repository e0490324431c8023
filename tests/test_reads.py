"""Plain reads without a transaction on PostgreSQL: nothing that a handler can observe changes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import sqlalchemy as sa
from conftest import new_database
from sqlalchemy import event, orm

from noventa import Config, Database


class Base(orm.DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "accounts"

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    owner: orm.Mapped[str]
    balance: orm.Mapped[int]


WRITERS = """
CREATE SCHEMA stats;
CREATE FUNCTION stats.count(integer) RETURNS integer LANGUAGE sql
    AS 'INSERT INTO accounts (owner, balance) VALUES (''Mallory'', $1) RETURNING balance';
CREATE FUNCTION noisy(integer) RETURNS boolean LANGUAGE sql AS 'SELECT stats.count($1) IS NOT NULL';
CREATE VIEW "my-accounts" AS SELECT stats.count(1) AS id;
CREATE DOMAIN counted AS integer CHECK (noisy(VALUE));
CREATE OPERATOR @# (RIGHTARG = integer, FUNCTION = stats.count);
CREATE TABLE ruled (id integer);
CREATE RULE noted AS ON UPDATE TO ruled DO INSTEAD SELECT stats.count(1);
"""
VIEW = sa.Table("stamped_accounts", sa.MetaData(), sa.Column("id", sa.Integer))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A PostgreSQL database of its own, with a table, a view and two rows."""
    with new_database("postgresql") as url:
        engine = sa.create_engine(url)
        Base.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(
                sa.insert(Account),
                [{"owner": "Ada", "balance": 10}, {"owner": "Bob", "balance": 20}],
            )
            connection.exec_driver_sql("CREATE VIEW stamped_accounts AS SELECT id FROM accounts")
            connection.exec_driver_sql(WRITERS)
        engine.dispose()
        yield url


def open_database(url: str, root: Path, *, autocommit: bool) -> Database:
    settings = {"database": {"url": url, "autocommit_reads": autocommit}}
    database = Database(Config.from_mapping(settings, root))
    with database.engine.connect():  # the first connection tells the isolation level
        pass
    return database


def in_transaction(database: Database) -> bool:
    return in_transaction_of(database.scoped())


def in_transaction_of(db: orm.Session) -> bool:
    driver: Any = db.connection().connection.dbapi_connection
    return driver.info.transaction_status != psycopg.pq.TransactionStatus.IDLE


PLAIN = {
    "by key": lambda db: db.get(Account, 1).owner,
    "filter": lambda db: db.query(Account.owner).filter(Account.balance > 10).all(),
    "ordered and limited": lambda db: db.scalars(
        sa.select(Account.owner).order_by(Account.owner.desc()).limit(1)
    ).all(),
    "count": lambda db: db.scalar(sa.select(sa.func.count()).select_from(Account)),
    "in": lambda db: db.query(Account.owner).filter(Account.id.in_([1, 2])).count(),
    "exists": lambda db: db.scalar(sa.select(sa.exists().where(Account.owner == "Ada"))),
    "view": lambda db: sorted(db.scalars(sa.select(VIEW.c.id)).all()),
    "window": lambda db: db.execute(sa.select(sa.func.rank().over(order_by=Account.id))).all(),
    "function": lambda db: db.scalar(sa.select(sa.func.round(sa.func.random() * 0))),
    "with": lambda db: db.scalar(sa.text("WITH one AS (SELECT 1 AS n) SELECT n FROM one")),
    "union": lambda db: len(
        db.execute(sa.union_all(sa.select(Account.id), sa.select(Account.balance))).all()
    ),
}
NOT_PLAIN = {
    "insert": lambda db: db.execute(sa.insert(Account).values(owner="Cy", balance=1)).rowcount,
    "update": lambda db: db.execute(sa.update(Account).values(balance=0)).rowcount,
    "flush": lambda db: (db.add(Account(owner="Di", balance=1)), db.flush())[1],
    "text dml": lambda db: db.execute(sa.text("DELETE FROM accounts")).rowcount,
    "hidden dml": lambda db: db.execute(
        sa.text("WITH gone AS (DELETE FROM accounts RETURNING id) SELECT count(*) FROM gone")
    ).scalar(),
    "for update": lambda db: len(db.query(Account.owner).with_for_update().all()),
    "for share": lambda db: db.scalars(sa.select(Account.id).with_for_update(read=True)).all(),
    "unknown function": lambda db: db.scalar(sa.select(sa.func.set_config("a.b", "1", True))),
    "sequence": lambda db: isinstance(
        db.scalar(sa.select(sa.func.nextval("accounts_id_seq"))), int
    ),
    "now": lambda db: db.scalar(sa.select(sa.func.now())) == db.scalar(sa.select(sa.func.now())),
    "keyword of time": lambda db: bool(db.scalar(sa.select(sa.func.current_timestamp()))),
    "advisory lock": lambda db: db.scalar(sa.select(sa.func.pg_advisory_xact_lock(7))),
    "savepoint": lambda db: db.begin_nested().is_active,
    "server-side cursor": lambda db: (
        db.connection().execution_options(stream_results=True).execute(sa.select(Account.id)).all()
    ),
    "row by row": lambda db: [  # by a server-side cursor
        row.id for row in db.scalars(sa.select(Account).execution_options(yield_per=1))
    ],
    "function that writes": lambda db: db.scalar(sa.select(sa.func.stats.count(5))),
    "view that writes": lambda db: db.scalar(sa.text('SELECT id FROM "my-accounts"')),
    "domain that writes": lambda db: db.scalar(sa.text("SELECT 7::counted")),
    "operator that writes": lambda db: db.scalar(sa.text("SELECT @# 8")),
    "rule that writes": lambda db: db.execute(sa.text("UPDATE ruled SET id = 1")).all(),
    "values that draw": lambda db: isinstance(
        db.scalar(sa.text("VALUES (nextval('accounts_id_seq'))")), int
    ),
    "table made by a select": lambda db: (
        db.execute(sa.text("SELECT 1 AS n INTO TEMPORARY copied")).rowcount
    ),
    "two statements": lambda db: (
        db.connection().exec_driver_sql("SELECT 1; DELETE FROM accounts").rowcount
    ),
    "two settings": lambda db: (
        db.connection().exec_driver_sql("SELECT 1; SET search_path = public, stats").rowcount
    ),
    "message": lambda db: db.scalar(sa.select(sa.func.pg_notify("a", "b"))),
    "large object": lambda db: db.scalar(sa.select(sa.func.lo_create(0))) > 0,
    "setting of the session": lambda db: db.scalar(
        sa.select(sa.func.set_config("search_path", "public, stats", False))
    ),
    "driver's sql": lambda db: db.connection().exec_driver_sql("SET LOCAL x.y = 'z'").rowcount,
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_read_needs_no_transaction(name: str, url: str, tmp_path: Path) -> None:
    database = open_database(url, tmp_path, autocommit=True)
    with database.scope(writes=False):
        PLAIN[name](database.scoped)
        assert not in_transaction(database)
    database.engine.dispose()


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_anything_else_begins_one_first(name: str, url: str, tmp_path: Path) -> None:
    database = open_database(url, tmp_path, autocommit=True)
    with database.scope(writes=False):
        NOT_PLAIN[name](database.scoped)
        assert in_transaction(database)
    database.engine.dispose()


@pytest.mark.parametrize("name", PLAIN | NOT_PLAIN)
def test_both_modes_answer_the_same_and_leave_the_same(name: str, url: str, tmp_path: Path) -> None:
    answers = []
    for autocommit in (True, False):
        database = open_database(url, tmp_path, autocommit=autocommit)
        with database.scope(writes=False) as scope:
            first = (PLAIN | NOT_PLAIN)[name](database.scoped)
            seen = database.scoped.query(Account.owner, Account.balance).order_by("owner").all()
            noted = bool(scope.uncommitted())
            database.scoped.rollback()
            after = database.scoped.query(Account.owner, Account.balance).order_by("owner").all()
        answers.append((first, seen, noted, after))
        assert database.engine.pool.checkedout() == 0
        database.engine.dispose()
    assert answers[0] == answers[1]


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_commit_in_a_read_request_keeps_what_was_written(
    autocommit: bool, url: str, tmp_path: Path
) -> None:
    database = open_database(url, tmp_path, autocommit=autocommit)
    with database.scope(writes=False):
        database.scoped.get(Account, 1)
        database.scoped.add(Account(owner="Eve", balance=5))
        database.scoped.commit()
    with database.session() as db:
        assert db.query(Account).filter_by(owner="Eve").delete() == 1
        db.commit()
    database.engine.dispose()


@pytest.mark.parametrize("autocommit", [True, False])
def test_after_an_error_nothing_goes_until_a_rollback(
    autocommit: bool, url: str, tmp_path: Path
) -> None:
    database = open_database(url, tmp_path, autocommit=autocommit)
    with database.scope(writes=False):
        db = database.scoped
        with pytest.raises(sa.exc.DataError):
            db.query(Account).filter(Account.balance > 2**70).all()
        with pytest.raises(sa.exc.InternalError):
            db.query(Account).all()
        db.rollback()
        assert db.query(Account).count() == 2
    database.engine.dispose()


def test_a_savepoint_undoes_its_part_only(url: str, tmp_path: Path) -> None:
    database = open_database(url, tmp_path, autocommit=True)
    with database.scope(writes=False):
        db = database.scoped
        db.query(Account).filter_by(id=1).update({"balance": 77})
        with db.begin_nested() as nested:
            db.query(Account).filter_by(id=1).update({"balance": 99})
            nested.rollback()
        assert db.scalar(sa.select(Account.balance).where(Account.id == 1)) == 77
    database.engine.dispose()


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_another_isolation_level_keeps_its_transactions(
    level: str, url: str, tmp_path: Path
) -> None:
    settings = {"database": {"url": url, "isolation_level": level}}
    database = Database(Config.from_mapping(settings, tmp_path))
    for _ in range(2):
        with database.scope(writes=False):
            database.scoped.get(Account, 1)
            assert in_transaction(database)
    database.engine.dispose()


@pytest.mark.parametrize(
    ("level", "shown"), [("REPEATABLE READ", "repeatable read"), ("AUTOCOMMIT", "read committed")]
)
def test_a_level_that_a_handler_chooses_is_kept(
    level: str, shown: str, url: str, tmp_path: Path
) -> None:
    database = open_database(url, tmp_path, autocommit=True)
    for _ in range(2):
        with database.scope(writes=False):
            database.scoped.connection(execution_options={"isolation_level": level})
            assert database.scoped.scalar(sa.text("SHOW transaction_isolation")) == shown
            assert in_transaction(database) == (level != "AUTOCOMMIT")
        with database.scope(writes=False):
            database.scoped.get(Account, 1)
            assert not in_transaction(database)
    database.engine.dispose()


def test_autocommit_that_is_configured_stays(url: str, tmp_path: Path) -> None:
    settings = {"database": {"url": url, "isolation_level": "AUTOCOMMIT"}}
    database = Database(Config.from_mapping(settings, tmp_path))
    for writes in (False, True, False):
        with database.scope(writes=writes):
            database.scoped.get(Account, 1)
            driver: Any = database.scoped.connection().connection.dbapi_connection
            assert driver.autocommit
            assert not in_transaction(database)
    database.engine.dispose()


def test_another_engine_of_the_application_is_left_alone(url: str, tmp_path: Path) -> None:
    database, other = open_database(url, tmp_path, autocommit=True), sa.create_engine(url)
    on_other = {"bind_arguments": {"bind": other}}
    with database.scope(writes=False):
        database.scoped.get(Account, 1)
        database.scoped.scalars(sa.select(Account.id), **on_other).all()
        assert not in_transaction(database)
    with database.scope(writes=True):
        database.scoped.execute(sa.update(Account).values(balance=0), **on_other)
    with other.connect() as connection:
        assert connection.scalars(sa.select(Account.balance).order_by("id")).all() == [10, 20]
    other.dispose()
    database.engine.dispose()


@pytest.mark.parametrize("name", ["begin", "engine_connect"])
def test_what_a_listener_has_begun_stays_a_transaction(name: str, url: str, tmp_path: Path) -> None:
    database = open_database(url, tmp_path, autocommit=True)
    event.listen(database.engine, name, lambda connection: connection.scalar(sa.text("SELECT 1")))
    for _ in range(2):
        with database.scope(writes=False):
            database.scoped.get(Account, 1)
            assert in_transaction(database)
    database.engine.dispose()


def test_what_reads_plainly_leaves_the_connection_as_it_was(url: str, tmp_path: Path) -> None:
    database = open_database(url, tmp_path, autocommit=True)
    for handle in (PLAIN["by key"], NOT_PLAIN["update"]):
        with database.scope(writes=False):
            handle(database.scoped)
        with database.engine.connect() as connection:
            driver: Any = connection.connection.dbapi_connection
            assert not driver.autocommit
            connection.execute(sa.update(Account).values(balance=0))
        with database.session() as db:
            assert db.scalars(sa.select(Account.balance).order_by("id")).all() == [10, 20]
            assert in_transaction_of(db)
    database.engine.dispose()


def test_a_post_has_its_transaction_from_the_first_read(url: str, tmp_path: Path) -> None:
    database = open_database(url, tmp_path, autocommit=True)
    with database.scope(writes=True) as scope:
        database.scoped.get(Account, 1)
        assert in_transaction(database)
        scope.begin_anew(writes=False)  # as after an action
        database.scoped.get(Account, 1)
        assert not in_transaction(database)
    database.engine.dispose()


BY_HAND = {
    "cursor": lambda driver: driver.execute("DELETE FROM accounts"),
    "copy": lambda driver: driver.cursor().copy("COPY accounts FROM STDIN").__enter__(),
    "function": lambda driver: driver.execute("SELECT stats.count(3)"),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_driver_keeps_nothing_without_a_commit(name: str, url: str, tmp_path: Path) -> None:
    database = open_database(url, tmp_path, autocommit=True)
    with database.scope(writes=False):
        database.scoped.get(Account, 1)
        driver: Any = database.scoped.connection().connection.dbapi_connection
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            BY_HAND[name](driver)
    with database.session() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(Account)) == 2
    database.engine.dispose()


def test_a_connection_that_has_read_still_writes_whatever_way_it_is_used(
    url: str, tmp_path: Path
) -> None:
    database = open_database(url, tmp_path, autocommit=True)
    engine, update = database.engine, sa.update(Account).values(balance=Account.balance)
    for use in ("session", "connection", "autocommit", "raw"):
        with database.scope(writes=False):
            database.scoped.get(Account, 1)
        if use == "session":
            with database.session() as db:
                assert db.execute(update).rowcount == 2
                db.rollback()
        elif use == "raw":
            raw = engine.raw_connection()
            assert raw.cursor().execute("UPDATE accounts SET id = id").rowcount == 2
            raw.close()
        else:
            level = {"isolation_level": "AUTOCOMMIT"} if use == "autocommit" else {}
            with engine.connect().execution_options(**level) as connection:
                assert connection.execute(update).rowcount == 2
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    engine.dispose()


def test_a_level_set_for_the_session_keeps_its_transactions(url: str, tmp_path: Path) -> None:
    database = open_database(url, tmp_path, autocommit=True)
    level = "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE"
    for chosen in (False, True):
        with database.scope(writes=True):
            if chosen:
                database.scoped.execute(sa.text(level))
                database.scoped.commit()
        with database.scope(writes=False):
            database.scoped.get(Account, 1)
            assert in_transaction(database) == chosen
    database.engine.dispose()


@pytest.mark.parametrize(
    "options",
    ["-c default_transaction_read_only=on", "-c default_transaction_isolation=serializable"],
)
def test_what_the_connection_says_of_its_transactions_counts(
    options: str, url: str, tmp_path: Path
) -> None:
    database = open_database(f"{url}?options={quote(options)}", tmp_path, autocommit=True)
    with database.scope(writes=False):
        database.scoped.get(Account, 1)
        assert in_transaction(database)
    with database.scope(writes=True):
        if "read_only" in options:
            with pytest.raises(sa.exc.InternalError, match="read-only"):
                database.scoped.execute(sa.update(Account).values(balance=0))
    database.engine.dispose()


def on_the_wire(database: Database, handle: Any, log: Path) -> tuple[list[str], int]:
    """The statements that libpq sends for one request, by its own log, and the round trips."""
    with database.scope(writes=False):  # the first read of a connection makes it ready for others
        database.scoped.get(Account, 1)
    connection = database.engine.raw_connection()  # the one that the pool gives out next
    pgconn = connection.dbapi_connection.pgconn  # type: ignore[union-attr]
    connection.close()
    with log.open("w+") as file:
        pgconn.trace(file.fileno())
        with database.scope(writes=False):
            handle(database.scoped)
        pgconn.untrace()
        text = log.read_text("utf-8")
    statements = re.findall(r'\tF\t\d+\t(?:Query|Parse)\t (?:"" )?"(\w+)', text)
    return statements, text.count("ReadyForQuery")


def test_a_plain_read_is_one_round_trip(url: str, tmp_path: Path) -> None:
    logs = []
    for autocommit in (True, False):
        database = open_database(url, tmp_path, autocommit=autocommit)
        for handle in (PLAIN["by key"], NOT_PLAIN["update"]):
            logs.append(on_the_wire(database, handle, tmp_path / "wire.log"))
        database.engine.dispose()
    assert logs == [
        (["SELECT"], 1),
        (["BEGIN", "UPDATE", "ROLLBACK"], 3),
        (["BEGIN", "SELECT", "ROLLBACK"], 3),
        (["BEGIN", "UPDATE", "ROLLBACK"], 3),
    ]


def test_between_plain_reads_no_session_is_idle_in_transaction(url: str, tmp_path: Path) -> None:
    sent = {}
    for autocommit in (True, False):
        database = open_database(url, tmp_path, autocommit=autocommit)
        log: list[str] = []
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as watch:
            with database.scope(writes=False):
                database.scoped.get(Account, 1)
                driver: Any = database.scoped.connection().connection.dbapi_connection
                row = watch.execute(
                    "SELECT state FROM pg_stat_activity WHERE pid = %s", [driver.info.backend_pid]
                ).fetchone()
            log.append(str(row and row[0]))
        sent[autocommit] = log
        database.engine.dispose()
    assert sent == {True: ["idle"], False: ["idle in transaction"]}


@pytest.mark.parametrize(("fresh", "expected"), [(60.0, 0), (-1.0, 3)])
def test_a_connection_in_constant_use_is_not_pinged(
    fresh: float, expected: int, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noventa._FRESH", fresh)  # seconds
    database = open_database(url, tmp_path, autocommit=True)
    pings: list[Any] = []
    original = database.engine.dialect.do_ping
    database.engine.dialect.do_ping = lambda c: pings.append(c) or original(c)  # type: ignore[method-assign,func-returns-value]
    checkouts: list[Any] = []
    event.listen(database.engine, "checkout", lambda *args: checkouts.append(args))
    for _ in range(3):
        with database.scope(writes=False):
            database.scoped.get(Account, 1)
    assert len(checkouts) == 3
    assert len(pings) == expected
    database.engine.dispose()
