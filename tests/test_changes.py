"""Changes to tables with rows keep every value, index, trigger and constraint, up and down."""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import NamedTuple

import pytest
import sqlalchemy as sa
from conftest import DATABASES, Site, new_database

pytestmark = pytest.mark.slow


class Change(NamedTuple):
    """The type of a column `v` changes from `old` to `new`."""

    old: str
    new: str
    kept: dict  # values of `old`, as literals, to values of `new`
    refused: tuple = ()  # values that `new` cannot represent
    not_on: str = ""


CHECKED = "name='mood', native_enum=False, create_constraint=True, length=9"
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
    Change(f"Enum('a', {CHECKED})", f"Enum('a', 'b', {CHECKED})", {"a": "a"},
           not_on="mysql"),  # where Alembic adds a second CHECK of the same name
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
    """A project on one database, shared by the whole file."""
    with new_database(request.param) as url:
        yield Site(tmp_path_factory.mktemp(request.param), url)


def sqlalchemy_type(kind):
    return eval(f"sa.{kind}")


def as_python(value, kind):
    """Convert a value of CHANGES to the Python value for a column of this type."""
    if not isinstance(value, str):
        return value
    kinds = {"Date": datetime.date, "DateTime": datetime.datetime, "Time": datetime.time}
    name = kind.partition("(")[0]
    if name in kinds:
        return kinds[name].fromisoformat(value)
    return decimal.Decimal(value) if name == "Numeric" else value


def create_tables(place, tables):
    """Create tables with a column `v` of the given type, and insert its values and a NULL."""
    with place.engine.begin() as connection:
        for name, (kind, values) in tables.items():
            key = sa.Column("id", sa.Integer, primary_key=True)
            table = sa.Table(name, sa.MetaData(), key, sa.Column("v", sqlalchemy_type(kind)))
            table.create(connection)
            rows = [{"v": as_python(value, kind)} for value in (*values, None)]
            connection.execute(table.insert(), rows)


def read_values(place, kinds):
    """Return the values of each table, in insertion order."""
    found, plain = {}, int | float | None
    with place.engine.connect() as connection:
        for name, kind in kinds.items():
            values = sa.select(sa.column("v", sqlalchemy_type(kind))).select_from(sa.table(name))
            found[name] = [
                value if isinstance(value, plain) else str(value).removesuffix(".000000")
                for value in connection.scalars(values.order_by(sa.column("id")))
            ]
    return found


def change_type(name, old, new):
    enum = f"sa.{new}.create(op.get_bind(), checkfirst=True)\n" if "letter" in new else ""
    return (
        f'{enum}with op.batch_alter_table("{name}") as batch:\n'
        f'    batch.alter_column("v", type_=sa.{new}, existing_type=sa.{old})'
    )


def test_a_type_change_keeps_every_value_up_and_down(place, capsys):
    changes = [change for change in CHANGES if change.not_on != place.backend]
    tables = {f"kept{number}": change for number, change in enumerate(changes)}
    create_tables(place, {name: (change.old, change.kept) for name, change in tables.items()})
    olds = {name: change.old for name, change in tables.items()}
    news = {name: change.new for name, change in tables.items()}
    before = read_values(place, olds)
    ups = [change_type(name, olds[name], news[name]) for name in tables]
    downs = [change_type(name, news[name], olds[name]) for name in tables]
    place.revision("a1", "\n".join(ups), "\n".join(downs))
    assert place.migrate("upgrade", "a1") == 0, capsys.readouterr().err
    kept = {name: [*change.kept.values(), None] for name, change in tables.items()}
    assert read_values(place, news) == kept, news
    assert place.migrate("downgrade", "base") == 0, capsys.readouterr().err
    found = read_values(place, olds)
    if place.backend == "sqlite":  # stores a Uuid as 32 digits
        (name,) = [name for name, kind in news.items() if kind == "Uuid"]
        found[name] = [value and str(uuid.UUID(value)) for value in found[name]]
    assert found == before, olds


def test_a_type_change_that_would_lose_a_value_changes_nothing(place, capsys):
    tables = {f"refused{number}": case for number, case in enumerate(REFUSED)}
    create_tables(
        place,
        {name: (change.old, (*change.kept, value)) for name, (change, value) in tables.items()},
    )
    olds = {name: change.old for name, (change, _) in tables.items()}
    before, accepted = read_values(place, olds), []
    for name, (change, value) in tables.items():
        place.revision("b2", change_type(name, change.old, change.new))
        if place.migrate("upgrade", "b2") == 0 or name not in capsys.readouterr().err:
            accepted.append((change.old, change.new, value))
            place.migrate("stamp", "--purge", "base")
    assert accepted == []
    assert read_values(place, olds) == before, olds


