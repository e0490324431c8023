"""Models and histories like those of public projects are created as declared."""

from __future__ import annotations

import re
import secrets
import shutil
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from conftest import DATABASES, only_mariadb, only_postgresql, only_sqlite, servers
from sqlalchemy import orm
from sqlalchemy.orm import Mapped, mapped_column
from support import alembic, apply, go, make_app, refuse
from test_databases import mapping, role
from visitors import ask

from noventa import App, Config, Endpoint, NoventaError, revision_mismatch
from noventa_cli import load_project, project_imports

pytestmark = pytest.mark.slow

SCHEMAS = Path(__file__).parent / "data" / "schemas"
PLACES = {
    "microblog": ("sqlite", "mariadb"),
    "contest": DATABASES,
    "recipes": ("sqlite", "postgresql"),
    "packages": ("postgresql",),
}
EVERYWHERE = [(name, place) for name, places in PLACES.items() for place in places]


def install_models(site, name):
    """Install a file of tests/data/schemas as the project's models."""
    site.write(f"models/{name}.py", (SCHEMAS / f"{name}.py").read_text("utf-8"))
    site.register(f"models.{name}")
    if name == "packages":
        port_only_to(site, "postgresql")
        extension = 'op.execute("CREATE EXTENSION citext")', 'op.execute("DROP EXTENSION citext")'
        site.revision("c0", *extension)
        assert site.migrate() == 0


def port_only_to(site, *databases):
    """Make `check` test the models for these databases only."""
    text = f'database: "{site.url}"\nmigrations: {{portable_to: [{", ".join(databases)}]}}\n'
    site.write("config.yaml", text)


def remaining(site):
    """Return the tables of every schema and PostgreSQL's enums, which a downgrade must drop."""
    found = sa.inspect(site.engine)
    if site.backend != "postgresql":
        return site.tables()
    schemas = {*found.get_schema_names()} - {"information_schema"}
    tables = {name for schema in schemas for name in found.get_table_names(schema)}
    return tables - {"alembic_version"} | {enum["name"] for enum in found.get_enums("*")}


def fill_and_read(site, name):
    """Write and read rows through the application, in separate transactions."""
    with project_imports(site.root):
        project = load_project(site.root)
        app, models = App(project.registry, project.config), sys.modules[f"models.{name}"]
        with app.database.session() as db:
            models.fill(db)
            db.commit()
        with app.database.session() as db:
            assert models.read(db) == models.READ
        app.database.engine.dispose()


@pytest.mark.parametrize(("name", "database"), EVERYWHERE, indirect=["database"])
def test_real_models_are_created_as_declared_and_dropped_completely(site, capsys, name):
    install_models(site, name)
    site.autogenerate("tables")
    go(site, "upgrade head")
    assert site.run("check") == 0
    go(site, "revision --autogenerate -m again")
    assert "Nothing has changed" in capsys.readouterr().out
    fill_and_read(site, name)
    if name == "packages":
        change_models(site)
    go(site, "downgrade base")
    assert remaining(site) == set()
    if (name, site.backend) == ("recipes", "postgresql"):
        with project_imports(site.root):
            load_project(site.root).registry.metadata.create_all(site.engine)
        for path in site.revisions():
            path.unlink()
        go(site, "--adopt", "check")
        fill_and_read(site, name)


BAN = "    lasting: Mapped[bool]"
CHANGES = {
    BAN: '    level = mapped_column(sa.Enum("low", "high", name="level", schema="journal"))\n'
    '    kinds = mapped_column(ARRAY(sa.Enum("a", "b", name="kind")))\n' + BAN,
    'sa.Index("users_by_last_login", sa.desc(': 'sa.Index("users_by_last_login", sa.asc(',
    """        sa.Index("events_tagged", sa.text("(extra ->> 'tag')")),\n""": "",
    'postgresql_where=sa.text("latest")': 'postgresql_where=sa.text("latest AND NOT yanked")',
    "postgresql_nulls_not_distinct=True": 'name="bans_once"',
    "    malware =": '    other = "o"\n    malware =',
}


def change_models(site):
    """Migrate changes of the real models up, down and up again."""
    text = (SCHEMAS / "packages.py").read_text("utf-8")
    for old, new in CHANGES.items():
        assert old in text
        text = text.replace(old, new)
    site.write("models/packages.py", text)
    site.autogenerate("changes")
    go(site, "upgrade head", "downgrade -1", "upgrade head", "check")


