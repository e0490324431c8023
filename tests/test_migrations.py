"""Migrations: atomicity, locking, protection from data loss, portability and error messages."""

from __future__ import annotations

import logging
import re
import secrets
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from conftest import (
    USER_MODELS,
    Site,
    only_mariadb,
    only_postgresql,
    only_sqlite,
    servers,
    transactional,
)
from processes import environment
from support import CHILD, ITEM, alembic, apply, faults, go, lacks, refuse

import noventa_cli
from noventa import Config, NoventaError, revision_mismatch
from noventa_cli import migration_lock, project_imports

pytestmark = pytest.mark.slow

MAKE_ITEMS = """
op.create_table("items", sa.Column("id", sa.Integer, primary_key=True),
                sa.Column("name", sa.String(50), nullable=False))
"""
DROP_ITEMS = 'op.drop_table("items")'
NOWHERE = 'op.execute("INSERT INTO nowhere VALUES (1)")'


def insert(number, name):
    return f"op.execute(\"INSERT INTO items (id, name) VALUES ({number}, '{name}')\")"


def mismatch(site):
    return revision_mismatch(site.config, site.engine)


def limit(site, settings):
    site.write("config.yaml", f'database: "{site.url}"\nmigrations: {{{settings}}}\n')


# ---- atomicity and honest reports


@transactional
def test_a_failed_revision_is_rolled_back_and_succeeds_once_fixed(site, capsys):
    body = f"""
        op.create_table("more", sa.Column("id", sa.Integer, primary_key=True))
        {insert(1, "one")}
        with op.batch_alter_table("items") as batch:
            batch.alter_column("name", type_=sa.String(90), existing_type=sa.String(50))
        {NOWHERE}
    """
    site.revision("a1", MAKE_ITEMS)  # kept, although the same command applies it
    site.revision("b2", body, after="a1")
    message = refuse(site, capsys)
    expected = (
        "migrations/versions/b2_.py:12",
        "INSERT INTO nowhere",
        "This revision was rolled back",
    )
    assert lacks(message, *expected) == []
    assert (site.tables(), site.at()) == ({"items"}, ["a1"])
    assert site.rows("SELECT * FROM items") == []
    site.revision("b2", body.replace(NOWHERE, insert(2, "two")), after="a1")
    go(site, "upgrade head")
    assert len(site.rows("SELECT * FROM items")) == 2


BLOCK = "with op.get_context().autocommit_block():\n    op.execute('SELECT 1')"
TRANSACTION_ENDS = {  # whether something is kept, the statement that ends it, the failure
    "autocommit_block": (True, BLOCK, "1 / 0"),
    "the connection's commit": (True, "op.get_bind().commit()", NOWHERE),
    "a literal COMMIT": (True, "op.execute('COMMIT')", "1 / 0"),
    "the driver's commit": (True, "op.get_bind().connection.driver_connection.commit()", NOWHERE),
    "the connection's rollback": (False, "op.get_bind().rollback()", "1 / 0"),
}


@transactional
@pytest.mark.parametrize(
    ("stays", "end", "failure"), TRANSACTION_ENDS.values(), ids=TRANSACTION_ENDS
)
def test_statements_a_revision_committed_itself_are_reported(site, capsys, stays, end, failure):
    more = "op.execute('CREATE TABLE more (id INTEGER)')"
    site.revision("a1", "\n".join([MAKE_ITEMS, end, more, failure]))
    message = refuse(site, capsys)
    assert ("This revision was rolled back" in message) is not stays
    assert ("CREATE TABLE items" in message) is stays
    assert ("items" in site.tables()) is stays
    site.revision("a1", "pass")
    site.revision("b2", "pass", after="a1")
    go(site, "stamp a1", "upgrade head")


@transactional
def test_a_commit_before_a_revisions_first_statement_is_detected(site, capsys):
    site.revision("a1", "\n".join(["op.execute('COMMIT')", MAKE_ITEMS, "1 / 0"]))
    message = refuse(site, capsys)
    stays = site.engine.dialect.name == "sqlite"  # psycopg begins a new transaction
    assert ("CREATE TABLE items" in message) is stays
    assert ("This revision was rolled back" in message) is not stays
    assert site.tables() == ({"items"} if stays else set())


@only_mariadb
@pytest.mark.parametrize("failing", [NOWHERE, "sa.nowhere"])
def test_mariadb_lists_executed_statements_after_a_failure_and_reruns_once_fixed(
    site, capsys, failing
):
    site.revision("a1", f"{MAKE_ITEMS}\nop.create_index('ix_one', 'items', ['name'])\n{failing}")
    site.revision("b2", "pass", after="a1")
    message = refuse(site, capsys)
    assert lacks(message, "cannot roll back DDL", "CREATE TABLE items", "CREATE INDEX") == []
    assert site.at() == []
    site.execute("DROP TABLE items")
    site.revision("a1", MAKE_ITEMS)
    go(site, "upgrade head")
    assert site.tables() == {"items"}  # and no marker left by Noventa


KILLED = f"{DROP_ITEMS}\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)"