# ---- copies of tables on SQLite

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
    "nothing": ["pass"],
    "a number": ["batch.alter_column('v', type_=sa.Integer())"],
    "all else": [
        "batch.alter_column('parent_id', server_default='1')",
        "batch.alter_column('v', type_=sa.String(30))",
        "batch.add_column(sa.Column('more', sa.String(5)), insert_after='name')",
        "batch.create_check_constraint('positive', 'id > 0')",
        "batch.create_unique_constraint('uq_v', ['v'])",
        "batch.create_index('ix_v', ['v'])",
    ],
}


def schema_objects(site):
    """Return the SQL of indexes, triggers and views."""
    query = "SELECT name, sql FROM sqlite_master WHERE type <> 'table' AND sql IS NOT NULL"
    return dict(site.rows(query))


@pytest.mark.parametrize("changes", NOTHING_LOST.values(), ids=NOTHING_LOST)
def test_a_sqlite_copy_keeps_everything_the_batch_does_not_change(rich, changes, capsys):
    before = schema_objects(rich)
    batch = 'with op.batch_alter_table("rich", recreate="always") as batch:'
    rich.revision("a1", "\n    ".join([batch, *changes]))
    assert rich.migrate() == 0, capsys.readouterr().err
    text = rich.rows("SELECT sql FROM sqlite_master WHERE name = 'rich'")[0][0]
    plain = "".join(text.replace('"', "").split())
    assert [part for part in PARTS if part not in plain] == []
    assert before.items() <= schema_objects(rich).items()
    assert rich.rows("SELECT id, name, twice FROM rich") == [(1, "a", 2), (2, "B", 4)]
    rich.execute("INSERT INTO rich (name) VALUES ('new')")
    assert rich.rows("SELECT what FROM log") == [("a",), ("B",), ("c",), ("new",)]
    assert rich.rows("SELECT id FROM shown WHERE name = 'NEW'") == [(4,)]  # 3 is not reused


def test_a_renamed_column_is_renamed_in_views_triggers_and_constraints(rich):
    rich.revision("a1", """
        with op.batch_alter_table("rich") as batch:
            batch.alter_column("name", new_column_name="title")
    """)  # fmt: skip
    assert rich.migrate() == 0
    assert "title" in schema_objects(rich)["shown"]
    assert "new.title" in schema_objects(rich)["noted"]
    assert rich.rows("SELECT title FROM shown") == [("a",), ("B",)]


ODD = """
    CREATE TABLE odd (
        id INTEGER PRIMARY KEY,
        code VARCHAR(5) UNIQUE ON CONFLICT IGNORE,
        v VARCHAR(5)
    )
"""


def test_a_copy_that_would_drop_an_unknown_clause_is_rejected(rich, capsys):
    rich.execute(ODD)
    rich.revision("a1", """
        with op.batch_alter_table("odd") as batch:
            batch.alter_column("v", nullable=False)
    """)  # fmt: skip
    assert rich.migrate() == 1
    assert "The copy of odd would lack CONFLICT" in capsys.readouterr().err
    assert "IGNORE" in rich.rows("SELECT sql FROM sqlite_master WHERE name = 'odd'")[0][0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("batch.drop_column('name')", "no such column: name"),
        ("batch.drop_column('parent_id')", "The view adopted uses columns that rich would no"),
        ("batch.alter_column('v', nullable=False)", "NOT NULL constraint failed"),
        ("batch.create_check_constraint('big', 'id > 1')", "CHECK constraint failed: big"),
        ("batch.add_column(sa.Column('n', sa.Integer, nullable=False))", "NOT NULL"),
    ],
)  # fmt: skip
def test_a_sqlite_copy_that_would_break_something_is_rejected_with_its_name(
    rich, change, expected, capsys
):
    before = schema_objects(rich), rich.rows("SELECT * FROM rich")
    rich.revision("a1", f"""
        with op.batch_alter_table("rich") as batch:
            {change}
    """)  # fmt: skip
    assert rich.migrate() == 1
    message = capsys.readouterr().err
    assert expected in message
    assert "_alembic_tmp" not in message
    assert "This revision was rolled back" in message
    assert (schema_objects(rich), rich.rows("SELECT * FROM rich")) == before
