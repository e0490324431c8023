"""The session and the connection of a plain read are ready for the next; nobody can tell."""

from __future__ import annotations

import time
import weakref
from pathlib import Path

import pytest
import sqlalchemy as sa
from counters import Counter
from sqlalchemy import event, orm

import noventa
from noventa import Config, Database


@pytest.fixture
def make(tmp_path, database):
    """Makes a Database with one row; `settings` are those of the section `database`."""
    if database.startswith("mysql"):
        pytest.skip("there a plain read has a transaction")
    made = []

    def make_database(**settings):
        config = Config.from_mapping({"database": {"url": database, **settings}}, tmp_path)
        made.append(Database(config))
        Counter.metadata.create_all(made[-1].engine)
        with made[-1].session() as db:
            db.merge(Counter(id=1, value=10))
            db.commit()
        return made[-1]

    yield make_database
    for each in made:
        each.engine.dispose()


kept = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)


def read(database, ask=lambda db: db.get(Counter, 1).value):
    """What a GET would ask: the answer, and the driver's connection that gave it."""
    with database.scope(writes=False):
        return ask(database.scoped), database.scoped.connection().connection.dbapi_connection


@kept
def test_the_next_read_has_the_same_connection_and_the_pool_counts_none_as_used(make):
    database = make()
    first, second = read(database), read(database)
    assert first == second
    assert len(database.engine.pool.ready) == 1
    assert database.engine.pool.checkedout() == 0
    assert database.engine.pool.checkedin() == 1


@kept
def test_each_read_sees_what_others_committed_meanwhile(make):
    database, other = make(), make()
    for value in (11, 12, 13):
        with other.session() as db:
            db.get(Counter, 1).value = value
            db.commit()
        assert read(database)[0] == value


def fail(db):
    with pytest.raises(sa.exc.DBAPIError):
        db.execute(sa.text("SELECT nothing FROM nowhere"))


def save(db):
    with db.begin_nested():
        return db.get(Counter, 1)


def add(db):
    db.add(Counter(id=2, value=5))
    db.flush()


NOT_PLAIN = {
    "flush": add,
    "flush after a read": lambda db: (db.get(Counter, 1), add(db)),
    "bulk": lambda db: db.bulk_insert_mappings(Counter, [{"id": 3, "value": 1}]),
    "error": fail,
    "savepoint": save,
    "write": lambda db: db.execute(sa.update(Counter).values(value=0)),
    "stream": lambda db: db.execute(sa.select(Counter).execution_options(yield_per=1)).all(),
    "option": lambda db: db.connection(execution_options={"isolation_level": "SERIALIZABLE"}),
}


