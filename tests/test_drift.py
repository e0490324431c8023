"""Differences between database and models are detected and migrated, without false positives."""

from __future__ import annotations

import re
import sys

import pytest
import sqlalchemy as sa
from conftest import only_postgresql, only_sqlite, servers
from support import AGAIN, CHILD, apply, go, lacks, refuse
from visitors import ask

from noventa import App, Config
from noventa_cli import load_project, project_imports

pytestmark = pytest.mark.slow

WIDE = """
class Kind(enum.Enum):
    old = "o"
    new = "n"

class Item(Base):
    __tablename__ = "items"
    __table_args__ = (
        sa.CheckConstraint("price > 0 AND (name <> 'a:b%' OR price IN (1, 2))"),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 50", name="long"),
        sa.Index("ix_some", "name", postgresql_where=sa.text("name LIKE 'x%'"),
                 sqlite_where=sa.text("name LIKE 'x%'")),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50), server_default="it's 5% a:b")
    empty: Mapped[str] = mapped_column(sa.String(50), server_default="")
    digits: Mapped[str] = mapped_column(sa.String(50), server_default="0")
    price: Mapped[int] = mapped_column(server_default="1")
    minus: Mapped[int] = mapped_column(server_default=sa.text("-1"))
    part: Mapped[float] = mapped_column(sa.Numeric(8, 2), server_default="1.50")
    at = mapped_column(sa.DateTime(), server_default=sa.func.now())
    stamp = mapped_column(sa.DateTime(), server_default=sa.text("CURRENT_TIMESTAMP"))
    day = mapped_column(sa.Date(), server_default="2020-01-01")
    yes: Mapped[bool] = mapped_column(server_default=sa.true())
    no: Mapped[bool] = mapped_column(server_default=sa.false())
    maybe = mapped_column(sa.Boolean(name="truth", create_constraint=True))
    kind: Mapped[Kind] = mapped_column(server_default="old")
    word = mapped_column(
        sa.Enum("a", "b", name="word", native_enum=False, create_constraint=True)
    )
    twice = mapped_column(sa.Integer, sa.Computed("price % 2", persisted=True))

class Part(Base):
    __tablename__ = "parts"
    item: Mapped[int] = mapped_column(sa.ForeignKey(Item.id), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    item_again: Mapped[int] = mapped_column(sa.ForeignKey(Item.id), unique=True, index=True)
"""


def test_generated_revisions_match_the_models_but_key_and_default_changes_are_found(site, capsys):
    text = apply(site, WIDE)
    assert lacks(text, "server_default=sa.func.now()", "server_default=sa.true()") == []
    assert "%%" not in text
    go(site, *AGAIN)
    assert site.run("check") == 0
    capsys.readouterr()
    go(site, "revision --autogenerate -m nothing")
    output = capsys.readouterr().out
    assert "Nothing has changed" in output
    assert "Not compared: defaults" not in output
    site.execute("INSERT INTO items (id, kind) VALUES (1, 'old')")
    assert site.rows("SELECT name, minus, yes, twice FROM items WHERE at = stamp") == [
        ("it's 5% a:b", -1, True, 1)
    ]
    with pytest.raises((sa.exc.IntegrityError, sa.exc.OperationalError)):
        site.execute("INSERT INTO items (id, name, price, kind) VALUES (2, 'a:b%', 3, 'old')")
    key = "number: Mapped[int] = mapped_column(primary_key=True)"
    site.models(WIDE.replace(key, "number: Mapped[int] = mapped_column()"))
    for verb in ("check", "revision --autogenerate -m key"):
        message = refuse(site, capsys, verb)
        assert "primary key of parts: (item, number) -> (item)" in message
    assert len(site.revisions()) == 1
    site.models(WIDE.replace('server_default="1"', 'server_default="2"'))
    assert site.run("check") == 1  # although servers store it in a different form
    assert "modify_default items.price" in capsys.readouterr().err


