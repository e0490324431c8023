"""Changes of tables that hold rows: every value, index, trigger and constraint, up and down."""

from __future__ import annotations

import datetime
import decimal
import secrets
import uuid
from contextlib import contextmanager
from typing import NamedTuple

import pytest
import sqlalchemy as sa
from conftest import DATABASES, Site, new_database

pytestmark = pytest.mark.slow


class Change(NamedTuple):
    """A column `v` of type `old` becomes one of type `new`."""

    old: str
    new: str
    kept: dict  # values, as text says them in `old`, and what they are in `new`
    refused: tuple = ()  # values that `new` cannot hold as they are


CHANGES = [
    Change("Date", "DateTime", {"2020-05-01": "2020-05-01 00:00:00"}),
    Change("DateTime", "Date", {"2020-05-01 00:00:00": "2020-05-01"}, ("2020-05-01 10:00:00",)),
    Change("String(40)", "Integer", {"12": 12, "-3": -3, "0": 0}, ("D-10115", "007", "1.5")),
    Change("String(40)", "Numeric(10, 2)", {"1.25": "1.25", "-3.75": "-3.75"},
           ("D-10115", "1.555", "007")),
    Change("String(40)", "Boolean", {"1": True, "0": False}, ("perhaps", "2")),
    Change("String(40)", "DateTime", {"2020-05-01 10:30:00": "2020-05-01 10:30:00"},
           ("yesterday",)),
    Change("String(40)", "Date", {"2020-05-01": "2020-05-01"}, ("2020-13-01",)),
    Change("String(40)", "Time", {"10:30:00": "10:30:00"}, ("noon",)),
    Change("String(40)", "Interval", {}, ("long",)),
    Change("String(40)", "JSON", {'{"a": [1]}': "{'a': [1]}"}, ("{a",)),
    Change("String(40)", "Enum('a', 'b', name='letter')", {"a": "a", "b": "b"}, ("c",)),
    Change("String(40)", "Uuid", {"550e8400-e29b-41d4-a716-446655440000":
                                  "550e8400-e29b-41d4-a716-446655440000"}, ("550e8400",)),
    Change("String(200)", "String(10)", {"short": "short"}),
    Change("String(10)", "Text", {"short": "short"}),
    Change("Integer", "BigInteger", {7: 7}),
    Change("Integer", "Boolean", {1: True, 0: False}, (2,)),
    Change("Integer", "String(20)", {7: "7", -7: "-7"}),
    Change("Boolean", "Integer", {True: 1, False: 0}),
    Change("Boolean", "String(9)", {True: "1", False: "0"}),
    Change("Numeric(10, 2)", "Integer", {"7.00": 7}, ("7.50",)),
    Change("Numeric(10, 4)", "Numeric(10, 2)", {"7.5000": "7.50"}, ("7.5555",)),
    Change("Float", "Integer", {7.0: 7}, (1.5,)),
    Change("BigInteger", "Integer", {7: 7}),
]  # fmt: skip
REFUSED = [(change, value) for change in CHANGES for value in change.refused]


@pytest.fixture(scope="module", params=DATABASES)
def place(request, tmp_path_factory):
    """A project on one database for the whole file."""
    with new_database(request.param) as url:
        yield Site(tmp_path_factory.mktemp(request.param), url)


def made(kind):
    return eval(f"sa.{kind}")


def typed(value, kind):
    """The value of the table above as Python has it for a column of this type."""
    if not isinstance(value, str):
        return value
    kinds = {"Date": datetime.date, "DateTime": datetime.datetime, "Time": datetime.time}
    name = kind.partition("(")[0]
    if name in kinds:
        return kinds[name].fromisoformat(value)
    return decimal.Decimal(value) if name == "Numeric" else value


def make(place, name, kind, values):
    """A table with a type and values of it, and a NULL."""
    table = sa.Table(name, sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True),
                     sa.Column("v", made(kind)))  # fmt: skip
    with place.engine.begin() as connection:
        table.create(connection)
        rows = [{"v": typed(value, kind)} for value in (*values, None)]
        connection.execute(table.insert(), rows)