@kept
@pytest.mark.parametrize("ask", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_after_anything_but_a_plain_read_the_pool_takes_it_back(make, ask):
    database = make()
    read(database, ask)
    assert not database.engine.pool.ready
    assert read(database)[0] == 10


@kept
def test_a_transaction_begun_by_hand_is_left_to_the_pool(make):
    database = make()

    def begin(db):
        driver = db.connection().connection.dbapi_connection
        is_sqlite = db.get_bind().dialect.name == "sqlite"
        if is_sqlite:
            driver.commit()
        driver.execute("BEGIN" if is_sqlite else "BEGIN READ WRITE")
        driver.execute("DELETE FROM counters")

    read(database, begin)
    assert read(database)[0] == 10


@kept
def test_whoever_writes_gets_a_ready_connection_where_there_is_no_other(make):
    database = make(pool_size=2, max_overflow=0, pool_timeout=2)
    with database.engine.connect():
        read(database)
        with database.session() as db:
            db.get(Counter, 1).value += 1
            db.commit()
    assert read(database)[0] == 11


@kept
def test_those_who_listen_to_the_pool_hear_of_each_request(make):
    database = make()
    heard = []
    event.listen(database.engine, "checkout", lambda *_: heard.append("out"))
    event.listen(database.engine, "checkin", lambda *_: heard.append("in"))
    read(database)
    read(database)
    assert heard == ["out", "in", "out", "in"]


@kept
def test_a_connection_over_its_age_is_not_used_again(make):
    database = make(pool_recycle=1)
    first, end = read(database)[1], time.monotonic() + 2
    while read(database)[1] is first:
        assert time.monotonic() < end
        time.sleep(0.02)


@kept
def test_dispose_closes_what_is_ready(make):
    database = make()
    read(database)
    (ready,) = database.engine.pool.ready
    connection = ready.held
    database.engine.dispose()
    assert not database.engine.pool.ready
    assert connection.closed


@kept
def test_the_pool_writes_nothing_into_the_log_of_the_application(make, caplog):
    caplog.set_level("DEBUG", "noventa")
    database = make()
    read(database)
    database.engine.dispose()
    assert caplog.text == ""


@kept
def test_a_flush_after_a_rollback_needs_no_second_connection(make):
    database = make(pool_size=1, max_overflow=0, pool_timeout=1)

    def ask(db):
        db.get(Counter, 1)
        db.rollback()
        db.bulk_insert_mappings(Counter, [{"id": 3, "value": 1}])
        db.rollback()
        add(db)

    read(database, ask)
    assert read(database, lambda db: db.scalar(sa.func.count(Counter.id))) is not None
    assert read(database)[0] == 10


def listen(db):
    event.listen(db(), "before_flush", lambda *_: None)


CACHE = weakref.WeakKeyDictionary()
SET_UP = {
    "listener": listen,
    "autoflush": lambda db: setattr(db, "autoflush", False),
    "attribute": lambda db: setattr(db(), "tenant", 7),
    "options of a connection": lambda db: db.connection().execution_options(my_option=1),
    "begun anew by hand": lambda db: (db.rollback(), db.connection().get_transaction()),
    "another bind": lambda db: setattr(db(), "bind", db.get_bind().execution_options(tenant=7)),
    "bind of a model": lambda db: db().bind_mapper(Counter, db.get_bind()),
    "listener of a connection": lambda db: event.listen(db.connection(), "begin", lambda _: None),
    "detached": lambda db: db.connection().detach(),
    "cache of a session": lambda db: CACHE.update({db(): 7}),
    "cache of a connection": lambda db: CACHE.update({db.connection(): 7}),
}


@kept
@pytest.mark.parametrize("set_up", SET_UP.values(), ids=SET_UP)
def test_a_session_that_was_set_up_serves_one_request_only(make, set_up):
    database = make()
    read(database)
    ready = id(*database.engine.pool.ready)  # only its number: who has hold of it keeps it

    def ask(db):
        assert id(db()) == ready
        set_up(db)

    read(database, ask)
    if set_up is not SET_UP["begun anew by hand"]:
        assert not database.engine.pool.ready
    assert read(database)[0] == 10


@kept
@pytest.mark.parametrize("hold", [lambda db: db(), lambda db: db.connection()])
def test_what_somebody_still_holds_serves_nobody_else(make, hold):
    database = make()
    mine = read(database, hold)[0]
    assert not database.engine.pool.ready
    read(database)
    (ready,) = database.engine.pool.ready
    assert mine is not ready
    assert mine is not ready.held


@kept
def test_what_a_request_leaves_in_its_session_is_gone(make):
    database = make()

    def leave(db):
        db.info["tenant"] = 7
        counter = db.get(Counter, 1)
        counter.value = 0
        return counter

    counter = read(database, leave)[0]
    (ready,) = database.engine.pool.ready
    assert "tenant" not in ready.info
    assert not ready.dirty
    assert orm.object_session(counter) is None
    assert read(database)[0] == 10


@kept
def test_the_bind_of_a_session_is_the_engine(make):
    database = make()
    for _ in range(2):
        assert (
            read(database, lambda db: (db.get(Counter, 1), db.get_bind())[1])[0] is database.engine
        )


@kept
def test_options_of_a_connection_count_after_a_plain_read_too(make):
    database = make()
    options = {"isolation_level": "SERIALIZABLE", "my_option": 1}

    def ask(db):
        db.get(Counter, 1)
        db.rollback()
        return db.connection(execution_options=options).get_execution_options()

    read(database)
    assert read(database, ask)[0]["my_option"] == 1
    assert read(database, lambda db: dict(db.connection().get_execution_options()))[0] == {}


@kept
@pytest.mark.filterwarnings("ignore:transaction already deassociated")  # SQLAlchemy's, of that
def test_whoever_closes_the_connection_has_another_after_a_rollback(make):
    database = make()

    def ask(db):
        db.connection().close()
        db.rollback()
        return db.get(Counter, 1).value

    for _ in range(2):
        assert read(database, ask)[0] == 10


@kept
@pytest.mark.parametrize("end", ["close", "commit", "rollback", "remove", "reset"])
def test_who_ends_a_transaction_gives_its_connection_back_at_once(make, end):
    database = make(pool_size=1, max_overflow=0, pool_timeout=1)

    def ask(db):
        session = db()
        value = db.get(Counter, 1).value
        if end == "remove":
            db.remove()
        else:
            getattr(session, end)()
        with database.session() as other:
            return value, other.get(Counter, 1).value, session is not None

    assert read(database, ask)[0] == (10, 10, True)


@kept
def test_a_connection_of_a_transaction_that_ended_is_closed(make):
    database = make()

    def ask(db):
        connection = db.connection()
        db.rollback()
        with pytest.raises(sa.exc.ResourceClosedError):
            connection.exec_driver_sql("DELETE FROM counters")
        db.get(Counter, 1).value = 11
        db.commit()

    read(database, ask)
    assert read(database)[0] == 11


def count(database, number):
    with database.session() as db:
        db.get(Counter, 1).value += number
        db.commit()


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("reads_first", [True, False])
def test_a_file_that_was_replaced_is_seen_by_who_writes_or_has_waited(make, reads_first):
    database = make()
    count(database, 5)
    read(database)
    Path(database.engine.url.database).unlink()
    new = make()  # its counter is at 10
    if reads_first:
        time.sleep(noventa._FRESH * 1.5)
        assert read(database)[0] == 10
    count(database, 1)
    assert read(database)[0] == read(new)[0] == 11
