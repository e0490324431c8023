"""What a database has otherwise than the models is found, written and gone; nothing else is."""

from __future__ import annotations

import re
import sys

import pytest
from conftest import only_postgresql, only_sqlite, servers
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
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50), server_default="it's")
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
    double = mapped_column(sa.Integer, sa.Computed("price * 2", persisted=True))

class Part(Base):
    __tablename__ = "parts"
    item: Mapped[int] = mapped_column(sa.ForeignKey(Item.id), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    item_again: Mapped[int] = mapped_column(sa.ForeignKey(Item.id), unique=True, index=True)
"""


def test_what_our_own_revisions_made_never_differs(site, capsys):
    site.models(WIDE)
    site.autogenerate("wide")
    assert site.migrate() == 0
    capsys.readouterr()
    assert site.migrate("check") == 0, capsys.readouterr().err
    assert site.migrate("revision", "--autogenerate", "-m", "nothing") == 0
    told = capsys.readouterr().out
    assert "Nothing has changed" in told
    assert "Not compared: defaults" not in told


CHANGES = [
    {'server_default="1"': 'server_default="2"'},
    {'= mapped_column(server_default="1")': ""},
    {"mapped_column(sa.Date(), server_default": "mapped_column(sa.Date(), default"},
    {'sa.Date(), server_default="2020-01-01"': "sa.Date()"},
    {"IN (1, 2)": "IN (1, 3)"},
    {'sa.CheckConstraint("length(name) BETWEEN 1 AND 50", name="long"),': ""},
    {'name="long"),': 'name="long"), sa.CheckConstraint("price < 100"),'},
    {"sa.DateTime(), server_default=sa.func.now()": "sa.DateTime()"},
    {"BETWEEN 1 AND 50": "BETWEEN 2 AND 50"},
]


@only_sqlite
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_default_or_a_check_that_differs_is_found_and_written(site, capsys, change):
    site.models(WIDE)
    site.autogenerate("wide")
    assert site.migrate() == 0
    changed = WIDE
    for old, new in change.items():
        assert old in changed
        changed = changed.replace(old, new)
    site.models(changed)
    assert site.migrate("check") == 1
    site.autogenerate("differs")
    for words in (["upgrade", "head"], ["downgrade", "-1"], ["upgrade", "head"]):
        assert site.migrate(*words) == 0, capsys.readouterr().err
    assert site.migrate("check") == 0, capsys.readouterr().err


@servers
def test_check_finds_a_default_that_differs_though_a_server_keeps_it_in_other_words(site, capsys):
    site.models(WIDE)
    site.autogenerate("wide")
    assert site.migrate() == 0
    site.models(WIDE.replace('server_default="1"', 'server_default="2"'))
    assert site.migrate("check") == 0, capsys.readouterr().err
    assert site.run("check") == 1
    assert "modify_default items.price" in capsys.readouterr().err


@servers
def test_an_unnamed_check_is_no_difference_and_another_one_is(site, capsys):
    """A server gives it a name of its own, where the models name it by what it checks."""
    item = ITEMS.replace(', name="positive"', "")
    site.models(item)
    site.autogenerate("items")
    (path,) = site.revisions()
    path.write_text(re.sub(r", name=op.f\('ck_items_\w+'\)", "", path.read_text()))
    assert site.migrate() == 0
    assert site.migrate("check") == 0, capsys.readouterr().err
    site.models(item.replace("price > 0", "price > 0 AND price < 9"))
    assert site.migrate("check") == 0  # nobody can tell: a server has other words
    site.execute("DELETE FROM alembic_version", "DROP TABLE items")
    site.models(item)
    path.unlink()
    site.autogenerate("items")
    assert site.migrate() == 0
    site.models(item.replace("price > 0", "price > 0 AND price < 9"))
    assert site.migrate("check") == 1


def test_another_primary_key_is_found_and_not_written(site, capsys):
    site.models(WIDE)
    site.autogenerate("wide")
    assert site.migrate() == 0
    site.models(WIDE.replace("number: Mapped[int] = mapped_column(primary_key=True)",
                             "number: Mapped[int] = mapped_column()"))  # fmt: skip
    for words in (["check"], ["revision", "--autogenerate", "-m", "key"]):
        assert site.migrate(*words) == 1
        assert "primary key of parts: (item, number) -> (item)" in capsys.readouterr().err
    assert len(site.revisions()) == 1


@only_postgresql
def test_a_new_value_of_an_enum_is_added_and_a_missing_one_is_not_taken_away(site, capsys):
    site.models(WIDE)
    site.autogenerate("wide")
    assert site.migrate() == 0
    site.models(WIDE.replace('new = "n"', 'new = "n"\n    fresh = "f"'))
    assert site.migrate("check") == 1
    assert "'fresh'" in capsys.readouterr().err
    site.autogenerate("fresh")
    assert site.migrate() == 0
    assert site.migrate("check") == 0, capsys.readouterr().err
    assert site.migrate("downgrade", "-1") == 0
    assert site.migrate() == 0
    site.models(WIDE)
    assert site.migrate("check") == 0, "a value that is there too many does no harm"


def test_no_type_differs_from_what_its_revision_made(site, capsys):
    kinds = [
        "sa.Float()", "sa.Double()", "sa.REAL()", "sa.Float(53)", "sa.Float(24)",
        "sa.Numeric(10, 2)", "sa.SmallInteger()", "sa.BigInteger()", "sa.LargeBinary(32)",
        "sa.Uuid()", "sa.JSON()", "sa.DateTime(timezone=True)", "sa.Time()", "sa.Interval()",
        "sa.Unicode(20)", "sa.UnicodeText()",
    ]  # fmt: skip
    columns = "".join(f"    v{n} = mapped_column({kind})\n" for n, kind in enumerate(kinds))
    site.models(f"""
class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
{columns}
    __table_args__ = (sa.Index("ix_value", sa.desc("v0"), "v1"),)
""")  # fmt: skip
    site.autogenerate("one")
    assert site.migrate() == 0
    capsys.readouterr()
    assert site.migrate("check") == 0, capsys.readouterr().err
    assert site.run("check") == 0, capsys.readouterr().err


ITEMS = """
class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50), server_default="x", unique=True)
    price: Mapped[int]
    __table_args__ = (sa.CheckConstraint("price > 0", name="positive"),)