def read(place, name, kind):
    with place.engine.connect() as connection:
        column = sa.Column("v", made(kind))
        table = sa.Table(name, sa.MetaData(), sa.Column("id", sa.Integer), column)
        found = list(connection.scalars(sa.select(column).order_by(table.c.id)))
    plain = int | float | None
    return [one if isinstance(one, plain) else str(one).removesuffix(".000000") for one in found]


def batch(name, old, new):
    enum = f"sa.{new}.create(op.get_bind(), checkfirst=True)\n" if "Enum" in new else ""
    return (
        f'{enum}with op.batch_alter_table("{name}") as batch:\n'
        f'    batch.alter_column("v", type_=sa.{new}, existing_type=sa.{old})'
    )


def title(change):
    return f"{change.old} {change.new}"


@contextmanager
def revised(place, change):
    """The name of a table, and of the only revision, which changes it."""
    name = f"t{secrets.token_hex(4)}"
    up, down = batch(name, change.old, change.new), batch(name, change.new, change.old)
    path = place.revision(name, up, down)
    try:
        yield name
    finally:
        path.unlink()
        assert place.migrate("stamp", "--purge", "base") == 0


@pytest.mark.parametrize("change", CHANGES, ids=title)
def test_a_change_of_type_keeps_every_value_up_and_down(place, change, capsys):
    with revised(place, change) as name:
        make(place, name, change.old, change.kept)
        before = read(place, name, change.old)
        assert place.migrate() == 0, capsys.readouterr().err
        assert read(place, name, change.new) == [*change.kept.values(), None]
        assert place.migrate("downgrade", "base") == 0, capsys.readouterr().err
        found = read(place, name, change.old)
        if change.new == "Uuid" and place.backend == "sqlite":  # kept there as 32 digits
            found = [value and str(uuid.UUID(value)) for value in found]
        assert found == before


@pytest.mark.parametrize(("change", "value"), REFUSED, ids=[f"{title(c)} {v}" for c, v in REFUSED])
def test_a_change_of_type_that_would_lose_a_value_changes_nothing(place, change, value, capsys):
    with revised(place, change) as name:
        make(place, name, change.old, (*change.kept, value))
        before = read(place, name, change.old)
        assert place.migrate() == 1
        assert name in capsys.readouterr().err
        assert read(place, name, change.old) == before


# ---- what SQLite's copy keeps

RICH = """
    CREATE TABLE parent (id INTEGER PRIMARY KEY);
    CREATE TABLE rich (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name VARCHAR(50) COLLATE NOCASE DEFAULT 'it''s, (so)' NOT NULL,
        v VARCHAR(20),
        twice INTEGER GENERATED ALWAYS AS (id * 2) STORED,
        parent_id INTEGER,
        CONSTRAINT fk_rich FOREIGN KEY (parent_id) REFERENCES parent (id)
            ON DELETE SET NULL ON UPDATE CASCADE,
        CONSTRAINT once UNIQUE (name, v),
        CONSTRAINT short CHECK (length(name) < 9),
        CHECK (v <> 'no')
    );
    CREATE INDEX ix_lower ON rich (lower(name), v DESC) WHERE v IS NOT NULL;
    CREATE UNIQUE INDEX ix_plain ON rich (name);
    CREATE TABLE log (what TEXT);
    CREATE TRIGGER noted AFTER INSERT ON rich BEGIN INSERT INTO log VALUES (new.name); END;
    CREATE VIEW shown AS SELECT id, name FROM rich;
    CREATE VIEW adopted AS SELECT id FROM rich WHERE parent_id IS NOT NULL;
    INSERT INTO parent VALUES (1);
    INSERT INTO rich (name, v, parent_id) VALUES ('a', '1', 1), ('B', NULL, NULL), ('c', '3', 1);
    DELETE FROM rich WHERE name = 'c';
"""


@pytest.fixture
def rich(tmp_path):
    site = Site(tmp_path, "sqlite:///./noventa.db")
    with site.engine.connect() as connection:
        connection.connection.driver_connection.executescript(RICH)
    return site