# ---- histories created by Alembic

PLAYERS = """
class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(sa.String(128), unique=True)
    email: Mapped[str | None] = mapped_column(sa.String(128), unique=True)
    slug: Mapped[str | None] = mapped_column(sa.String(128), index=True)

class Award(Base):
    __tablename__ = "awards"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id = mapped_column(sa.ForeignKey(User.id, ondelete="CASCADE"))
    title: Mapped[str | None] = mapped_column(sa.String(80))
"""
HISTORY = Path(__file__).parent / "data" / "history"


def test_an_imported_alembic_history_runs_unchanged_and_can_continue(site):
    shutil.copytree(HISTORY, site.root / "migrations" / "versions")
    site.models(PLAYERS)
    go(site, "upgrade c3")
    site.execute("INSERT INTO users (id, name) VALUES (1, 'Ada B')")
    assert alembic(site, "upgrade", "head") == 0
    assert site.rows("SELECT slug FROM users") == [("ada-b",)]
    go(site, "check")
    apply(site, PLAYERS.replace("    title:", "    value: Mapped[int | None]\n    title:"))
    assert site.run("check") == 0
    assert alembic(site, "downgrade", "base") == 0
    assert remaining(site) == set()


KEYS = (", unique=True", ', ondelete="CASCADE"', "sa.ForeignKey(User.id)")
NAMELESS = PLAYERS.replace("    slug", "    # slug").replace("    title", "    name")
for key, none in zip(KEYS, ("", "", "sa.Integer"), strict=True):
    NAMELESS = NAMELESS.replace(key, none)


@only_sqlite
def test_an_unnamed_key_can_be_dropped_by_hand_as_the_message_suggests(site, capsys):
    shutil.copytree(HISTORY, site.root / "migrations" / "versions")
    go(site, "upgrade a1")
    for path in site.revisions()[1:]:
        path.unlink()
    site.models(NAMELESS)
    refuse(site, capsys, "check")
    assert "naming_convention=" in refuse(site, capsys, "revision --autogenerate -m keys")
    site.revision("b2", """
        names = {"fk": "fk_%(table_name)s", "uq": "uq_%(table_name)s"}
        with op.batch_alter_table("awards", naming_convention=names) as batch:
            batch.drop_constraint("fk_awards", type_="foreignkey")
        with op.batch_alter_table("users", naming_convention=names) as batch:
            batch.drop_constraint("uq_users", type_="unique")
    """, after="a1")  # fmt: skip
    go(site, "upgrade head", "check")
    index = '    __table_args__ = (sa.Index("{}", "name"),)\n\nclass Award'
    apply(site, NAMELESS.replace("\nclass Award", index.format("old")))
    site.models(NAMELESS.replace("\nclass Award", index.format("new")))  # names are compared
    assert "remove_index old of users" in refuse(site, capsys, "check")


# ---- scratch databases of check

ITEM = """
from sqlalchemy.dialects import mysql, postgresql
class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    value = mapped_column(KIND)
"""
OPERATOR = ITEM.replace("KIND", "postgresql.TEXT(), sa.CheckConstraint(\"value ~ '^a'\")")


@only_postgresql
def test_check_tries_revisions_on_a_scratch_database_of_the_same_kind(site, capsys, monkeypatch):
    port_only_to(site, "postgresql")
    apply(site, OPERATOR)
    mark = secrets.token_hex(8)
    monkeypatch.setattr(secrets, "token_hex", lambda _: mark)
    assert site.run("check") == 0
    assert "1 revision; a newly migrated database matches the models" in capsys.readouterr().out
    (revision,) = site.revisions()
    revision.write_text(revision.read_text().replace("op.drop_table('items'", "op.drop_table('it'"))
    assert site.run("check") == 1
    assert "`downgrade base` fails on a scratch database (postgresql)" in capsys.readouterr().err
    assert site.rows(f"SELECT datname FROM pg_database WHERE datname LIKE '%{mark}'") == []