"""
MADE = (
    "CREATE TABLE items (id INTEGER NOT NULL {primary}, name VARCHAR(50) DEFAULT {default}"
    " NOT NULL, price INTEGER NOT NULL, {check} CONSTRAINT uq_items_name UNIQUE (name){key})"
)
CHECK = "CONSTRAINT positive CHECK (price > 0),"


@pytest.mark.parametrize(("parts", "difference"), [
    ({"primary": "", "key": ", PRIMARY KEY (id, price)"}, "primary key of items"),
    ({"check": ""}, "add_constraint positive"),
])  # fmt: skip
def test_adopt_refuses_another_key_or_check_and_writes_nothing(site, capsys, parts, difference):
    site.models(ITEMS)
    same = {"primary": "PRIMARY KEY", "key": "", "check": CHECK, "default": "'x'"}
    if site.backend == "mysql":
        same["primary"] = "PRIMARY KEY AUTO_INCREMENT"
    elif site.backend == "postgresql":
        same["primary"] = "GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"
    site.execute(MADE.format(**same | parts))
    assert site.migrate("--adopt") == 1
    assert difference in capsys.readouterr().err
    assert site.revisions() == []
    assert site.tables() == {"items"}
    site.execute("DROP TABLE items", MADE.format(**same | {"primary": same["primary"]}))
    if site.backend != "postgresql":  # there an INTEGER key counts by a sequence
        assert site.migrate("--adopt") == 0, capsys.readouterr().err


@only_sqlite
def test_the_map_compares_the_tables_only_when_it_is_asked_to(site):
    site.models(ITEMS)
    site.autogenerate("items")
    assert site.migrate() == 0
    site.execute("ALTER TABLE items RENAME COLUMN price TO cost")
    searched = [*sys.path]
    with project_imports(site.root):
        project = load_project(site.root)
        values = {**project.config.values, "debug": True}
        app = App(project.registry, Config(values, site.root))
        assert "compare the tables" in ask(app, path="/_noventa/").text
        found = ask(app, path="/_noventa/", query="compare").text
        app.database.dispose()
    assert "add_column items.price" in found
    assert sys.path == searched