STEPS = [
    {
        ('server_default="1"', 'server_default="2"'): "modify_default items.price: '1' -> 2",
        ("sa.Date(), server_default", "sa.Date(), default"): "modify_default items.day",
        ("sa.DateTime(), server_default=sa.func", "sa.DateTime(), default=sa.func"):
            "modify_default items.at: (CURRENT_TIMESTAMP) -> None",
        ("IN (1, 2)", "IN (1, 3)"): "remove_constraint ck_items_",
        ("__table_args__ = (", '__table_args__ = (sa.CheckConstraint("price < 9"),'):
            "add_constraint ck_items_",
        ("BETWEEN 1 AND 50", "BETWEEN 2 AND 50"): "add_constraint long",
    },
    {
        ('= mapped_column(server_default="2")', ""): "modify_default items.price: '2' -> None",
        ("sa.Date(), default", "sa.Date(), server_default"): "modify_default items.day: None ->",
    },
    {
        ('sa.CheckConstraint("length(name) BETWEEN 2 AND 50", name="long"),', ""):
            "remove_constraint long",
    },
]  # fmt: skip


@only_sqlite
def test_changed_defaults_and_checks_are_detected_and_migrated(site, capsys):
    models = WIDE
    apply(site, models)
    for step in STEPS:
        for (old, new), _ in step.items():
            assert old in models
            models = models.replace(old, new)
        site.models(models)
        assert lacks(refuse(site, capsys, "check"), *step.values()) == []
        apply(site, models)
        go(site, "downgrade -1", "upgrade head", "check")


CONDITIONS = (
    "price BETWEEN 1 AND 90", "price IN (1, 2, 33)", "price NOT IN (3, 4)", "name LIKE 'a%'",
    "name != 'it''s' OR price <= 5", "length(name) < 9", "name = 'x' AND price > 7",
)  # fmt: skip


@servers
def test_an_unnamed_check_matches_but_a_changed_condition_does_not(site):
    """Servers generate a name for it; the models derive the name from the condition."""
    item = ITEMS.replace(', name="positive"', "")
    others = "".join(f"        sa.CheckConstraint({text!r}),\n" for text in CONDITIONS)
    item = item.replace("__table_args__ = (", f"__table_args__ = (\n{others}        ")
    site.models(item)
    site.autogenerate("items")
    (path,) = site.revisions()
    path.write_text(re.sub(r", name=op.f\('ck_items_\w+'\)", "", path.read_text()))
    go(site, "upgrade head", "check")
    site.models(item.replace("price > 0", "price > 0 AND price < 9"))
    assert site.migrate("check") == 1
    site.execute("DELETE FROM alembic_version", "DROP TABLE items")
    path.unlink()
    apply(site, item)
    site.models(item.replace("price > 0", "price > 0 AND price < 9"))
    assert site.migrate("check") == 1


PALETTE = """
class Color(enum.Enum):
    RED = "r"
    BLUE = "b"

class Wall(Base):
    __tablename__ = "walls"
    id: Mapped[int] = mapped_column(primary_key=True)
    color: Mapped[Color]
"""
DOOR = PALETTE.split("\n\n")[1].replace("Wall", "Door").replace("walls", "doors")


def test_enum_types_can_be_upgraded_downgraded_and_upgraded_again(site):
    apply(site, PALETTE)
    two = PALETTE + "    second: Mapped[Color | None]\n"
    assert ".create(" not in apply(site, f"{two}\n{DOOR}")  # both tables share the type
    size = "    size: Mapped[str | None] = mapped_column(sa.Enum('S', 'L', name='size'))\n"
    text = apply(site, f"{two}{size}\n{DOOR}")
    assert "sa.Enum('S', 'L', name='size').create(op.get_bind(), checkfirst=True)" in text
    go(site, "downgrade -1", *AGAIN)
    site.execute("INSERT INTO walls (id, color, size) VALUES (1, 'RED', 'S')")
    go(site, "downgrade base")
    if site.backend == "postgresql":
        assert site.rows("SELECT typname FROM pg_type WHERE typname IN ('color', 'size')") == []


