"""Changes of tables that hold rows: every value, index, trigger and constraint, up and down."""

from __future__ import annotations

import datetime
import decimal
import re
import secrets
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
        assert read(place, name, change.old) == before


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
        id INTEGER PRIMARY KEY AUTOINCREMENT, -- a comment, (and more
        name VARCHAR(50) COLLATE NOCASE DEFAULT 'it''s, (so)'
            CONSTRAINT short CHECK (length(name) < 9),
        v VARCHAR(20),
        twice INTEGER GENERATED ALWAYS AS (id * 2) STORED,
        loud TEXT AS (upper(name)) VIRTUAL,
        parent_id INTEGER REFERENCES parent (id) ON DELETE SET NULL ON UPDATE CASCADE
            DEFERRABLE INITIALLY DEFERRED,
        untyped,
        code VARCHAR(5) UNIQUE ON CONFLICT IGNORE,
        UNIQUE (name, v) ON CONFLICT REPLACE,
        CHECK (v <> 'no')
    );
    CREATE INDEX ix_lower ON rich (lower(name), v DESC) WHERE v IS NOT NULL;
    CREATE UNIQUE INDEX ix_plain ON rich (name);
    CREATE INDEX ix_untyped ON rich (untyped);
    CREATE TABLE log (what TEXT);
    CREATE TRIGGER noted AFTER INSERT ON rich BEGIN INSERT INTO log VALUES (new.name); END;
    CREATE TRIGGER other AFTER DELETE ON log BEGIN UPDATE rich SET v = 'x' WHERE id = 0; END;
    CREATE VIEW shown AS SELECT id, name FROM rich;
    CREATE VIEW adopted AS SELECT id FROM rich WHERE parent_id IS NOT NULL;
    INSERT INTO parent VALUES (1);
    INSERT INTO rich (name, v, parent_id) VALUES ('a', '1', 1), ('B', NULL, NULL), ('c', '3', 1);
    DELETE FROM rich WHERE name = 'c';
    CREATE TABLE strict (id TEXT PRIMARY KEY, v INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO strict VALUES ('k', 7)
"""


@pytest.fixture
def rich(tmp_path):
    site = Site(tmp_path, "sqlite:///./noventa.db")
    with site.engine.connect() as connection:
        connection.connection.driver_connection.executescript(RICH)
    return site


def schema(site):
    """The whole database: its texts without blanks and quotes, its rows and its sequences."""
    query = "SELECT type, name, replace(sql, '-- a comment, (and more', '') FROM sqlite_master"
    texts = site.rows(f"{query} WHERE sql IS NOT NULL AND name <> 'alembic_version'")
    plain = {(kind, name): "".join(sql.replace('"', "").split()) for kind, name, sql in texts}
    rows = [site.rows(f"SELECT * FROM {name}") for name in ("rich", "strict", "log", "shown")]
    return plain, rows, site.rows("SELECT * FROM sqlite_sequence")


PARTS = (
    "AUTOINCREMENT", "COLLATENOCASE", "STORED", "AS(upper(name))", "'it''s,(so)'",
    "DEFERRABLEINITIALLYDEFERRED", "ONDELETESETNULLONUPDATECASCADE", "CONSTRAINTshortCHECK",
    "ONCONFLICTREPLACE", "CHECK(v<>'no')", "UNIQUEONCONFLICTIGNORE",
)  # fmt: skip
NOTHING_LOST = {
    "nothing": "pass",
    "a default": "batch.alter_column('parent_id', server_default='1')",
    "not null": "batch.alter_column('id', nullable=False)",
    "a longer text": "batch.alter_column('v', type_=sa.String(30))",
    "a number": "batch.alter_column('v', type_=sa.Integer())",
    "a new column": "batch.add_column(sa.Column('more', sa.String(5)), insert_after='name')",
    "a check": "batch.create_check_constraint('positive', 'id > 0')",
    "a key": "batch.create_unique_constraint('uq_v', ['v'])",
    "a foreign key": "batch.create_foreign_key('fk_v', 'parent', ['untyped'], ['id'])",
    "an index": "batch.create_index('ix_v', [sa.text('v DESC')])",
}


@pytest.mark.parametrize("change", NOTHING_LOST.values(), ids=NOTHING_LOST)
def test_a_copy_on_sqlite_keeps_what_the_batch_does_not_name(rich, change):
    before = schema(rich)
    rich.revision("a1", f"""
        with op.batch_alter_table("rich", recreate="always") as batch:
            {change}
    """)  # fmt: skip
    assert rich.migrate() == 0
    after = schema(rich)
    gone = set(before[0].items()) - set(after[0].items())
    assert {name for (_, name), _ in gone} <= {"rich"}
    for part in PARTS:
        assert part in after[0]["table", "rich"]
    if change == "pass":
        assert after == before
    assert [row[:2] for row in after[1][0]] == [row[:2] for row in before[1][0]]
    assert after[2] == before[2] == [("rich", 3)]
    rich.execute("INSERT INTO rich (name) VALUES ('new')")
    assert rich.rows("SELECT what FROM log") == [("a",), ("B",), ("c",), ("new",)]
    assert rich.rows("SELECT id FROM shown WHERE name = 'NEW'") == [(4,)]


def test_a_copy_keeps_strict_without_rowid_and_a_renamed_column_everywhere(rich):
    rich.revision("a1", """
        with op.batch_alter_table("strict") as batch:
            batch.alter_column("v", nullable=True)
        with op.batch_alter_table("rich") as batch:
            batch.alter_column("name", new_column_name="title")
            batch.drop_index("ix_lower")
            batch.alter_column("untyped", server_default="0")
    """)  # fmt: skip
    assert rich.migrate() == 0
    plain, *_ = schema(rich)
    assert plain["table", "strict"].endswith("vINTEGER)STRICT,WITHOUTROWID")
    assert "title" in plain["view", "shown"]
    assert "new.title" in plain["trigger", "noted"]
    assert "length(title)" in plain["table", "rich"]
    assert ("index", "ix_lower") not in plain
    assert rich.rows("SELECT title FROM shown") == [("a",), ("B",)]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("batch.drop_column('name')", "rich cannot be made so: no such column: name"),
        ("batch.drop_column('v')", "rich cannot be made so: no such column: v"),
        ("batch.drop_column('parent_id')", "The view adopted uses what rich would no longer have"),
        ("batch.drop_column('untyped')", "The index ix_untyped on rich would be lost"),
        ("batch.alter_column('v', nullable=False)", r"rich\.v is to be NOT NULL, but 1 row"),
        ("batch.create_check_constraint('big', 'id > 1')", "big cannot be made, for 1 rows"),
        ("batch.add_column(sa.Column('n', sa.Integer, nullable=False))", "rich.n must have a"),
    ],
)  # fmt: skip
def test_what_a_copy_on_sqlite_would_lose_is_refused_by_name(rich, change, named, capsys):
    before = schema(rich)
    rich.revision("a1", f"""
        with op.batch_alter_table("rich") as batch:
            {change}
    """)  # fmt: skip
    assert rich.migrate() == 1
    message = capsys.readouterr().err
    assert re.search(named, message)
    assert "_alembic_tmp" not in message
    assert "Nothing of this revision was kept" in message
    assert schema(rich) == before
