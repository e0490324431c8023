"""`migrate squash`: one revision instead of many, and nothing lost."""

from __future__ import annotations

import pytest
from conftest import only_postgresql, only_sqlite

pytestmark = pytest.mark.slow

FIRST = """
class Team(Base):
    __tablename__ = "teams"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50), unique=True)
"""
SECOND = (
    FIRST
    + """
    motto: Mapped[str | None] = mapped_column(sa.String(80), index=True)

class Player(Base):
    __tablename__ = "players"
    id: Mapped[int] = mapped_column(primary_key=True)
    team: Mapped[int] = mapped_column(sa.ForeignKey(Team.id))
    kind: Mapped[str] = mapped_column(sa.Enum("goal", "field", name="player_kind"))
"""
)


@pytest.fixture
def grown(site):
    """A database with a row, at the head of two revisions. Gives a way to write and apply more."""
    site.models(FIRST)
    site.autogenerate("teams")
    assert site.migrate() == 0
    site.execute("INSERT INTO teams (name) VALUES ('Red')")
    site.models(SECOND)
    site.autogenerate("players")
    assert site.migrate() == 0
    return site


def add_by_hand(site, upgrade, downgrade="pass"):
    (head,) = site.at()
    site.revision("a000000hand1", upgrade, downgrade, after=head)
    assert site.migrate() == 0


def contents(site):
    return {path.name: path.read_text("utf-8") for path in site.revisions()}


def test_one_revision_takes_the_place_of_all_and_the_database_stays_as_it_is(grown, capsys):
    add_by_hand(grown, "op.execute(\"UPDATE teams SET motto = 'on' WHERE motto IS NULL\")")
    assert grown.migrate("squash", "-m", "All so far") == 0, capsys.readouterr().err
    assert "3 revisions are one: migrations/versions/" in capsys.readouterr().out
    (revision,) = grown.revisions()
    assert revision.name == "a000000hand1_all_so_far.py"
    assert grown.at() == ["a000000hand1"]
    assert grown.rows("SELECT name, motto FROM teams") == [("Red", "on")]
    assert grown.migrate() == 0
    assert "Nothing to do" in capsys.readouterr().out
    assert grown.migrate("check") == 0
    for words in (["downgrade", "base"], ["upgrade", "head"], ["check"]):
        assert grown.migrate(*words) == 0, capsys.readouterr().err
    grown.models(SECOND + "    number: Mapped[int | None] = mapped_column()\n")
    grown.autogenerate("numbers")
    assert grown.migrate() == 0


@pytest.mark.parametrize(("upgrade", "downgrade", "lost"), [
    ("op.execute(\"INSERT INTO teams (name) VALUES ('Blue')\")", "pass", "rows of teams (1)"),
    ('op.execute("CREATE VIEW reds AS SELECT * FROM teams")', 'op.execute("DROP VIEW reds")',
     "view reds"),
])  # fmt: skip
def test_what_the_models_do_not_make_is_not_lost(grown, capsys, upgrade, downgrade, lost):
    add_by_hand(grown, upgrade, downgrade)
    before = contents(grown)
    capsys.readouterr()
    assert grown.migrate("squash") == 1
    error = capsys.readouterr().err
    assert "Nothing was squashed" in error
    assert lost in error
    assert f"migrations/versions/a000000hand1_.py:8: {upgrade}" in error
    assert contents(grown) == before


@only_postgresql
def test_functions_triggers_and_extensions_are_objects_too(grown, capsys):
    add_by_hand(grown, """
        op.execute("CREATE EXTENSION citext")
        op.execute("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql"
                   " AS 'BEGIN RETURN NEW; END'")
        op.execute("CREATE TRIGGER t BEFORE UPDATE ON teams FOR EACH ROW EXECUTE FUNCTION f()")
    """, """
        op.execute("DROP TRIGGER t ON teams")
        op.execute("DROP FUNCTION f")
        op.execute("DROP EXTENSION citext")
    """)  # fmt: skip
    capsys.readouterr()
    assert grown.migrate("squash") == 1
    error = capsys.readouterr().err
    for made in ("extension citext", "function f()", "trigger t on table teams"):
        assert made in error


def test_nothing_is_squashed_where_something_is_pending_or_differs(site, capsys):
    site.models(FIRST)
    assert site.migrate("squash") == 1
    assert "nothing to squash" in capsys.readouterr().err
    site.autogenerate("teams")
    assert site.migrate() == 0
    site.models(SECOND)
    site.autogenerate("players")
    before = contents(site)
    assert site.migrate("squash") == 1
    assert "first apply what is pending" in capsys.readouterr().err
    assert site.migrate() == 0
    site.models(FIRST)
    assert site.migrate("squash") == 1
    assert "the revisions do not make what the models say" in capsys.readouterr().err
    assert contents(site) == before


@only_sqlite
def test_two_heads_are_joined_before_they_are_squashed(grown, capsys):
    (head,) = grown.at()
    for number in ("b1", "b2"):
        grown.revision(number, "pass", after=head)
    assert grown.migrate("squash") == 1
    assert "There are 2 heads" in capsys.readouterr().err
    assert grown.migrate("merge", "heads", "-m", "merge") == 0
    assert grown.migrate() == 0
    assert grown.migrate("squash") == 0, capsys.readouterr().err
    assert [path.name.partition("_")[2] for path in grown.revisions()] == ["squashed.py"]
    assert grown.migrate("check") == 0