@only_postgresql
def test_an_enum_gains_values_keeps_old_ones_and_is_dropped_with_its_last_column(site, capsys):
    apply(site, PALETTE)
    more = PALETTE.replace('BLUE = "b"', 'BLUE = "b"\n    FRESH = "f"')
    site.models(more)
    assert "'FRESH'" in refuse(site, capsys, "check")
    apply(site, more)
    go(site, "check", "downgrade -1", "upgrade head")
    site.models(PALETTE)
    go(site, "check")  # an extra value is harmless
    apply(site, PALETTE.replace("    color: Mapped[Color]\n", ""), "--allow-drop")
    go(site, "downgrade -1", "upgrade head")
    assert site.rows("SELECT typname FROM pg_type WHERE typname = 'color'") == []


KINDS = {  # column types and how the revision renders them
    "Money()": "sa.Numeric(precision=12, scale=2)",
    "Code(20)": "sa.String(length=20)",
    "GUID()": "sa.CHAR(length=32).with_variant(sa.UUID(), 'postgresql')",
    "Either()": ".with_variant(postgresql.JSONB(astext_type=sa.Text()), 'postgresql')",
    "Tone('a', 'b', name='tone')": "sa.Enum('a', 'b', name='tone', create_type=False)",
    "sa.Enum('a', 'b', name='v', native_enum=False, create_constraint=True, length=9)":
        "sa.Enum('a', 'b', name='v', native_enum=False, create_constraint=True, length=9)",
    "sa.Text().with_variant(mysql.LONGTEXT(), 'mysql', 'mariadb')": "mysql.LONGTEXT()",
    "sa.Interval(second_precision=3)": "sa.Interval(second_precision=3)",
    **dict.fromkeys([
        "sa.Float()", "sa.Double()", "sa.REAL()", "sa.Float(53)", "sa.Float(24)",
        "sa.Numeric(10, 2)", "sa.SmallInteger()", "sa.BigInteger()", "sa.LargeBinary(32)",
        "sa.Uuid()", "sa.JSON()", "sa.DateTime(timezone=True)", "sa.Time()", "sa.Interval()",
        "sa.Unicode(20)", "sa.UnicodeText()",
    ], "sa."),
}  # fmt: skip
ARRAYS = dict.fromkeys([
    "postgresql.ARRAY(postgresql.JSONB)", "postgresql.ARRAY(postgresql.INET)",
    "postgresql.ARRAY(postgresql.ENUM('a', 'b', name='letter'))",
], "postgresql.ARRAY(")  # fmt: skip
TYPES = """
from sqlalchemy.dialects import mysql, postgresql

class Mixin:
    pass

class Money(sa.TypeDecorator):
    impl = sa.Numeric(12, 2)
    cache_ok = True

class Code(Mixin, sa.String):
    cache_ok = True

class Tone(sa.Enum):
    cache_ok = True

class GUID(sa.TypeDecorator):  # as in SQLAlchemy's documentation
    impl = sa.CHAR
    cache_ok = True
    def load_dialect_impl(self, dialect):
        kind = postgresql.UUID() if dialect.name == "postgresql" else sa.CHAR(32)
        return dialect.type_descriptor(kind)

class Either(sa.TypeDecorator):
    impl = sa.String
    cache_ok = True
    def load_dialect_impl(self, dialect):
        kind = postgresql.JSONB() if dialect.name == "postgresql" else sa.String(40)
        return dialect.type_descriptor(kind)

class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
"""


def test_every_type_is_created_as_declared_and_matches_the_models(site, capsys):
    kinds = KINDS | (ARRAYS if site.backend == "postgresql" else {})
    columns = [f"    v{number} = mapped_column({kind})\n" for number, kind in enumerate(kinds)]
    index = '    __table_args__ = (sa.Index("ix_value", sa.desc("v0"), "v1"),)\n'
    text = apply(site, TYPES + "".join(columns) + index)
    lines = [re.search(rf"'v{number}', (.*)", text)[1] for number in range(len(kinds))]
    assert [
        line for line, part in zip(lines, kinds.values(), strict=True) if part not in line
    ] == []
    assert "models" not in text  # the revision does not import the application
    assert "sa.JSONB" not in text
    go(site, "downgrade base", "upgrade head", "check")
    assert site.run("check") == (site.backend == "postgresql")  # ARRAY exists on no other database
    go(site, "downgrade base")
    if site.backend == "postgresql":
        assert site.rows("SELECT typname FROM pg_type WHERE typname IN ('letter', 'tone')") == []