@servers
def test_check_reports_untried_revisions_and_still_finds_other_problems(site, capsys):
    kind = {"postgresql": "postgresql.ARRAY(sa.Text)", "mysql": "mysql.YEAR()"}[site.backend]
    with role(site) as user:
        portable = f"migrations: {{portable_to: [{site.backend}]}}\n"
        site.write("config.yaml", mapping(site, user) + portable)
        apply(site, ITEM.replace("KIND", kind))
        assert site.run("check") == 0
        output = capsys.readouterr().out
        assert re.search(
            "(?i)1 revision, not tested: .* no scratch database was created: .*denied", output
        )
        (revision,) = site.revisions()
        revision.write_text("from models import shop_models\n" + revision.read_text())
        assert site.run("check") == 1
        assert "it imports models.shop_models from the application" in capsys.readouterr().err


@only_mariadb
@pytest.mark.parametrize("in_models", [True, False])
def test_check_never_touches_a_real_schema_on_mariadb(site, capsys, in_models):
    schema = sa.make_url(site.url).database
    port_only_to(site, "mysql")
    if in_models:
        args = f"__table_args__ = {{'schema': {schema!r}}}"
        site.models(ITEM.replace("value = mapped_column(KIND)", args))
    table = f'"items", sa.Column("id", sa.Integer, primary_key=True), schema="{schema}"'
    make = f"op.create_table({table}, if_not_exists=True)"
    site.revision("a1", make, f'op.drop_table("items", schema="{schema}")')
    go(site, "upgrade head")
    site.execute("INSERT INTO items VALUES (7)")
    assert site.run("check") == 0
    assert site.rows("SELECT id FROM items") == [(7,)]
    why = "on mysql a schema is a database" if in_models else "a revision changes"
    assert f"not tested: {why}" in capsys.readouterr().out


# ---- options in env.py and version locations


def pass_in_env(site, options, before=""):
    """Pass more keywords to run_migrations() in env.py, and insert `before` above the call."""
    go(site, "heads")  # creates the file
    env = site.root / "migrations/env.py"
    text = env.read_text().replace(
        "run_migrations(registry,", f"{before}\nrun_migrations(registry,"
    )
    env.write_text(text.replace("parents[1]))", f"parents[1]), {options})"))


def assert_every_command_agrees(site, capsys):
    """Check that every command sees the applied revision and that the application starts."""
    with project_imports(site.root):
        project = load_project(site.root)
        assert "has no revision" in revision_mismatch(project.config, site.engine)
        go(site, "upgrade head")
        values = {**project.config.values, "migrations.on_mismatch": "refuse"}
        search_path = [*sys.path]
        app = App(project.registry, Config(values, site.root))
        assert sys.path == search_path
        assert ask(app).status == 404  # it has no pages, but it started
        app.database.engine.dispose()
    capsys.readouterr()
    for words in (["check"], ["migrate", "check"], ["migrate", "current"]):
        assert site.run(*words) == 0
    assert "(head)" in capsys.readouterr().out


def configure_migrations(site, text):
    (site.root / "config.yaml").write_text(f'database: "{site.url}"\nmigrations: {text}\n')


PLACES_OF_VERSIONS = [
    ("sqlite", "version_table: steps"),
    ("mariadb", "version_table: steps"),
    ("postgresql", "version_table: steps, version_table_schema: meta"),
    ("postgresql", "version_table_schema: meta, portable_to: [postgresql]"),
]


@pytest.mark.parametrize(("database", "text"), PLACES_OF_VERSIONS, indirect=["database"])
def test_every_command_respects_the_version_table_and_its_schema(site, capsys, text):
    schema = "meta" if "meta" in text else None
    if schema:
        site.execute("CREATE SCHEMA meta")
    site.models(PLAYERS)
    configure_migrations(site, f"{{{text}}}")
    site.autogenerate("players")
    assert_every_command_agrees(site, capsys)
    table = "steps" if "steps" in text else "alembic_version"
    assert table in sa.inspect(site.engine).get_table_names(schema=schema)
    go(site, "downgrade base")
    assert site.tables() - {table} == set()


@only_sqlite
def test_a_version_table_in_env_py_is_an_error_naming_the_setting(site, capsys):
    site.revision("a1", "pass")
    pass_in_env(site, 'version_table="steps"')
    assert "migrations: {version_table: steps}" in refuse(site, capsys)