PARTS = (
    "AUTOINCREMENT", "COLLATENOCASE", "STORED", "'it''s,(so)'",
    "ONDELETESETNULLONUPDATECASCADE", "CONSTRAINTshortCHECK", "CHECK(v<>'no')",
    "CONSTRAINTonceUNIQUE",
)  # fmt: skip
NOTHING_LOST = {
    "nothing": "pass",
    "a default": "batch.alter_column('parent_id', server_default='1')",
    "a longer text": "batch.alter_column('v', type_=sa.String(30))",
    "a number": "batch.alter_column('v', type_=sa.Integer())",
    "a new column": "batch.add_column(sa.Column('more', sa.String(5)), insert_after='name')",
    "a check": "batch.create_check_constraint('positive', 'id > 0')",
    "a key": "batch.create_unique_constraint('uq_v', ['v'])",
    "an index": "batch.create_index('ix_v', ['v'])",
}


def others(site):
    """The texts of indexes, triggers and views."""
    query = "SELECT name, sql FROM sqlite_master WHERE type <> 'table' AND sql IS NOT NULL"
    return dict(site.rows(query))


@pytest.mark.parametrize("change", NOTHING_LOST.values(), ids=NOTHING_LOST)
def test_a_copy_on_sqlite_keeps_what_the_batch_does_not_name(rich, change, capsys):
    before = others(rich)
    rich.revision("a1", f"""
        with op.batch_alter_table("rich", recreate="always") as batch:
            {change}
    """)  # fmt: skip
    assert rich.migrate() == 0, capsys.readouterr().err
    text = rich.rows("SELECT sql FROM sqlite_master WHERE name = 'rich'")[0][0]
    plain = "".join(text.replace('"', "").split())
    assert [part for part in PARTS if part not in plain] == []
    assert before.items() <= others(rich).items()
    assert rich.rows("SELECT id, name, twice FROM rich") == [(1, "a", 2), (2, "B", 4)]
    rich.execute("INSERT INTO rich (name) VALUES ('new')")
    assert rich.rows("SELECT what FROM log") == [("a",), ("B",), ("c",), ("new",)]
    assert rich.rows("SELECT id FROM shown WHERE name = 'NEW'") == [(4,)]  # 3 is not given again


def test_a_renamed_column_is_renamed_in_views_triggers_and_constraints(rich):
    rich.revision("a1", """
        with op.batch_alter_table("rich") as batch:
            batch.alter_column("name", new_column_name="title")
    """)  # fmt: skip
    assert rich.migrate() == 0
    assert "title" in others(rich)["shown"]
    assert "new.title" in others(rich)["noted"]
    assert rich.rows("SELECT title FROM shown") == [("a",), ("B",)]


ODD = """
    CREATE TABLE odd (
        id INTEGER PRIMARY KEY,
        code VARCHAR(5) UNIQUE ON CONFLICT IGNORE,
        v VARCHAR(5)
    )
"""


def test_a_copy_that_would_lack_a_clause_which_nobody_can_read_is_refused(rich, capsys):
    rich.execute(ODD)
    rich.revision("a1", """
        with op.batch_alter_table("odd") as batch:
            batch.alter_column("v", nullable=False)
    """)  # fmt: skip
    assert rich.migrate() == 1
    assert "The copy of odd would lack CONFLICT" in capsys.readouterr().err
    assert "IGNORE" in rich.rows("SELECT sql FROM sqlite_master WHERE name = 'odd'")[0][0]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("batch.drop_column('name')", "no such column: name"),
        ("batch.drop_column('parent_id')", "The view adopted uses what rich would no longer have"),
        ("batch.alter_column('v', nullable=False)", "NOT NULL constraint failed"),
        ("batch.create_check_constraint('big', 'id > 1')", "CHECK constraint failed: big"),
        ("batch.add_column(sa.Column('n', sa.Integer, nullable=False))", "NOT NULL"),
    ],
)  # fmt: skip
def test_what_a_copy_on_sqlite_would_lose_is_refused_by_name(rich, change, named, capsys):
    before = others(rich), rich.rows("SELECT * FROM rich")
    rich.revision("a1", f"""
        with op.batch_alter_table("rich") as batch:
            {change}
    """)  # fmt: skip
    assert rich.migrate() == 1
    message = capsys.readouterr().err
    assert named in message
    assert "_alembic_tmp" not in message
    assert "Nothing of this revision was kept" in message
    assert (others(rich), rich.rows("SELECT * FROM rich")) == before