# ---- existing tables

ITEMS = """
class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50), server_default="x", unique=True)
    price: Mapped[int]
    __table_args__ = (sa.CheckConstraint("price > 0", name="positive"),)
"""
CREATE_ITEMS = (
    "CREATE TABLE items (id INTEGER NOT NULL, {name} VARCHAR(50) DEFAULT 'x' NOT NULL,"
    " price INTEGER NOT NULL, {check} {unique} ({name}), PRIMARY KEY ({key}))"
)
AS_IN_THE_MODELS = {"name": "name", "key": "id", "unique": "CONSTRAINT once UNIQUE",
        "check": "CONSTRAINT positive CHECK (price > 0),"}  # fmt: skip


def test_adopt_stamps_only_a_database_that_matches_the_models(site, capsys):
    site.models(ITEMS + CHILD)
    with project_imports(site.root):
        load_project(site.root).registry.metadata.create_all(site.engine)
    site.execute("CREATE TABLE legacy (id INTEGER PRIMARY KEY)")
    go(site, "--adopt", "check")
    assert site.at() == [site.revisions()[0].name.split("_")[0]]
    assert "already" in refuse(site, capsys, "--adopt")
    site.execute("DELETE FROM alembic_version")
    site.models(ITEMS.replace("    price: Mapped[int]\n", "    cost: Mapped[int]\n") + CHILD)
    assert lacks(refuse(site, capsys, "--adopt"), "add_column items.cost", "items.price") == []
    assert site.at() == []


def test_adopt_writes_nothing_on_rejection_and_a_revision_for_other_names(site, capsys):
    site.models(ITEMS)
    for parts, difference in [
        ({"name": "title"}, "add_column items.name"),
        ({"key": "id, price"}, "primary key of items"),
        ({"check": ""}, "add_constraint positive"),
    ]:
        site.execute(CREATE_ITEMS.format(**AS_IN_THE_MODELS | parts))
        assert difference in refuse(site, capsys, "--adopt")
        assert (site.revisions(), site.tables()) == ([], {"items"})
        site.execute("DROP TABLE items")
    site.execute(
        CREATE_ITEMS.format(**AS_IN_THE_MODELS),
        "INSERT INTO items (id, name, price) VALUES (1, 'one', 2)",
    )
    go(site, "--adopt")
    assert "review it, then migrate" in capsys.readouterr().out
    go(site, "upgrade head", "check")
    assert site.rows("SELECT id, name FROM items") == [(1, "one")]
    (key,) = sa.inspect(site.engine).get_unique_constraints("items")
    assert key["name"] == "uq_items_name"


@only_sqlite
def test_adopt_keeps_autoincrement_of_a_table_from_another_framework(site):
    site.models(ITEMS + CHILD)
    site.execute(
        CREATE_ITEMS.format(**AS_IN_THE_MODELS | {"unique": "UNIQUE"}),  # without a name
        "CREATE TABLE children (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, item_id INTEGER"
        " NOT NULL, FOREIGN KEY (item_id) REFERENCES items (id) ON DELETE CASCADE)",
    )
    go(site, "--adopt", "upgrade head", "check")
    site.execute("INSERT INTO items (id, price) VALUES (1, 1)")
    for _ in range(2):  # ids are never reused
        site.execute("DELETE FROM children", "INSERT INTO children (item_id) VALUES (1)")
    assert site.rows("SELECT id FROM children") == [(2,)]


@only_sqlite
def test_the_map_compares_tables_only_on_request(site):
    apply(site, ITEMS)
    site.execute("ALTER TABLE items RENAME COLUMN price TO cost")
    search_path = [*sys.path]
    with project_imports(site.root):
        project = load_project(site.root)
        values = {**project.config.values, "debug": True}
        app = App(project.registry, Config(values, site.root))
        assert "compare the tables" in ask(app, path="/_noventa/").text
        found = ask(app, path="/_noventa/", query="compare").text
        app.database.dispose()
    assert "add_column items.price" in found
    assert sys.path == search_path