BROKEN = {"int('not a number')": "ValueError", "def upgrade(:": "SyntaxError",
          "raise SystemExit('enough')": "SystemExit: enough"}  # fmt: skip


@only_sqlite
@pytest.mark.parametrize(("text", "expected"), BROKEN.items())
def test_an_unimportable_revision_is_a_warning_or_an_error_with_refuse(
    site, caplog, text, expected
):
    site.revision("a1", "pass")
    go(site, "upgrade head")
    site.write("migrations/versions/b2_.py", text)
    with project_imports(site.root):
        project = load_project(site.root)
        app = App(project.registry, site.config)
        assert ask(app).status == 404
        app.database.engine.dispose()
        assert expected in caplog.text
        configure_migrations(site, "{on_mismatch: refuse}")
        with pytest.raises(NoventaError, match=expected):
            App(project.registry, site.config)


@only_sqlite
def test_nested_and_other_version_locations_are_read(site, capsys):
    """Test `recursive_version_locations` and `version_locations` of alembic.ini."""
    site.models(PLAYERS)
    site.autogenerate("players")
    (path,) = site.revisions()
    ini = site.root / "migrations/alembic.ini"
    plain = ini.read_text()
    ini.write_text(plain + "recursive_version_locations = true\n")
    deep = site.root / "migrations/versions/2024/01"
    deep.mkdir(parents=True)
    path = path.rename(deep / path.name)
    assert_every_command_agrees(site, capsys)
    go(site, "downgrade base")
    elsewhere = site.root / "history"
    elsewhere.mkdir()
    path.rename(elsewhere / path.name)
    ini.write_text(plain + "version_locations = %(here)s/../history\n")
    assert_every_command_agrees(site, capsys)


EXCLUDE = """
def include(thing, name, kind, reflected, compared):
    by_hand = kind == "index" and name.startswith("hand_")
    return not (by_hand or thing.info.get("by_hand"))

"""
VIEW = """
class Shown(Base):
    __tablename__ = "shown"
    __table_args__ = {"info": {"by_hand": True}}
    id: Mapped[int] = mapped_column(primary_key=True)
    shout: Mapped[str] = mapped_column(sa.String(128), server_default="x")
"""


@only_sqlite
def test_objects_excluded_in_env_py_are_neither_generated_nor_missed(site, capsys):
    site.models(PLAYERS + VIEW)
    options = (
        "process_revision_directives=lambda *_: print('reviewed'), include_name=lambda *_: True"
    )
    pass_in_env(site, f"include_object=include, {options}", before=EXCLUDE)
    assert "shown" not in site.autogenerate("players")
    assert "reviewed" in capsys.readouterr().out
    (first,) = site.revisions()
    view = "CREATE VIEW shown AS SELECT id, upper(name) AS shout FROM users"
    site.revision("b2", f"""
        op.execute("{view}")
        op.create_index("hand_title", "awards", ["title"])
    """, """
        op.drop_index("hand_title", "awards")
        op.execute("DROP VIEW shown")
    """, after=first.name.partition("_")[0])  # fmt: skip
    assert_every_command_agrees(site, capsys)
    go(site, "revision --autogenerate -m again")
    assert "Nothing has changed" in capsys.readouterr().out


@only_postgresql
def test_a_value_missing_from_the_database_enum_returns_500_instead_of_400(site, tmp_path):
    class Base(orm.DeclarativeBase):
        pass

    class Item(Base):
        __tablename__ = "items"
        id: Mapped[int] = mapped_column(primary_key=True)
        size = mapped_column(sa.Enum("S", "L", "XL", name="size"))
        weight: Mapped[int | None]

    def add(request, session, db):
        db.add(Item(size=request.args.get("size"), weight=request.args.get("weight", type=int)))
        db.flush()
        return {}

    routes = [Endpoint("/", add, writes=True)]
    app = make_app(tmp_path, config={"database": site.url}, models=[Base], routes=routes)
    with app.database.session() as db:
        db.execute(sa.text("ALTER TYPE size RENAME VALUE 'XL' TO 'XS'"))
        db.commit()
    queries = ["size=L", "size=XL", f"size=L&weight={10**12}", "size=%00"]
    assert [ask(app, query=query).status for query in queries] == [200, 500, 400, 400]
    app.database.engine.dispose()