@only_mariadb
@pytest.mark.parametrize("end", [f"{DROP_ITEMS}\n{NOWHERE}", KILLED], ids=["failed", "killed"])
def test_a_failed_or_killed_downgrade_blocks_migrations_until_fixed(site, capsys, end):
    site.revision("a1", "pass")
    site.revision("b2", MAKE_ITEMS, end, after="a1")
    go(site, "upgrade head")
    if end == KILLED:
        command = [sys.executable, "-m", "noventa", "migrate", "downgrade", "-1"]
        ended = subprocess.run(command, cwd=site.root, env=environment(), check=False)
        assert ended.returncode == -signal.SIGKILL
    else:
        assert "DROP TABLE items" in refuse(site, capsys, "downgrade -1")
    site.revision("b2", MAKE_ITEMS, "pass", after="a1")
    for verb in ("", "upgrade b2"):
        message = refuse(site, capsys, verb)
        assert "The downgrade of b2 failed or was killed halfway" in message
    go(site, "stamp a1", "upgrade head")  # the table is dropped, as before b2
    assert (site.tables(), site.at()) == ({"items"}, ["b2"])


def test_exit_code_0_requires_the_revision_on_a_second_connection(site, capsys, monkeypatch):
    from sqlalchemy.engine.default import DefaultDialect

    site.revision("a1", MAKE_ITEMS)
    go(site, "upgrade head")
    site.revision("b2", insert(1, "one"), after="a1")
    with monkeypatch.context() as patch:  # COMMIT silently does nothing
        patch.setattr(type(site.engine.dialect), "do_commit", DefaultDialect.do_rollback)
        assert "was not committed" in refuse(site, capsys)
    assert site.at() == ["a1"]
    go(site, "upgrade head")
    assert site.at() == ["b2"]


def test_a_downgrade_reaches_its_target_and_reports_dropped_rows_and_values(site, capsys):
    site.revision("a1", MAKE_ITEMS, DROP_ITEMS)
    site.revision("b2", """
        with op.batch_alter_table("items") as batch:
            batch.add_column(sa.Column("size", sa.Integer))
    """, """
        with op.batch_alter_table("items") as batch:
            batch.drop_column("size")
            batch.alter_column("name", new_column_name="title", existing_type=sa.String(50))
    """, after="a1")  # fmt: skip
    go(site, "upgrade head")
    rows = "INSERT INTO items (id, name, size) VALUES (1, 'a', 3), (2, 'b', NULL), (3, 'c', 9)"
    site.execute(rows)
    go(site, "downgrade -1")
    assert site.at() == ["a1"]
    go(site, "downgrade base")
    assert (site.tables(), site.at()) == (set(), [])
    assert re.findall("dropped .*", capsys.readouterr().out) == [
        "dropped column items.size (2 values)",
        "dropped table items (3 rows)",
    ]
    go(site, "upgrade head", "upgrade head")
    assert "Nothing to do: the database is at b2." in capsys.readouterr().out


# ---- locking

FIVE = """\
import os, sys
from alembic import autogenerate
from alembic.config import main as alembic
from noventa_cli import main
for number in range(5):
    if os.fork():
        continue
    if number % 2:
        assert main(["migrate"]) == 0
    else:
        alembic(["-c", "migrations/alembic.ini", "upgrade", "head"])
    assert main(["seed"]) == 0
    sys.exit()
print("exit codes", sorted(os.wait()[1] for _ in range(5)))
"""


def test_five_processes_can_migrate_and_seed_a_new_database_at_once(site):
    site.write("components/user/user_models.py", USER_MODELS)
    site.write("migrations/seed/first.py", """\
        from components.user.user_models import User
        def one(db):
            db.add(User(email="a@example.com", name="A"))
            db.commit()
        def two(db):
            db.add(User(email="b@example.com", name="B"))
    """)  # fmt: skip
    seeds = "migrations.seed.first.one migrations.seed.first.two"
    site.register("components.user.user_models", seeds)
    site.autogenerate("users")
    revision = site.revisions()[0].name.split("_")[0]
    site.revision("z9", "op.execute(\"INSERT INTO users (id, email, name) VALUES (99, 'z', 'Z')\")",
                  after=revision)  # fmt: skip
    with start(site, FIVE) as five:
        output = five.communicate(timeout=120)[0]
    assert "exit codes [0, 0, 0, 0, 0]" in output, output
    assert output.count("upgraded z9") == 1
    assert output.count("seeded migrations.seed.first.one") == 1
    assert sorted(row[0] for row in site.rows("SELECT name FROM users")) == ["A", "B", "Z"]
    assert site.at() == ["z9"]
    assert len(site.rows("SELECT * FROM noventa_seed")) == 2


def start(site, code):
    return subprocess.Popen(
        [sys.executable, "-u", "-c", code], cwd=site.root, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


HOLD = """\
import time
from pathlib import Path
from noventa import Config
from noventa_cli import migration_lock
with migration_lock(Config.load(Path.cwd())):
    print("held")
    time.sleep(60)
"""


def test_waiting_for_the_lock_is_reported_and_times_out_and_a_killed_holder_frees_it(site, capsys):
    site.revision("a1", MAKE_ITEMS)
    limit(site, "lock_timeout: 1")
    with start(site, HOLD) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            waited = refuse(site, capsys)
            assert re.search(r"Process \d+ is waiting for another process", waited)
            assert lacks(waited, "for 1 s", "migrations.lock_timeout") == []
            limit(site, "lock: false")
            go(site, "stamp head")  # without the lock nothing waits
        finally:
            holder.send_signal(signal.SIGKILL)
    limit(site, "lock_timeout: 10")
    go(site, "stamp base", "upgrade head")


@only_sqlite
def test_reads_finish_at_once_next_to_a_sqlite_writer_and_writes_wait_as_configured(site, capsys):
    site.revision("a1", MAKE_ITEMS)
    site.models(ITEM.replace("Mapped[str]", "Mapped[str] = mapped_column(sa.String(50))"))
    go(site, "upgrade head")
    limit(site, "lock_timeout: 1")
    with site.engine.begin() as writer:
        writer.execute(sa.text("INSERT INTO items VALUES (1, 'one')"))
        go(site, "upgrade head", "current", "check", "stamp head")
        assert site.run("seed") == 0
        assert "waits" not in capsys.readouterr().err
        site.revision("b2", insert(2, "two"), after="a1")
        assert "database is locked" in refuse(site, capsys)
    go(site, "upgrade head")
    assert len(site.rows("SELECT * FROM items")) == 2


@only_postgresql
def test_a_table_in_use_blocks_readers_only_briefly_and_a_timeout_is_reported(site, capsys):
    alter = "op.add_column('items', sa.Column('size', sa.Integer()))"
    kept = "op.execute('CREATE TABLE more (id integer)')\nop.get_bind().commit()\n"
    site.revision("a1", MAKE_ITEMS)
    go(site, "upgrade head")
    with ThreadPoolExecutor(1) as threads:
        with site.engine.connect() as report:
            report.execute(sa.text("SELECT * FROM items"))  # the open transaction keeps its lock
            for before in ("", kept):
                site.revision("b2", before + alter, after="a1")
                limit(site, "lock_timeout: 1, table_timeout: 1")
                message = refuse(site, capsys)
                expected = "The table is in use; migrate again", "ALTER TABLE items ADD COLUMN size"
                assert lacks(message, *expected) == []
                assert ("Already executed" in message) == bool(before)
            site.revision("b2", alter, after="a1")
            limit(site, "lock_timeout: 20, table_timeout: 1")
            migrated = threads.submit(site.migrate)
            longest, until = 0.0, time.monotonic() + 2
            while time.monotonic() < until:
                began = time.monotonic()
                site.rows("SELECT * FROM items")
                longest = max(longest, time.monotonic() - began)
        assert migrated.result() == 0
    assert 0.3 < longest < 3  # readers queue behind the ALTER; the machine may be busy
    assert site.rows("SELECT size FROM items") == []


@servers
def test_the_lock_survives_idle_session_timeouts(site):
    if site.backend == "postgresql":
        name = sa.make_url(site.url).database
        site.execute(f"ALTER DATABASE {name} SET idle_session_timeout = 300")
    else:
        query = {"init_command": "SET SESSION wait_timeout=1"}
        url = sa.make_url(site.url).update_query_dict(query)
        site.write("config.yaml", f'database: "{url.render_as_string(hide_password=False)}"\n')
    with migration_lock(site.config):
        time.sleep(0.6 if site.backend == "postgresql" else 1.5)
        values = {**site.config.values, "migrations.lock_timeout": 0}
        with pytest.raises(NoventaError), migration_lock(Config(values, site.root)):
            pass


# ---- no silent data loss


def test_a_generated_revision_that_drops_data_requires_allow_drop(site, capsys):
    old = ITEM.replace("Item", "Old").replace("items", "old")
    apply(site, ITEM + "    size: Mapped[int] = mapped_column(server_default='3')\n" + old)
    site.models(ITEM.replace("name: Mapped[str]", "title: Mapped[str]"))
    message = refuse(site, capsys, "revision --autogenerate -m drop")
    expected = "table old", "column items.size", "column items.name", "existing_nullable=False)"
    assert lacks(message, *expected, "--allow-drop") == []
    assert alembic(site, "revision", "--autogenerate", "-m", "drop") == 255
    captured = capsys.readouterr()
    assert "FAILED: The revision would lose data" in captured.out
    assert "column items.size" in captured.err
    assert len(site.revisions()) == 1
    site.models(ITEM)
    assert alembic(site, "-x", "allow_drop=1", "revision", "--autogenerate", "-m", "drop") == 0
    go(site, "upgrade head")
    assert site.tables() == {"items"}
    go(site, "downgrade -1")
    columns = sa.inspect(site.engine).get_columns("items")
    assert [column["name"] for column in columns] == ["id", "name", "size"]
    assert site.tables() == {"items", "old"}


def test_a_probable_rename_is_suggested_as_working_code_even_with_a_new_column(site, capsys):
    apply(site, ITEM)
    site.execute("INSERT INTO items (id, name) VALUES (1, 'kept')")
    title = ITEM.replace("name: Mapped[str]", "title: Mapped[str]")
    both = title + "    size: Mapped[int | None]\n"
    site.models(both)
    message = refuse(site, capsys, "revision --autogenerate -m both")
    (line,) = re.findall(r"op\.alter_column\(.*\)", message)
    site.revision("b2", line, after=site.at()[0])
    go(site, "upgrade head")
    apply(site, both)
    assert site.rows("SELECT title, size FROM items") == [("kept", None)]
    site.models(both.replace("items", "things"))
    message = refuse(site, capsys, "revision --autogenerate -m rename")
    assert "op.rename_table('items', 'things')" in message


def test_unmanaged_tables_are_left_alone_and_no_change_writes_no_file(site, capsys):
    site.execute("CREATE TABLE legacy (id INTEGER PRIMARY KEY)")
    site.execute("CREATE TABLE noventa_seed (x INTEGER)")
    assert "legacy" not in apply(site, ITEM)
    go(site, "revision --autogenerate -m nothing", "check")
    assert lacks(capsys.readouterr().out, "Nothing has changed", "Not compared: computed") == []
    assert len(site.revisions()) == 1
    assert site.tables() == {"items", "legacy", "noventa_seed"}
    go(site, "revision -m hand")  # an explicit revision is written even if empty
    assert len(site.revisions()) == 2


@only_sqlite
def test_a_sqlite_batch_keeps_child_rows_and_revisions_that_leave_orphans_are_rejected(
    site, capsys
):
    apply(site, ITEM + CHILD)
    site.execute("INSERT INTO items VALUES (1, 'one'), (2, 'two')",
                 "INSERT INTO children VALUES (1, 1), (2, 2)")  # fmt: skip
    apply(site, ITEM.replace("Mapped[str]", "Mapped[str] = mapped_column(unique=True)") + CHILD)
    assert site.rows("SELECT * FROM children") == [(1, 1), (2, 2)]
    assert site.rows("PRAGMA foreign_keys") == [(1,)]
    head = site.at()[0]
    site.revision("b2", 'op.execute("DELETE FROM items WHERE id = 1")', after=head)
    message = refuse(site, capsys)
    expected = "children (to items): 1", "ON DELETE does not run while SQLite migrates"
    assert lacks(message, *expected) == []
    assert len(site.rows("SELECT * FROM items")) == 2
    with site.engine.connect() as connection:
        raw = connection.connection.driver_connection
        raw.execute("PRAGMA foreign_keys=OFF")
        raw.execute("INSERT INTO children VALUES (3, 77)")
    site.revision("b2", "op.execute(\"UPDATE items SET name = 'three' WHERE id = 1\")", after=head)
    go(site, "upgrade head")  # earlier orphans do not fail the revision


def test_a_new_not_null_column_is_reported_and_fails_on_existing_rows(site, capsys):
    apply(site, ITEM)
    assert "must have a value" not in capsys.readouterr().out
    site.models(ITEM + "    size: Mapped[int]\n    color: Mapped[str | None]\n")
    site.autogenerate("size")
    output = capsys.readouterr().out
    assert "items.size must have a value" in output
    assert "items.color" not in output
    site.execute("INSERT INTO items (id, name) VALUES (1, 'one')")
    assert re.search(r"migrations/versions/\w+_size.py:\d+", refuse(site, capsys))
    site.execute("DELETE FROM items")
    go(site, "upgrade head")


# ---- names and portability

KIND = """
class Kind(Base):
    __tablename__ = "kinds"
    __table_args__ = {"schema": None}
    id: Mapped[int] = mapped_column(primary_key=True)
"""
SHOP = f"""{KIND}{ITEM}
    price: Mapped[int]
    kind_id: Mapped[int]
    active: Mapped[bool] = mapped_column(sa.Boolean(create_constraint=True))
"""
CONSTRAINTS = """    code: Mapped[str | None] = mapped_column(sa.String(9), unique=True)
    __table_args__ = (
        sa.UniqueConstraint("name"),
        sa.CheckConstraint("code <> 'x'", name="coded"),
        sa.ForeignKeyConstraint(["kind_id"], ["kinds.id"]),
        sa.CheckConstraint("price > 0"),
    )
"""


def test_every_constraint_has_a_name_and_can_be_dropped_and_recreated(site):
    def names():
        found = sa.inspect(site.engine)
        lists = (found.get_unique_constraints, found.get_foreign_keys, found.get_check_constraints)
        return {entry["name"] for names in lists for entry in names("items")}

    first = apply(site, SHOP)
    before = names()
    rows = "(1, 'one', 1, 1, true), (2, 'two', 1, 1, true)"
    site.execute("INSERT INTO kinds (id) VALUES (1)",
                 f"INSERT INTO items (id, name, price, kind_id, active) VALUES {rows}")  # fmt: skip
    text = first + apply(site, SHOP + CONSTRAINTS)
    own = r"(?m)^(down_revision|branch_labels|depends_on).*|schema=None|-> None"
    assert "None" not in re.sub(own, "", text)
    after = names()
    assert {"uq_items_name", "uq_items_code", "fk_items_kind_id_kinds"} <= after
    go(site, "downgrade -1")
    assert names() == before
    go(site, "upgrade head", "check")
    assert names() == after
    with pytest.raises(sa.exc.IntegrityError):
        site.execute("UPDATE items SET code = 'a'")


@servers
def test_revisions_generated_on_sqlite_migrate_other_databases(site):
    site.write("config.yaml", 'database: "sqlite:///./elsewhere.db"\n')
    apply(site, ITEM + CHILD)
    site.write("config.yaml", f'database: "{site.url}"\n')
    go(site, "upgrade head")
    assert site.tables() == {"items", "children"}
    go(site, "check", "downgrade base")


CIRCLE = """
class Thing(Base):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind_id: Mapped[int] = mapped_column(sa.ForeignKey(Kind.id), index=True)

class Team(Base):
    __tablename__ = "teams"
    id: Mapped[int] = mapped_column(primary_key=True)
    captain_id: Mapped[int | None] = mapped_column(sa.ForeignKey("players.id"))

class Player(Base):
    __tablename__ = "players"
    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int | None] = mapped_column(sa.ForeignKey("teams.id"))
    rival_id: Mapped[int | None] = mapped_column(sa.ForeignKey("players.id"))
"""


def test_schemas_circular_tables_and_required_indexes_upgrade_and_downgrade(site, capsys):
    schema = None if site.backend == "sqlite" else f"noventa_{secrets.token_hex(6)}"
    models = KIND.replace("None", repr(schema)) + CIRCLE
    apply(site, models)
    found = sa.inspect(site.engine)
    assert [len(found.get_foreign_keys(name)) for name in ("teams", "players")] == [1, 2]
    go(site, "downgrade base", "upgrade head", "check", "revision --autogenerate -m again")
    assert "Nothing has changed" in capsys.readouterr().out
    apply(site, models.replace("    kind_id", "    # kind_id"), "--allow-drop")
    go(site, "downgrade -1", "upgrade head", "check", "downgrade base")
    assert site.tables() == set()
    if schema:
        site.execute(f"DROP SCHEMA {schema}")
    else:
        assert faults(site) == ""


LENGTHS = """
class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    text: Mapped[str] = mapped_column(index=True)
    one = mapped_column(sa.String({}), index=True)
    two = mapped_column(sa.String({}), index=True)
    three = mapped_column(sa.String({}), index=True)
    four = mapped_column(sa.String({}), index=True)
"""
UNBOUNDED = "sa.String().with_variant(sa.String(length=255), 'mysql', 'mariadb')"


def test_string_lengths_are_enforced_and_length_changes_are_detected(site):
    assert apply(site, LENGTHS.format("", 40, 40, 255)).count(UNBOUNDED) == 3
    go(site, "check")
    add = f"INSERT INTO notes (id, `key`, text) VALUES (1, 'a', '{'x' * 300}')"
    if site.backend == "mysql":
        with pytest.raises(sa.exc.DataError):
            site.execute(add)
    else:
        site.execute(add.replace("`", ""))
        assert site.rows("SELECT text FROM notes") == [("x" * 300,)]
    text = apply(site, LENGTHS.format(40, "", 255, 256))
    assert lacks(text, *(f"'{name}'" for name in ("one", "two", "three", "four"))) == []
    go(site, "check", "downgrade base")


@only_sqlite
def test_older_revisions_stay_valid_and_a_collation_needs_no_length(site):
    noted = "    noted = mapped_column(sa.String(collation='NOCASE'))\n"
    site.models(ITEM + noted)
    site.autogenerate("first")
    (path,) = site.revisions()
    path.write_text(path.read_text("utf-8").replace(UNBOUNDED, "sa.String(length=255)"), "utf-8")
    go(site, "upgrade head", "check", "revision --autogenerate -m none")
    assert len(site.revisions()) == 1
    site.execute("INSERT INTO items VALUES (1, 'one', 'One')")
    assert site.rows("SELECT id FROM items WHERE noted = 'ONE'") == [(1,)]


@transactional
def test_reflected_strings_without_a_length_are_rendered_so_mysql_can_run_them(site, capsys):
    longer = "    more: Mapped[str | None]\n"
    for text in (ITEM + longer, ITEM + longer.replace(" | None", ""), ITEM):
        apply(site, text, "--allow-drop")
    head = site.at()[0]
    site.write("config.yaml", 'database: "mysql://nobody@127.0.0.1:1/nothing"\n')
    capsys.readouterr()
    go(site, "upgrade head --sql", f"downgrade {head}:base --sql")
    assert capsys.readouterr().out.count("more VARCHAR(255)") == 4


# ---- commands and error messages


def test_alembic_and_noventa_migrate_are_equivalent_from_any_directory(tmp_path):
    """Use Alembic's functions here, and both commands as processes in other directories."""
    from alembic import command
    from alembic.config import Config as AlembicConfig

    root = tmp_path / "project"
    site = Site(root, "sqlite:///./noventa.db")
    site.models(ITEM)
    go(site, "heads")
    with project_imports(root):
        config = AlembicConfig(root / "migrations/alembic.ini", stdout=sys.stdout)
        command.revision(config, "Add item", autogenerate=True)
    python = [sys.executable, "-m"]
    for folder, words in [
        (root / "migrations", [*python, "alembic", "-c", "alembic.ini", "upgrade", "head"]),
        (Path("/"), [*python, "noventa", "--project", str(root), "migrate", "history"]),
    ]:
        ended = subprocess.run(
            words, cwd=folder, env=environment(), capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Add item" in ended.stdout
    with project_imports(root):
        command.check(config)
        command.revision(config, "nothing", autogenerate=True)
    assert len(site.revisions()) == 1
    assert site.tables() == {"items"}
    assert [path.name for path in tmp_path.rglob("*.db")] == ["noventa.db"]


USER_ERRORS = {  # files, the failing verb and the expected message
    "sys.exit(0)": ({"versions/b2_.py": "import sys; revision = 'b2'; down_revision = 'a1'\n"
                                        "def upgrade(): sys.exit(0)\n"},
                    "upgrade head", ["migrations/versions/b2_.py:2: it called sys.exit()"]),
    "invalid Python": ({"versions/b2_.py": "revision = 'b2'\ndef upgrade(:\n"},
                  "heads", ["migrations/versions/b2_.py:2: SyntaxError"]),
    "an unknown name": ({"versions/b2_.py": "revision = 'b2'\ndown_revision = 'a1'\nnowhere()\n"},
                        "upgrade head", ["migrations/versions/b2_.py:3: NameError"]),
    "a revision without a file": ({}, "upgrade nothing", ["Can't locate revision"]),
    "a registry without tables": ({"../registry.py": "from noventa import Registry\n"
                                                     "registry = Registry()\n"},
                                  "--allow-drop revision --autogenerate -m x", ["no tables"]),
    "a missing folder": ({"../config.yaml": 'database: "sqlite:///./nowhere/n.db"\n'},
                                   "upgrade head", ["nowhere"]),
    "a faulty env.py": ({"env.py": "1 / 0\n"}, "revision --autogenerate -m x",
                        ["migrations/env.py:1: ZeroDivisionError: division by zero; fix"]),
    "a faulty alembic.ini": ({"alembic.ini": "garbage\n"}, "revision --autogenerate -m x",
                             ["File contains no section headers."]),
    "a faulty template": ({"script.py.mako": "${nope"}, "revision --autogenerate -m x",
                          ["script.py.mako' at line: 1 char: 1; fix the file."]),
}  # fmt: skip


@only_sqlite
@pytest.mark.parametrize(("files", "verb", "expected"), USER_ERRORS.values(), ids=USER_ERRORS)
def test_a_user_error_is_one_message_and_changes_nothing(site, capsys, files, verb, expected):
    site.revision("a1", MAKE_ITEMS.replace("50", "255"), DROP_ITEMS)
    site.models(ITEM + "    more: Mapped[str | None]\n")
    go(site, "upgrade head")
    database = (site.root / "noventa.db").read_bytes()
    for name, text in files.items():
        site.write(f"migrations/{name}", text)
    revisions = site.revisions()
    assert lacks(refuse(site, capsys, verb), *expected) == []
    assert site.revisions() == revisions
    assert (site.root / "noventa.db").read_bytes() == database


@only_sqlite
def test_two_heads_can_be_merged_as_the_message_suggests(site, capsys):
    site.models(ITEM)
    for number, after in (("a1", ""), ("b2", "a1"), ("c3", "a1")):
        site.revision(number, "pass", after=after)
    expected = "versions/b2_.py", "versions/c3_.py", "python -m noventa migrate merge heads"
    for verb in ("", "revision -m more"):
        assert lacks(refuse(site, capsys, verb), *expected) == []
    assert alembic(site, "upgrade", "head") == 255
    assert "migrate merge heads" in capsys.readouterr().err
    assert "merge heads" in faults(site)
    go(site, "merge heads -m merge", "upgrade head")


def test_a_folder_name_alembic_cannot_read_is_one_message(tmp_path, capsys):
    site = Site(tmp_path / "100% é", "sqlite:///./noventa.db")
    assert "rename the folder" in refuse(site, capsys)


@only_sqlite
def test_wrong_usage_exits_with_2_and_existing_files_are_never_overwritten(site, capsys):
    site.write("migrations/alembic.ini", "[alembic]\nscript_location = %(here)s\n"
               "prepend_sys_path = %(here)s/..\npath_separator = os\n# mine\n")  # fmt: skip
    assert site.migrate("upgrate", "head") == 2
    assert site.migrate("-q") == 2
    site.revision("a1", MAKE_ITEMS)
    go(site, "upgrade head --sql")
    assert "CREATE TABLE items" in capsys.readouterr().out
    assert not (site.root / "noventa.db").exists()
    assert "# mine" in (site.root / "migrations/alembic.ini").read_text()
    assert (site.root / "migrations/env.py").exists()
    assert (site.root / "migrations/versions").is_dir()


@only_sqlite
def test_each_revision_prints_one_line_with_its_duration(site, capsys, monkeypatch):
    monkeypatch.setattr(noventa_cli, "_PROGRESS_DELAY", 0.01)
    site.revision("a1", MAKE_ITEMS)
    site.revision("b2", "import time\ntime.sleep(0.1)", after="a1")
    go(site, "upgrade head")
    output = capsys.readouterr().out
    assert re.findall(r"(?m)^  upgraded (a1|b2).* \(\d+\.\d\d s\)$", output) == ["a1", "b2"]
    assert "  migrating …" in output
    monkeypatch.undo()
    go(site, "-q stamp base")
    assert capsys.readouterr().out == ""


# ---- check and revision_mismatch


@only_sqlite
def test_check_names_a_new_index_but_not_the_indexes_of_a_new_table(site):
    site.models(ITEM)
    go(site, "heads")
    site.revision("a1", MAKE_ITEMS.replace("50", "255"), DROP_ITEMS)
    site.models(ITEM + "    size: Mapped[int] = mapped_column(index=True)\n")
    assert "add_column items.size, add_index ix_items_size of items; run `python" in faults(site)
    box = "\n\nclass Box(Base):\n    __tablename__ = 'boxes'\n"
    site.models(ITEM + box + "    id: Mapped[int] = mapped_column(primary_key=True, index=True)\n")
    assert "models: add_table boxes; run `python" in faults(site)


@only_sqlite
def test_check_finds_missing_changes_and_revisions_that_cannot_downgrade(site):
    site.models(ITEM)
    assert "revision --autogenerate" in faults(site)
    go(site, "heads")
    for downgrade, found in [
        ("pass", "downgrade leaves items"),
        ('op.drop_table("itms")', "`downgrade base` fails on a scratch database (sqlite): migra"),
        (DROP_ITEMS, ""),
    ]:
        path = site.revision("a1", MAKE_ITEMS.replace("50", "255"), downgrade)
        assert found in faults(site)
    assert faults(site) == ""
    site.models(ITEM + "    size: Mapped[int]\n    weight: Mapped[int]\n")
    assert "add_column items.size, add_column items.weight; run `python" in faults(site)
    path.write_text(path.read_text() + "\nfrom models.shop_models import Item\n")
    assert "it imports models.shop_models from the application" in faults(site)
    site.write("migrations/env.py", "raise SystemExit('this must not run')\n")
    assert "migrations/env.py: it does not call run_migrations" in faults(site)
    assert list(site.root.glob("noventa.db*")) == []


@only_sqlite
def test_check_names_file_class_and_column_of_unportable_types(site):
    site.models("""
from sqlalchemy.dialects import postgresql
class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    size: Mapped[int]
    data = mapped_column(postgresql.JSONB())
    span = mapped_column(postgresql.INT4RANGE())
    text = mapped_column(sa.Text, unique=True)
    note: Mapped[str] = mapped_column(sa.String(1000), index=True)
    color = mapped_column(sa.Enum("a", "b"))
    fine = mapped_column(sa.JSON().with_variant(postgresql.JSONB(), "postgresql"))
    __table_args__ = (
        sa.Index("ix_one", "size", unique=True, sqlite_where=sa.text("id > 1"),
                 postgresql_where=sa.text("id > 1")),
        sa.Index("ix_some", "size", sqlite_where=sa.text("id > 1")),
    )
    """)
    found = faults(site)
    assert lacks(
        found,
        "models/shop_models.py: Item.span: not portable to sqlite",
        "models/shop_models.py: Item.data: not portable to mysql",
        "models/shop_models.py: Item.text: not portable to mysql",
        "ix_items_note is over 3072 bytes",
        "Item.color: not portable to postgresql",
        "so ix_one would be unique over all rows",
    ) == []  # fmt: skip
    assert "Item.fine" not in found
    assert "ix_some" not in found


@only_sqlite
def test_revision_mismatch_reports_empty_behind_and_unknown_with_the_command_to_run(site, capsys):
    assert mismatch(site) is None
    site.revision("a1", MAKE_ITEMS)
    assert "has no revision, expected a1; run `python -m noventa migrate`" in mismatch(site)
    assert list(site.root.glob("*.db")) == []
    go(site, "upgrade head")
    assert mismatch(site) is None
    path = site.revision("b2", "pass", after="a1")
    assert "at a1, behind b2; run `python -m noventa migrate`" in mismatch(site)
    go(site, "upgrade head")
    path.unlink()
    assert "at b2, which is not in migrations/versions" in mismatch(site)
    message = refuse(site, capsys)
    assert "'b2': no file in migrations/versions has it" in message
    for text in (mismatch(site), message):
        assert "stamp --purge head" in text
    go(site, "stamp --purge head")
    assert site.at() == ["a1"]
    site.revision("c3", "pass", after="a1")
    site.revision("d4", "pass", after="a1")
    go(site, "stamp --purge heads")
    assert mismatch(site) is None


def test_check_and_migrate_compare_tables_in_addition_to_revisions(site, capsys):
    apply(site, ITEM)
    assert site.run("check") == 0
    output = capsys.readouterr().out
    assert "tables compared in" in output
    assert "No revision contains" not in output
    nick = ITEM + "    nickname: Mapped[str | None]\n"
    site.models(nick)
    for run in (site.migrate, lambda: alembic(site, "upgrade", "head")):
        assert run() == 0
        output = capsys.readouterr().out
        assert (
            "No revision contains these model changes: add_column items.nickname; run `" in output
        )
    apply(site, nick)
    go(site, "downgrade -1", "upgrade head")
    assert "No revision contains" not in capsys.readouterr().out
    kind = "VARCHAR(255) NOT NULL" if site.backend == "mysql" else ""
    site.execute(f"ALTER TABLE items {f'CHANGE name nom {kind}' if kind else 'RENAME name TO nom'}")
    assert site.run("check") == 1
    assert "add_column items.name, remove_column items.nom" in capsys.readouterr().err


# ---- other users of Alembic, and idioms of public projects


@only_sqlite
def test_other_alembic_users_in_the_process_are_unaffected(site, capsys):
    """Also fails if Alembic stops taking its implementation from the context's `impl`."""
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    site.revision("a1", "print(type(op.get_context().impl).__module__, 'runs this')")
    before = {**Operations.__dict__}
    logs = logging.root.handlers[:], logging.root.level, logging.getLogger("noventa").disabled
    go(site, "upgrade head")
    after = logging.root.handlers[:], logging.root.level, logging.getLogger("noventa").disabled
    assert after == logs
    assert "noventa_cli runs this" in capsys.readouterr().out
    assert {**Operations.__dict__} == before
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        context = MigrationContext.configure(connection)
        assert type(context.impl).__module__.startswith("alembic.")
        connection.execute(sa.text("CREATE TABLE t (v VARCHAR(9))"))
        connection.execute(sa.text("INSERT INTO t VALUES ('007')"))
        with Operations(context).batch_alter_table("t") as batch:
            batch.alter_column("v", type_=sa.Integer)
        assert connection.scalar(sa.text("SELECT v FROM t")) == 7


IDIOMS = {
    "a check with a text clause": (
        f"{MAKE_ITEMS}\n"
        "with op.batch_alter_table('items') as batch:\n"
        "    batch.create_check_constraint('named', sa.text(\"name <> 'no'\"))"
    ),
    "a check dropped in the same revision": (
        f"{MAKE_ITEMS}\n"
        "with op.batch_alter_table('items') as batch:\n"
        "    batch.create_check_constraint(op.f('ck_items_name'), \"name <> 'no'\")\n"
        "with op.batch_alter_table('items') as batch:\n"
        "    batch.alter_column('name', type_=sa.String(90), existing_type=sa.String(50))\n"
        "with op.batch_alter_table('items') as batch:\n"
        "    batch.drop_constraint(op.f('ck_items_name'), type_='check')\n"
        f"{insert(1, 'no')}"
    ),
    "an existing server default": (
        f"{MAKE_ITEMS}\n"
        "op.add_column('items', sa.Column('on', sa.Boolean, server_default=sa.false()))\n"
        "with op.batch_alter_table('items') as batch:\n"
        "    batch.alter_column('on', existing_type=sa.Boolean(), nullable=False,\n"
        "                       existing_server_default=sa.false())"
    ),
    "columns built in a list": (
        "columns = [sa.Column('id', sa.Integer, primary_key=True), sa.Column('n', sa.Integer),\n"
        "           sa.CheckConstraint('n > 0')]\n"
        "op.create_table('items', *columns)"
    ),
    "a separate engine": (
        f"{MAKE_ITEMS}\n"
        "config = op.get_context().config\n"
        "own = sa.engine_from_config(config.get_section(config.config_ini_section))\n"
        "assert own.url.database == op.get_bind().engine.url.database\n"
        "own.dispose()"
    ),
    "rows read and updated": (
        f"{MAKE_ITEMS}\n{insert(1, 'a')}\n{insert(2, 'b')}\n"
        "bind = op.get_bind()\n"
        "for row in bind.execute(sa.text('SELECT id, name FROM items')).fetchall():\n"
        "    query = sa.text('UPDATE items SET name = :name WHERE id = :id')\n"
        "    bind.execute(query, {'name': row.name.upper(), 'id': row.id})"
    ),
    "an autocommit block": (
        f"{MAKE_ITEMS}\n"
        "with op.get_context().autocommit_block():\n"
        "    op.create_index('ix_name', 'items', ['name'])\n"
        f"{insert(1, 'a')}"
    ),
    "a session that commits": (
        f"{MAKE_ITEMS}\n"
        "from sqlalchemy.orm import Session\n"
        "session = Session(bind=op.get_bind())\n"
        "session.execute(sa.text(\"INSERT INTO items (id, name) VALUES (1, 'a')\"))\n"
        "session.commit()"
    ),
}


def test_idioms_from_revisions_of_public_projects_work(site, capsys):
    for number, (name, body) in enumerate(IDIOMS.items()):
        table = f"items{number}"
        upgrade = f"# {name}\n" + re.sub(r"\bitems\b", table, body).replace(
            "'named'", f"'n{number}'"
        )
        after = f"a{number - 1}" if number else ""
        site.revision(f"a{number}", upgrade, f"op.drop_table('{table}')", after=after)
    go(site, "upgrade head", "downgrade base", "upgrade head")
    assert site.at() == [f"a{len(IDIOMS) - 1}"]
    assert site.rows("SELECT name FROM items5 ORDER BY id") == [("A",), ("B",)]
    with pytest.raises(sa.exc.DatabaseError):
        site.execute("INSERT INTO items0 VALUES (1, 'no')")
    assert "fails" not in faults(site)  # on the scratch database


@only_postgresql
def test_migrations_and_seeds_need_their_own_url_behind_a_pooler(site, monkeypatch, capsys):
    monkeypatch.setenv("DIRECTLY", site.url)
    site.revision("a1", MAKE_ITEMS)
    site.write("sowing.py", """
        import sqlalchemy as sa

        def sow(db):
            db.execute(sa.text("INSERT INTO items VALUES (7, 'seven')"))
    """)  # fmt: skip
    site.register(seeds="sowing.sow")
    away = 'database: {url: "postgresql://nobody:wrong@127.0.0.1:9/none", pooler: true}\n'
    site.write("config.yaml", away)
    for verb in ("migrate", "seed"):
        assert site.run(verb) == 1
        assert "write migrations: {url: …}" in capsys.readouterr().err
    site.write("config.yaml", away + "migrations: {url: '${DIRECTLY}'}\n")
    go(site, "upgrade head")
    assert site.run("seed") == 0
    site.write("config.yaml", f'database: "{site.url}"\n')
    assert site.rows("SELECT id FROM items") == [(7,)]
