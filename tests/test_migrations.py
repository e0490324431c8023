"""Migrations that cannot hurt: the promises of the database, one test or more for each."""

from __future__ import annotations

import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from conftest import (
    USER_MODELS,
    only_mariadb,
    only_postgresql,
    only_sqlite,
    servers,
    transactional,
)
from processes import environment

import noventa_cli
from noventa import Config, NoventaError, revision_mismatch
from noventa_cli import (
    load_project,
    migration_lock,
    portability_faults,
    project_imports,
    revision_faults,
)

pytestmark = pytest.mark.slow

ITEM = """
class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
"""
MAKE_ITEMS = """
op.create_table("items", sa.Column("id", sa.Integer, primary_key=True),
                sa.Column("name", sa.String(50), nullable=False))
"""


def alembic(site, *words):
    """The command `alembic` in this process. Returns its exit code."""
    from alembic.config import main as alembic_main

    with project_imports(site.root):
        try:
            alembic_main(["-c", str(site.root / "migrations/alembic.ini"), *words])
        except SystemExit as end:
            return end.code & 0xFF
    return 0


def faults(site):
    with project_imports(site.root):
        project = load_project(site.root)
        return "\n".join(map(str, [*portability_faults(project), *revision_faults(project)]))


# ---- 7. all or nothing, and the truth


@transactional
def test_a_revision_that_fails_leaves_nothing_and_works_when_mended(site, capsys):
    site.revision("a1", MAKE_ITEMS)
    assert site.migrate() == 0
    body = """
        op.create_table("more", sa.Column("id", sa.Integer, primary_key=True))
        op.execute("INSERT INTO items (id, name) VALUES (1, 'one')")
        with op.batch_alter_table("items") as batch:
            batch.alter_column("name", type_=sa.String(90), existing_type=sa.String(50))
        op.execute("INSERT INTO nowhere VALUES (1)")
    """
    site.revision("b2", body, after="a1")
    assert site.migrate() == 1
    message = capsys.readouterr().err
    assert "migrations/versions/b2_.py:12" in message
    assert "INSERT INTO nowhere" in message
    assert "Nothing of this revision was kept" in message
    assert "Traceback" not in message
    assert site.tables() == {"items"}
    assert site.rows("SELECT * FROM items") == []
    assert site.at() == ["a1"]
    site.revision("b2", body.replace("nowhere VALUES (1)", "items VALUES (2, 'two')"), after="a1")
    assert site.migrate() == 0
    assert len(site.rows("SELECT * FROM items")) == 2


@transactional
def test_of_several_revisions_those_before_the_failing_one_are_kept(site):
    site.revision("a1", MAKE_ITEMS)
    site.revision("b2", "op.drop_table('items'); 1 / 0", after="a1")
    assert site.migrate() == 1
    assert site.at() == ["a1"]
    assert site.tables() == {"items"}


@only_mariadb
@pytest.mark.parametrize("failing", ['op.execute("INSERT INTO nowhere VALUES (3)")', "sa.nowhere"])
def test_mariadb_lists_what_ran_before_a_failure(site, capsys, failing):
    site.revision("a1", f"{MAKE_ITEMS}\nop.create_index('ix_one', 'items', ['name'])\n{failing}")
    assert site.migrate() == 1
    message = capsys.readouterr().err
    assert "MySQL cannot take DDL back" in message
    assert "CREATE TABLE items" in message
    assert "CREATE INDEX" in message
    assert site.at() == []


ENDS = {
    "autocommit_block": "with op.get_context().autocommit_block():\n    op.execute('SELECT 1')",
    "the connection's commit": "op.get_bind().commit()",
    "COMMIT as text": "op.execute('COMMIT')",
    "the driver's commit": "op.get_bind().connection.driver_connection.commit()",
}


@transactional
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("failure", ["1 / 0", 'op.execute("INSERT INTO nowhere VALUES (1)")'])
def test_what_a_revision_committed_itself_is_told_and_no_other_step_is_taken_on_it(
    site, capsys, end, failure
):
    body = f"{MAKE_ITEMS}\n{end}\nop.execute(\"INSERT INTO items VALUES (1, 'x')\")\n{failure}"
    site.revision("a1", body)
    assert site.migrate() == 1
    message = capsys.readouterr().err
    assert "Nothing of this revision" not in message
    assert "CREATE TABLE items" in message
    site.revision("a1", "pass")
    site.revision("b2", "pass", after="a1")
    assert site.migrate("stamp", "a1") == 0
    assert site.migrate() == 0
    assert site.tables() == {"items"}


@transactional
def test_what_a_revision_rolled_back_itself_is_not_said_to_stay(site, capsys):
    site.revision("a1", f"{MAKE_ITEMS}\nop.get_bind().rollback()\n1 / 0")
    assert site.migrate() == 1
    assert "Nothing of this revision was kept" in capsys.readouterr().err
    assert site.tables() == set()


@pytest.mark.parametrize("code", ["0", ""])
def test_sys_exit_in_a_revision_is_a_failure(site, capsys, code):
    site.revision("a1", f"import sys\nsys.exit({code})")
    assert site.migrate() == 1
    assert "migrations/versions/a1_.py:9: it called sys.exit()" in capsys.readouterr().err
    assert "run `python -m noventa migrate`" in str(revision_mismatch(site.config, site.engine))


DROP_TWO = 'op.drop_table("items")\nop.drop_table("nowhere")'


@only_mariadb
def test_after_a_half_failed_downgrade_nothing_goes_on_until_it_is_mended(site, capsys):
    site.revision("a1", "pass")
    site.revision("b2", MAKE_ITEMS, DROP_TWO, after="a1")
    assert site.migrate() == 0
    assert site.migrate("downgrade", "-1") == 1
    assert "DROP TABLE items" in capsys.readouterr().err
    site.revision("b2", MAKE_ITEMS, "pass", after="a1")
    for words in ([], ["upgrade", "b2"]):
        assert site.migrate(*words) == 1
        assert "The downgrade of b2 failed or was killed half-way" in capsys.readouterr().err
    assert site.migrate("stamp", "a1") == 0  # the table is gone, as it is before b2
    assert site.migrate() == 0
    assert site.tables() == {"items"}
    assert site.at() == ["b2"]


@only_mariadb
def test_a_half_failed_revision_that_is_mended_runs_again(site):
    site.revision("a1", f'{MAKE_ITEMS}\nop.execute("INSERT INTO nowhere VALUES (1)")')
    site.revision("b2", "pass", after="a1")
    assert site.migrate() == 1
    assert site.tables() == {"items", "noventa_unfinished"}
    site.execute("DROP TABLE items")
    site.revision("a1", MAKE_ITEMS)
    assert site.migrate() == 0
    assert site.tables() == {"items"}


@only_mariadb
@pytest.mark.slow
def test_a_revision_that_was_killed_half_way_is_not_taken_for_whole(site, capsys):
    site.revision("a1", MAKE_ITEMS)
    assert site.migrate() == 0
    end = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    site.revision("a1", MAKE_ITEMS, f'op.drop_table("items")\n{end}')
    command = [sys.executable, "-m", "noventa", "migrate", "downgrade", "base"]
    done = subprocess.run(command, cwd=site.root, env=environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    assert site.migrate() == 1
    assert "The downgrade of a1 failed or was killed half-way" in capsys.readouterr().err


def test_exit_0_means_the_database_is_there_as_read_on_a_second_connection(
    site, capsys, monkeypatch
):
    site.revision("a1", MAKE_ITEMS)
    assert site.migrate() == 0
    site.revision("b2", "op.execute(\"INSERT INTO items VALUES (1, 'one')\")", after="a1")
    from sqlalchemy.engine.default import DefaultDialect

    with monkeypatch.context() as patch:  # a COMMIT that silently is none
        patch.setattr(type(site.engine.dialect), "do_commit", DefaultDialect.do_rollback)
        assert site.migrate() == 1
    assert "was not kept" in capsys.readouterr().err
    assert site.at() == ["a1"]
    assert site.migrate() == 0
    assert site.at() == ["b2"]


def test_upgrade_and_downgrade_arrive_where_they_say(site, capsys):
    site.revision("a1", MAKE_ITEMS, 'op.drop_table("items")')
    site.revision("b2", 'op.add_column("items", sa.Column("more", sa.Integer))',
                  'op.drop_column("items", "more")', after="a1")  # fmt: skip
    assert site.migrate() == 0
    assert site.at() == ["b2"]
    assert site.migrate("downgrade", "-1") == 0
    assert site.at() == ["a1"]
    assert site.migrate("downgrade", "base") == 0
    assert site.at() == []
    assert site.tables() == set()
    assert site.migrate() == 0
    assert site.migrate() == 0
    assert "Nothing to do: the database is at b2." in capsys.readouterr().out


def test_a_downgrade_says_what_it_drops_with_the_number_of_rows(site, capsys):
    site.revision("a1", MAKE_ITEMS, 'op.drop_table("items")')
    site.revision("b2", """
        with op.batch_alter_table("items") as batch:
            batch.add_column(sa.Column("size", sa.Integer))
    """, """
        with op.batch_alter_table("items") as batch:
            batch.drop_column("size")
            batch.alter_column("name", new_column_name="title", existing_type=sa.String(50))
    """, after="a1")  # fmt: skip
    assert site.migrate() == 0
    rows = "INSERT INTO items (id, name, size) VALUES (1, 'a', 3), (2, 'b', NULL), (3, 'c', 9)"
    site.execute(rows)
    assert site.migrate("downgrade", "base") == 0
    output = capsys.readouterr().out
    assert re.findall("dropped .*", output) == [
        "dropped column items.size (2 values)",
        "dropped table items (3 rows)",
    ]


# ---- 8. one at a time

WORK = """\
import sys
from alembic.config import main as alembic
from noventa_cli import main
if int(sys.argv[1]) % 2:
    assert main(["migrate"]) == 0
else:
    alembic(["-c", "migrations/alembic.ini", "upgrade", "head"])
assert main(["seed"]) == 0
"""


def start(site, code, *words):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], cwd=site.root, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_five_processes_migrate_and_seed_one_fresh_database_at_once(site):
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
    processes = [start(site, WORK, number) for number in range(5)]
    outputs = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 5, outputs
    everything = "".join(outputs)
    assert everything.count("upgraded z9") == 1
    assert everything.count("seeded migrations.seed.first.one") == 1
    assert sorted(row[0] for row in site.rows("SELECT name FROM users")) == ["A", "B", "Z"]
    assert site.at() == ["z9"]
    assert len(site.rows("SELECT * FROM noventa_seed")) == 2


HOLD = """\
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from noventa import Config
from noventa_cli import migration_lock
with migration_lock(Config.load(Path.cwd())):
    print("held", flush=True)
    time.sleep(60)
"""


def test_who_waits_says_so_and_gives_up_and_a_killed_holder_frees_the_lock(site, capsys):
    site.revision("a1", MAKE_ITEMS)
    site.write("config.yaml", f'database: "{site.url}"\nmigrations: {{lock_timeout: 1}}\n')
    with start(site, HOLD) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            assert site.migrate() == 1
            waited = capsys.readouterr().err
            assert re.search(r"Process \d+ waits for another process", waited)
            assert "for 1 s" in waited
            assert "migrations.lock_timeout" in waited
            site.write("config.yaml", f'database: "{site.url}"\nmigrations: {{lock: false}}\n')
            assert site.migrate("stamp", "head") == 0  # switched off: nobody waits
        finally:
            holder.send_signal(signal.SIGKILL)
    site.write("config.yaml", f'database: "{site.url}"\nmigrations: {{lock_timeout: 10}}\n')
    assert site.migrate("stamp", "base") == 0
    assert site.migrate() == 0


@only_sqlite
def test_beside_an_open_writer_what_only_reads_ends_at_once_and_the_rest_waits_as_set(site, capsys):
    site.revision("a1", MAKE_ITEMS)
    site.models(ITEM.replace("Mapped[str]", "Mapped[str] = mapped_column(sa.String(50))"))
    assert site.migrate() == 0
    site.write("config.yaml", f'database: "{site.url}"\nmigrations: {{lock_timeout: 1}}\n')
    with site.engine.begin() as writer:
        writer.execute(sa.text("INSERT INTO items VALUES (1, 'one')"))
        for words in ([], ["current"], ["check"], ["stamp", "head"]):
            assert site.migrate(*words) == 0
        assert site.run("seed") == 0
        assert "waits" not in capsys.readouterr().err
        site.revision("b2", "op.execute(\"INSERT INTO items VALUES (2, 'two')\")", after="a1")
        assert site.migrate() == 1
    message = capsys.readouterr().err
    assert "database is locked" in message
    assert site.migrate() == 0
    assert len(site.rows("SELECT * FROM items")) == 2


ALTER = "op.add_column('items', sa.Column('size', sa.Integer()))"


@only_postgresql
def test_a_table_in_use_delays_its_readers_by_no_more_than_the_timeout_of_a_table(site):
    site.revision("a1", MAKE_ITEMS)
    assert site.migrate() == 0
    site.revision("b2", ALTER, after="a1")
    limits = "migrations: {lock_timeout: 20, table_timeout: 1}"
    site.write("config.yaml", f'database: "{site.url}"\n{limits}\n')
    with ThreadPoolExecutor(1) as threads:
        with site.engine.connect() as report:
            report.execute(sa.text("SELECT * FROM items"))  # its lock is kept by the transaction
            migrated = threads.submit(site.migrate)
            longest, until = 0.0, time.monotonic() + 4
            while time.monotonic() < until:
                began = time.monotonic()
                site.rows("SELECT * FROM items")
                longest = max(longest, time.monotonic() - began)
        assert migrated.result() == 0
    assert 0.3 < longest < 3  # who waits behind the ALTER, on a busy machine
    assert site.rows("SELECT size FROM items") == []


@only_postgresql
@pytest.mark.parametrize("before", ["", "op.get_bind().commit()"])
def test_who_waits_for_a_table_too_long_is_told_to_run_it_again(site, capsys, before):
    site.revision("a1", MAKE_ITEMS)
    assert site.migrate() == 0
    first = "op.execute('CREATE TABLE more (id integer)')" if before else ""
    site.revision("b2", "\n".join(filter(None, [first, before, ALTER])), after="a1")
    limits = "migrations: {lock_timeout: 3, table_timeout: 1}"
    site.write("config.yaml", f'database: "{site.url}"\n{limits}\n')
    with site.engine.connect() as report:
        report.execute(sa.text("SELECT * FROM items"))
        began = time.monotonic()
        assert site.migrate() == 1
        waited = time.monotonic() - began
    message = capsys.readouterr().err
    assert "The table is in use; run it again" in message
    assert "ALTER TABLE items ADD COLUMN size" in message
    assert ("Until then it had run" in message) == bool(before)
    assert waited > 1 if before else waited > 2  # what was kept is not run twice


@only_postgresql
def test_the_lock_survives_a_limit_for_idle_sessions(site):
    name = sa.make_url(site.url).database
    site.execute(f"ALTER DATABASE {name} SET idle_session_timeout = 300")
    with migration_lock(site.config):
        time.sleep(1)
        assert not free(site)
    assert site.rows("SHOW idle_session_timeout") == [("300ms",)]


@only_mariadb
def test_the_session_of_the_lock_may_be_idle_for_weeks(site):
    short = "?init_command=SET%20SESSION%20wait_timeout%3D1"
    site.write("config.yaml", f'database: "{site.url}{short}"\n')
    with migration_lock(site.config):
        time.sleep(2)
        assert not free(site)


def free(site):
    """Whether nobody holds the lock."""
    values = {**site.config.values, "migrations.lock_timeout": 0}
    try:
        with migration_lock(Config(values, site.root)):
            return True
    except NoventaError:
        return False


def test_a_waiting_one_goes_on_when_the_holder_has_finished(site):
    order = []

    def hold():
        with migration_lock(site.config):
            order.append("holds")
            time.sleep(0.3)
            order.append("ends")

    thread = threading.Thread(target=hold)
    thread.start()
    while not order:
        time.sleep(0.01)
    with migration_lock(site.config):
        order.append("next")
    thread.join()
    assert order == ["holds", "ends", "next"]


@only_sqlite
def test_a_lock_file_where_none_can_be_made_is_one_message(site, capsys):
    site.revision("a1", MAKE_ITEMS)
    site.write("config.yaml", 'database: "sqlite:///./nowhere/noventa.db"\n')
    assert site.migrate() == 1
    assert "nowhere" in capsys.readouterr().err


# ---- 9. no silent loss


def test_a_generated_revision_that_drops_is_refused_and_names_the_drops(site, capsys):
    old = ITEM.replace("Item", "Old").replace("items", "old")
    site.models(ITEM + "    size: Mapped[int]\n" + old)
    site.autogenerate("first")
    assert site.migrate() == 0
    site.models(ITEM.replace("name: Mapped[str]", "title: Mapped[str]"))
    count = len(site.revisions())
    assert site.migrate("revision", "--autogenerate", "-m", "drop") == 1
    message = capsys.readouterr().err
    assert "table old" in message
    assert "column items.size" in message
    assert "column items.name" in message
    assert "--allow-drop" in message
    assert "existing_nullable=False)" in message
    assert alembic(site, "revision", "--autogenerate", "-m", "drop") == 255
    captured = capsys.readouterr()
    assert "FAILED: The revision would lose data" in captured.out
    assert "column items.size" in captured.err
    assert len(site.revisions()) == count
    assert alembic(site, "-x", "allow_drop=1", "revision", "--autogenerate", "-m", "drop") == 0
    assert len(site.revisions()) == count + 1


def test_allow_drop_lets_the_revision_drop_and_its_downgrade_brings_it_back(site):
    site.models(ITEM + "    size: Mapped[int] = mapped_column(server_default='3')\n")
    site.autogenerate("first")
    assert site.migrate() == 0
    site.models(ITEM)
    assert 'drop_column("size")' in site.autogenerate("drop", "--allow-drop").replace("'", '"')
    assert site.migrate() == 0
    assert site.migrate("downgrade", "-1") == 0
    columns = sa.inspect(site.engine).get_columns("items")
    assert [column["name"] for column in columns] == ["id", "name", "size"]


def test_a_probable_rename_is_shown_as_a_line_that_works_as_it_stands(site, capsys):
    site.models(ITEM)
    site.autogenerate("first")
    assert site.migrate() == 0
    site.execute("INSERT INTO items (id, name) VALUES (1, 'kept')")
    site.models(ITEM.replace("name: Mapped[str]", "title: Mapped[str]"))
    assert site.migrate("revision", "--autogenerate", "-m", "rename") == 1
    (line,) = re.findall(r"op\.alter_column\(.*\)", capsys.readouterr().err)
    site.revision("b2", line, after=site.at()[0])
    assert site.migrate() == 0
    assert site.rows("SELECT title FROM items") == [("kept",)]
    site.models(ITEM.replace("items", "things").replace("name: Mapped[str]", "title: Mapped[str]"))
    assert site.migrate("revision", "--autogenerate", "-m", "rename") == 1
    assert "op.rename_table('items', 'things')" in capsys.readouterr().err


@only_sqlite
def test_a_registry_without_tables_never_makes_a_revision(site, capsys):
    site.models(ITEM)
    site.autogenerate("first")
    assert site.migrate() == 0
    site.register()
    assert site.migrate("--allow-drop", "revision", "--autogenerate", "-m", "oops") == 1
    assert "no tables" in capsys.readouterr().err
    assert len(site.revisions()) == 1


def test_tables_that_no_revision_made_are_left_alone(site):
    site.execute("CREATE TABLE legacy (id INTEGER PRIMARY KEY)")
    site.execute("CREATE TABLE noventa_seed (x INTEGER)")
    site.models(ITEM)
    assert "legacy" not in site.autogenerate("first")
    assert site.migrate() == 0
    assert (
        site.migrate(
            "revision",
            "--autogenerate",
            "-m",
            "again",
        )
        == 0
    )
    assert len(site.revisions()) == 1
    assert site.tables() == {"items", "legacy", "noventa_seed"}


@only_sqlite
def test_the_functions_of_alembic_work_without_a_command_line(site):
    from alembic import command
    from alembic.config import Config as AlembicConfig

    site.models(ITEM)
    assert site.migrate("heads") == 0
    with project_imports(site.root):
        config = AlembicConfig(site.root / "migrations/alembic.ini", stdout=sys.stdout)
        command.revision(config, "first", autogenerate=True)
        command.upgrade(config, "head")
        command.check(config)
        command.revision(config, "nothing", autogenerate=True)
    assert len(site.revisions()) == 1
    assert site.tables() == {"items"}


def test_a_new_column_is_there_before_its_unique_and_its_check(site, capsys):
    site.models(ITEM)
    site.autogenerate("first")
    assert site.migrate() == 0
    site.execute("INSERT INTO items (id, name) VALUES (1, 'one'), (2, 'two')")
    site.models(ITEM + """
    code: Mapped[str | None] = mapped_column(sa.String(9), unique=True)
    __table_args__ = (sa.CheckConstraint("code <> 'x'", name="coded"),)
""")  # fmt: skip
    site.autogenerate("code")
    for words in ([], ["check"], ["downgrade", "-1"], [], ["check"]):
        assert site.migrate(*words) == 0, capsys.readouterr().err
    site.execute("UPDATE items SET code = 'a' WHERE id = 1")
    with pytest.raises(sa.exc.IntegrityError):
        site.execute("UPDATE items SET code = 'a' WHERE id = 2")


def test_an_empty_autogenerate_writes_no_file(site, capsys):
    site.models(ITEM)
    site.autogenerate("first")
    assert site.migrate() == 0
    assert site.migrate("revision", "--autogenerate", "-m", "nothing") == 0
    told = capsys.readouterr().out
    assert "Nothing has changed" in told
    assert "Not compared: computed columns" in told
    assert len(site.revisions()) == 1
    assert site.migrate("check") == 0
    assert site.migrate("revision", "-m", "by hand") == 0
    assert len(site.revisions()) == 2


CHILD = """
class Child(Base):
    __tablename__ = "children"
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(sa.ForeignKey("items.id", ondelete="CASCADE"))
"""


@only_sqlite
def test_a_batch_on_sqlite_keeps_the_rows_of_children(site):
    site.models(ITEM + CHILD)
    site.autogenerate("first")
    assert site.migrate() == 0
    site.execute("INSERT INTO items VALUES (1, 'one')", "INSERT INTO children VALUES (1, 1)")
    site.models(ITEM.replace("Mapped[str]", "Mapped[str] = mapped_column(unique=True)") + CHILD)
    site.autogenerate("unique")
    assert site.migrate() == 0
    assert site.rows("SELECT * FROM children") == [(1, 1)]
    assert site.rows("PRAGMA foreign_keys") == [(1,)]


@only_sqlite
def test_a_revision_that_leaves_orphans_is_taken_back_but_old_ones_are_not_its_fault(site, capsys):
    site.models(ITEM + CHILD)
    site.autogenerate("first")
    assert site.migrate() == 0
    site.execute("INSERT INTO items VALUES (1, 'one'), (2, 'two')",
                 "INSERT INTO children VALUES (1, 1), (2, 2)")  # fmt: skip
    site.revision("b2", 'op.execute("DELETE FROM items WHERE id = 1")', after=site.at()[0])
    assert site.migrate() == 1
    message = capsys.readouterr().err
    assert "children (to items): 1" in message
    assert "SQLite runs no ON DELETE while it migrates" in message
    assert len(site.rows("SELECT * FROM items")) == 2
    with site.engine.connect() as connection:
        raw = connection.connection.driver_connection
        raw.execute("PRAGMA foreign_keys=OFF")
        raw.execute("INSERT INTO children VALUES (3, 77)")
    site.revision("b2", "op.execute(\"UPDATE items SET name = 'three'\")", after=site.at()[0])
    assert site.migrate() == 0


# ---- 5. names

SHOP = """
class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"

class Kind(Base):
    __tablename__ = "kinds"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(index=True)

class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    price: Mapped[int]
    kind_id: Mapped[int]
    active: Mapped[bool] = mapped_column(sa.Boolean(create_constraint=True))
"""
CONSTRAINTS = """    __table_args__ = (
        sa.UniqueConstraint("name"),
        sa.ForeignKeyConstraint(["kind_id"], ["kinds.id"]),
        sa.CheckConstraint("price > 0"),
    )
"""


def constraint_names(site):
    found = sa.inspect(site.engine)
    lists = (found.get_unique_constraints, found.get_foreign_keys, found.get_check_constraints)
    return {entry["name"] for names in lists for entry in names("items")}


def test_every_constraint_has_a_name_and_can_be_dropped_and_made_again(site):
    site.models(SHOP)
    first = site.autogenerate("first")
    assert site.migrate() == 0
    before = constraint_names(site)
    site.models(SHOP + CONSTRAINTS)
    text = first + site.autogenerate("constraints")
    own = r"(?m)^(down_revision|branch_labels|depends_on).*|schema=None|-> None"
    assert "None" not in re.sub(own, "", text)
    assert site.migrate() == 0
    after = constraint_names(site)
    assert {"uq_items_name", "fk_items_kind_id_kinds"} <= after
    assert site.migrate("downgrade", "-1") == 0
    assert constraint_names(site) == before
    assert site.migrate() == 0
    assert constraint_names(site) == after


def test_the_same_revision_files_migrate_all_three_databases(site):
    site.write("components/user/user_models.py", USER_MODELS)
    setting = USER_MODELS.replace("User", "SystemSetting").replace('"users"', '"system_settings"')
    site.write("models/global_models.py", setting)
    site.register("components.user.user_models models.global_models")
    sqlite = site.write("config.yaml", 'database: "sqlite:///./elsewhere.db"\n')
    site.autogenerate("from sqlite")
    assert site.migrate() == 0
    sqlite.write_text(f'database: "{site.url}"\n')
    assert site.migrate() == 0
    assert site.tables() == {"users", "system_settings"}
    assert site.migrate("check") == 0
    assert site.migrate("downgrade", "base") == 0


PALETTE = """
class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"

class Wall(Base):
    __tablename__ = "walls"
    id: Mapped[int] = mapped_column(primary_key=True)
    color: Mapped[Color]
"""
DOOR = PALETTE.split("\n\n")[1].replace("Wall", "Door").replace("walls", "doors")


def test_enum_types_go_up_and_down_and_up_again(site):
    site.models(PALETTE)
    site.autogenerate("walls")
    assert site.migrate() == 0
    second = PALETTE + "    second: Mapped[Color | None]\n"
    site.models(second + "\n" + DOOR)
    text = site.autogenerate("doors share the type")
    assert ".create(" not in text
    size = "    size: Mapped[str | None] = mapped_column(sa.Enum('S', 'L', name='size'))\n"
    site.models(second + size + "\n" + DOOR)
    assert site.migrate() == 0
    text = site.autogenerate("a new type for a column")
    assert "sa.Enum('S', 'L', name='size').create(op.get_bind(), checkfirst=True)" in text
    for words in (["upgrade", "head"], ["downgrade", "-1"], ["upgrade", "head"],
                  ["downgrade", "base"], ["upgrade", "head"]):  # fmt: skip
        assert site.migrate(*words) == 0
    site.execute("INSERT INTO walls (id, color, size) VALUES (1, 'RED', 'S')")
    assert site.migrate("check") == 0
    assert site.migrate("downgrade", "base") == 0
    if site.backend == "postgresql":
        assert site.rows("SELECT typname FROM pg_type WHERE typname IN ('color', 'size')") == []


@only_postgresql
def test_an_enum_type_whose_last_column_is_dropped_goes_with_it(site):
    site.models(PALETTE)
    site.autogenerate("walls")
    assert site.migrate() == 0
    site.models(PALETTE.replace("    color: Mapped[Color]\n", ""))
    site.autogenerate("no color", "--allow-drop")
    for words in (["upgrade", "head"], ["downgrade", "-1"], ["upgrade", "head"]):
        assert site.migrate(*words) == 0
    assert site.rows("SELECT typname FROM pg_type WHERE typname = 'color'") == []


CUSTOM = """
class Money(sa.TypeDecorator):
    impl = sa.Numeric(12, 2)
    cache_ok = True

class Code(sa.String):
    cache_ok = True

class Either(sa.TypeDecorator):
    impl = sa.String
    cache_ok = True
    def load_dialect_impl(self, dialect):
        from sqlalchemy.dialects import postgresql
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.JSONB())
        return dialect.type_descriptor(sa.String(40))

class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    price = mapped_column(Money())
    code = mapped_column(Code(20))
    any = mapped_column(Either())
"""


def test_custom_types_are_written_so_that_the_revision_runs_alone(site):
    site.models(CUSTOM)
    text = site.autogenerate("first")
    assert "models" not in text
    assert "sa.Numeric(precision=12, scale=2)" in text
    assert "sa.String(length=20)" in text
    assert ".with_variant(postgresql.JSONB(astext_type=sa.Text()), 'postgresql')" in text
    assert site.migrate() == 0
    assert site.migrate("revision", "--autogenerate", "-m", "again") == 0
    assert len(site.revisions()) == 1
    site.register()
    shutil.rmtree(site.root / "models")
    assert site.migrate("downgrade", "base") == 0
    assert site.migrate() == 0


REAL = """
from sqlalchemy.dialects import mysql, postgresql

class Mixin:
    pass

class Short(Mixin, sa.String):
    cache_ok = True

class Tone(sa.Enum):
    cache_ok = True

class GUID(sa.TypeDecorator):  # as in SQLAlchemy's documentation
    impl = sa.CHAR
    cache_ok = True
    def load_dialect_impl(self, dialect):
        kind = postgresql.UUID() if dialect.name == "postgresql" else sa.CHAR(32)
        return dialect.type_descriptor(kind)

class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    value = mapped_column({kind})
"""


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("GUID()", "sa.CHAR(length=32).with_variant(sa.UUID(), 'postgresql')"),
        ("Short(20)", "sa.String(length=20)"),
        ("Tone('a', 'b', name='tone')", "sa.Enum('a', 'b', name='tone', create_type=False)"),
        (
            "sa.Enum('a', 'b', name='v', native_enum=False, create_constraint=True, length=9)",
            "sa.Enum('a', 'b', name='v', native_enum=False, create_constraint=True, length=9)",
        ),
        ("sa.Text().with_variant(mysql.LONGTEXT(), 'mysql', 'mariadb')", "mysql.LONGTEXT()"),
        ("sa.Interval(second_precision=3)", "sa.Interval(second_precision=3)"),
    ],
)
def test_a_type_reaches_the_revision_with_all_that_the_model_says(site, kind, text):
    site.models(REAL.replace("{kind}", kind))
    assert text in site.autogenerate("items")
    for words in (["upgrade", "head"], ["downgrade", "base"], ["upgrade", "head"], ["check"]):
        assert site.migrate(*words) == 0


@only_postgresql
@pytest.mark.parametrize(
    "kind", ["postgresql.JSONB", "postgresql.INET", "postgresql.ENUM('a', 'b', name='letter')"]
)
def test_an_array_of_a_type_of_postgresql_goes_up_and_down(site, kind):
    site.models(REAL.replace("{kind}", f"postgresql.ARRAY({kind})"))
    assert "sa.JSONB" not in site.autogenerate("items")
    for words in (["upgrade", "head"], ["downgrade", "base"], ["upgrade", "head"], ["check"]):
        assert site.migrate(*words) == 0
    assert site.migrate("downgrade", "base") == 0
    assert site.rows("SELECT typname FROM pg_type WHERE typname = 'letter'") == []


@only_sqlite
def test_a_collation_without_a_length_reaches_the_table(site):
    site.models(REAL.replace("{kind}", "sa.String(collation='NOCASE')"))
    site.autogenerate("items")
    assert site.migrate() == 0
    site.execute("INSERT INTO items VALUES (1, 'One')")
    assert site.rows("SELECT id FROM items WHERE value = 'ONE'") == [(1,)]


PERCENT = """
class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(20), server_default="5% a:b")
    code: Mapped[str] = mapped_column(sa.String(20), sa.CheckConstraint("code LIKE 'A:%'"))
    half: Mapped[int] = mapped_column(
        sa.Computed("length(code) % 2", persisted=True), nullable=True
    )
    __table_args__ = (
        sa.Index("ix_some", "name", postgresql_where=sa.text("name LIKE 'x%'"),
                 sqlite_where=sa.text("name LIKE 'x%'")),
    )
"""


def test_percent_signs_and_colons_of_checks_and_defaults_reach_the_database_once(site):
    site.models(PERCENT)
    assert "%%" not in site.autogenerate("items")
    for words in (["upgrade", "head"], ["downgrade", "base"], ["upgrade", "head"], ["check"]):
        assert site.migrate(*words) == 0
    site.execute("INSERT INTO items (id, code) VALUES (3, 'A:1')")
    assert site.rows("SELECT name, half FROM items") == [("5% a:b", 1)]
    with pytest.raises((sa.exc.IntegrityError, sa.exc.OperationalError)):
        site.execute("INSERT INTO items (id, code) VALUES (4, 'B:1')")


KINDS = """
class Kind(Base):
    __tablename__ = "kinds"
    __table_args__ = {"schema": SCHEMA}
    id: Mapped[int] = mapped_column(primary_key=True)

class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind_id: Mapped[int] = mapped_column(sa.ForeignKey(Kind.id), index=True)
"""


@servers
def test_tables_in_a_schema_are_made_with_it_and_only_once(site, capsys):
    schema = f"noventa_{secrets.token_hex(6)}"
    site.models(KINDS.replace("SCHEMA", repr(schema)))
    site.autogenerate("items")
    try:
        for words in (["upgrade", "head"], ["downgrade", "base"], ["upgrade", "head"], ["check"]):
            assert site.migrate(*words) == 0
        assert site.migrate("revision", "--autogenerate", "-m", "again") == 0
        assert "Nothing has changed" in capsys.readouterr().out
    finally:
        site.execute("DROP TABLE items", f"DROP TABLE {schema}.kinds", f"DROP SCHEMA {schema}")


def test_an_index_that_a_foreign_key_needs_does_not_stop_a_downgrade(site):
    models = KINDS.replace('    __table_args__ = {"schema": SCHEMA}\n', "")
    site.models(models)
    site.autogenerate("items")
    for words in (["upgrade", "head"], ["downgrade", "base"], ["upgrade", "head"], ["check"]):
        assert site.migrate(*words) == 0
    site.models(models.replace("    kind_id", "    # kind_id"))
    site.autogenerate("no kind", "--allow-drop")
    for words in (["upgrade", "head"], ["downgrade", "-1"], ["upgrade", "head"], ["check"],
                  ["downgrade", "base"], ["upgrade", "head"]):  # fmt: skip
        assert site.migrate(*words) == 0


NOTE = """
class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    text: Mapped[str] = mapped_column(index=True)
"""
UNBOUNDED = "sa.String().with_variant(sa.String(length=255), 'mysql', 'mariadb')"


def test_a_string_without_a_length_holds_all_that_the_database_can(site):
    site.models(NOTE)
    assert site.autogenerate("notes").count(UNBOUNDED) == 2
    assert site.migrate() == 0
    assert site.migrate("check") == 0
    long = "x" * 300
    if site.backend == "mysql":
        with pytest.raises(sa.exc.DataError):
            site.execute(f"INSERT INTO notes VALUES (1, 'a', '{long}')")
        return
    site.execute(f"INSERT INTO notes VALUES (1, 'a', '{long}')")
    assert site.rows("SELECT text FROM notes") == [(long,)]


def test_revisions_from_before_stay_as_they_are(site, capsys):
    site.models(NOTE)
    site.autogenerate("notes")
    (path,) = site.revisions()
    path.write_text(path.read_text("utf-8").replace(UNBOUNDED, "sa.String(length=255)"), "utf-8")
    assert site.migrate() == 0
    assert site.migrate("check") == 0
    assert faults(site) == ""
    assert site.migrate("revision", "--autogenerate", "-m", "none") == 0
    assert len(site.revisions()) == 1


@pytest.mark.parametrize(
    ("before", "after"), [("(40)", ""), ("", "(40)"), ("(255)", "(256)"), ("(40)", "(255)")]
)
def test_another_length_is_another_type(site, before, after):
    for text in (before, after):
        column = f"text = mapped_column(sa.String{text}, index=True)"
        site.models(NOTE.replace("text: Mapped[str] = mapped_column(index=True)", column))
        site.autogenerate()
        assert site.migrate() == 0
    assert site.migrate("check") == 0
    assert site.migrate("downgrade", "base") == 0


@transactional
def test_what_a_database_tells_without_a_length_is_written_so_that_mysql_can_run_it(site, capsys):
    longer = "    more: Mapped[str | None]\n"
    for text in (NOTE + longer, NOTE + longer.replace(" | None", ""), NOTE):
        site.models(text)
        site.autogenerate("change", "--allow-drop")
        assert site.migrate() == 0
    head = site.at()[0]
    site.write("config.yaml", 'database: "mysql://nobody@127.0.0.1:1/nothing"\n')
    capsys.readouterr()
    assert site.migrate("upgrade", "head", "--sql") == 0
    assert site.migrate("downgrade", f"{head}:base", "--sql") == 0
    assert capsys.readouterr().out.count("more VARCHAR(255)") == 4


# ---- 10. one thing, from anywhere


def test_alembic_and_our_command_are_the_same_thing_from_any_directory(tmp_path):
    """As processes, for this is about working directories."""
    from conftest import Site

    root = tmp_path / "project"
    site = Site(root, "sqlite:///./noventa.db")
    site.models(ITEM)
    ini = site.migrate("current") or root / "migrations" / "alembic.ini"
    tool = [sys.executable, "-m", "alembic", "-c"]
    commands = [
        (root, [*tool, "migrations/alembic.ini", "revision", "--autogenerate", "-m", "Add item"]),
        (root / "migrations", [*tool, "alembic.ini", "upgrade", "head"]),
        (tmp_path, [*tool, str(ini), "downgrade", "-1"]),
        (Path("/"), [sys.executable, "-m", "noventa", "--project", str(root), "migrate"]),
        (root, [sys.executable, "-m", "noventa", "migrate", "history"]),
    ]
    for folder, command in commands:
        done = subprocess.run(
            command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "Add item" in done.stdout
    assert site.tables() == {"items"}
    assert [path.name for path in tmp_path.rglob("*.db")] == ["noventa.db"]


@only_sqlite
def test_logging_of_the_host_is_left_alone(site):
    import logging

    site.revision("a1", MAKE_ITEMS)
    before = logging.root.handlers[:], logging.root.level, logging.getLogger("noventa").disabled
    assert site.migrate() == 0
    after = logging.root.handlers[:], logging.root.level, logging.getLogger("noventa").disabled
    assert after == before


def test_a_folder_whose_name_alembic_cannot_read_is_one_message(tmp_path, capsys):
    from conftest import Site

    site = Site(tmp_path / "100% é", "sqlite:///./noventa.db")
    assert site.migrate() == 1
    assert "rename the folder" in capsys.readouterr().err


@only_sqlite
def test_wrong_usage_exits_2_and_an_unknown_revision_1(site, capsys):
    assert site.migrate("upgrate", "head") == 2
    assert site.migrate("-q") == 2
    assert site.migrate("upgrade", "nothing") == 1
    assert "Can't locate revision" in capsys.readouterr().err


@only_sqlite
def test_what_is_in_migrations_is_never_overwritten(site):
    site.write("migrations/alembic.ini", "[alembic]\nscript_location = %(here)s\n"
               "prepend_sys_path = %(here)s/..\npath_separator = os\n# mine\n")  # fmt: skip
    assert site.migrate("current") == 0
    assert "# mine" in (site.root / "migrations/alembic.ini").read_text()
    assert (site.root / "migrations/env.py").exists()
    assert (site.root / "migrations/versions").is_dir()


@only_sqlite
@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("env.py", "1 / 0\n", "migrations/env.py:1: ZeroDivisionError: division by zero; mend"),
        ("alembic.ini", "garbage\n", "File contains no section headers."),
        ("script.py.mako", "${nope", "script.py.mako' at line: 1 char: 1; mend the file."),
    ],
)
def test_a_broken_file_in_migrations_is_one_message(site, capsys, file, text, problem):
    site.models(ITEM)
    site.migrate("current")
    site.write(f"migrations/{file}", text)
    assert site.migrate("revision", "--autogenerate", "-m", "x") == 1
    assert problem in capsys.readouterr().err


@only_sqlite
def test_more_keywords_of_env_go_to_configure_and_filters_run_beside_ours(site):
    site.models(ITEM + ITEM.replace("Item", "Other").replace("items", "others"))
    site.migrate("current")
    env = site.root / "migrations/env.py"
    env.write_text(re.sub(
        r"run_migrations\(.*",
        "run_migrations(registry, Config.load(Path(__file__).parents[1]),\n"
        '    include_name=lambda name, kind, parents: name != "legacy",\n'
        "    process_revision_directives=lambda c, r, d: print('reviewed'))",
        env.read_text(),
    ))  # fmt: skip
    site.autogenerate("first")
    assert site.migrate() == 0
    assert site.tables() == {"items", "others"}


@only_sqlite
def test_sql_is_written_instead_of_run(site, capsys):
    site.revision("a1", MAKE_ITEMS)
    assert site.migrate("upgrade", "head", "--sql") == 0
    assert "CREATE TABLE items" in capsys.readouterr().out
    assert not (site.root / "noventa.db").exists()


# ---- heads, drift and what check says


@only_sqlite
def test_two_heads_are_refused_with_both_files_and_the_command_that_joins_them(site, capsys):
    site.models(ITEM)
    site.revision("a1", MAKE_ITEMS)
    site.revision("b2", "pass", after="a1")
    site.revision("c3", "pass", after="a1")
    for words in ([], ["revision", "-m", "more"]):
        assert site.migrate(*words) == 1
        message = capsys.readouterr().err
        assert "migrations/versions/b2_.py" in message
        assert "migrations/versions/c3_.py" in message
        assert "python -m noventa migrate merge heads" in message
    assert alembic(site, "upgrade", "head") == 255
    assert "migrate merge heads" in capsys.readouterr().err
    assert "merge heads" in faults(site)
    assert site.migrate("merge", "heads", "-m", "merge") == 0
    assert site.migrate() == 0


@only_sqlite
def test_check_finds_drift_and_revisions_that_do_not_go_down_or_up_again(site):
    site.models(ITEM)
    assert "revision --autogenerate" in faults(site)
    site.revision("a1", MAKE_ITEMS.replace("50", "255"), "pass")
    site.migrate("heads")
    assert "downgrade leaves items" in faults(site)
    site.revision("a1", MAKE_ITEMS.replace("50", "255"), 'op.drop_table("itms")')
    assert "`downgrade base` fails: migrations/versions/a1_.py:13" in faults(site)
    site.revision("a1", MAKE_ITEMS.replace("50", "255"), 'op.drop_table("items")')
    assert faults(site) == ""
    site.models(ITEM + "    size: Mapped[int]\n    weight: Mapped[int]\n")
    assert "add_column items.size, add_column items.weight; run `python" in faults(site)
    assert list(site.root.glob("noventa.db*")) == []


@only_sqlite
def test_check_finds_revisions_that_import_models(site):
    site.models(ITEM)
    site.autogenerate("first")
    path = site.revisions()[0]
    path.write_text(path.read_text() + "\nfrom models.shop_models import Item\n")
    assert "it imports models.shop_models of the application" in faults(site)


@only_sqlite
def test_check_names_file_class_and_column_of_what_is_not_portable(site):
    site.models("""
from sqlalchemy.dialects import postgresql
class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    data = mapped_column(postgresql.JSONB())
    span = mapped_column(postgresql.INT4RANGE())
    text = mapped_column(sa.Text, unique=True)
    note: Mapped[str] = mapped_column(sa.String(1000), index=True)
    color = mapped_column(sa.Enum("a", "b"))
    fine = mapped_column(sa.JSON().with_variant(postgresql.JSONB(), "postgresql"))
    """)
    found = faults(site)
    assert "models/shop_models.py: Item.span: not portable to sqlite" in found
    assert "models/shop_models.py: Item.data: not portable to mysql" in found
    assert "models/shop_models.py: Item.text: not portable to mysql" in found
    assert "ix_items_note is over 3072 bytes" in found
    assert "Item.color: not portable to postgresql" in found
    assert "Item.fine" not in found


PARTIAL = """
class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    size: Mapped[int]
    __table_args__ = (
        sa.Index("ix_one", "size", unique=True, sqlite_where=sa.text("id > 1"),
                 postgresql_where=sa.text("id > 1")),
        sa.Index("ix_some", "size", sqlite_where=sa.text("id > 1")),
    )
"""


@only_sqlite
def test_check_names_a_unique_index_that_mysql_would_take_otherwise(site):
    site.models(PARTIAL)
    found = faults(site)
    assert "so ix_one would be unique for all rows" in found
    assert "ix_some" not in found


def test_the_app_can_say_behind_ahead_and_empty_with_the_command_that_mends_it(site):
    assert revision_mismatch(site.config, site.engine) is None
    site.revision("a1", MAKE_ITEMS)
    assert "is empty, not at a1; run `python -m noventa migrate`" in mismatch(site)
    assert list(site.root.glob("*.db")) == []
    assert site.migrate() == 0
    assert mismatch(site) is None
    path = site.revision("b2", "pass", after="a1")
    assert "at a1, behind b2; run `python -m noventa migrate`" in mismatch(site)
    assert site.migrate() == 0
    path.unlink()
    assert "at b2, which migrations/versions does not have" in mismatch(site)
    assert "stamp --purge head" in mismatch(site)
    site.revision("c3", "pass", after="a1")
    site.revision("d4", "pass", after="a1")
    site.migrate("stamp", "--purge", "heads")
    assert mismatch(site) is None


def mismatch(site):
    return revision_mismatch(site.config, site.engine)


# ---- 10. existing projects


def test_adopt_stamps_a_database_that_equals_the_models_and_shows_what_differs(site, capsys):
    site.models(ITEM + "    size: Mapped[int]\n" + CHILD)
    with project_imports(site.root):
        load_project(site.root).registry.metadata.create_all(site.engine)
    site.execute("CREATE TABLE legacy (id INTEGER PRIMARY KEY)")
    assert site.migrate("--adopt") == 0
    assert len(site.revisions()) == 1
    assert site.at() == [site.revisions()[0].name.split("_")[0]]
    assert site.migrate("check") == 0
    assert site.migrate("--adopt") == 1
    assert "already" in capsys.readouterr().err
    site.execute("DELETE FROM alembic_version")
    site.models(ITEM + CHILD)
    assert site.migrate("--adopt") == 1
    assert "remove_column items.size" in capsys.readouterr().err
    assert site.at() == []


def test_adopt_writes_a_revision_for_what_has_another_name_only(site, capsys):
    site.models(
        ITEM.replace("Mapped[str]", "Mapped[str] = mapped_column(sa.String(20), unique=True)")
    )
    made = "CREATE TABLE items (id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(20) NOT NULL, {})"
    site.execute(made.format("CONSTRAINT once UNIQUE (name)"))
    site.execute("INSERT INTO items (id, name) VALUES (1, 'one')")
    assert site.migrate("--adopt") == 0, capsys.readouterr().err
    assert "review it, then migrate" in capsys.readouterr().out
    assert site.migrate() == 0, capsys.readouterr().err
    assert site.migrate("check") == 0, capsys.readouterr().err
    assert site.rows("SELECT id, name FROM items") == [(1, "one")]
    (key,) = sa.inspect(site.engine).get_unique_constraints("items")
    assert key["name"] == "uq_items_name"


@only_sqlite
def test_adopt_keeps_the_numbering_of_a_table_of_another_framework(site):
    site.models(ITEM + CHILD.replace(', ondelete="CASCADE"', ""))
    site.execute("CREATE TABLE items (id INTEGER NOT NULL PRIMARY KEY, name VARCHAR NOT NULL)")
    site.execute(
        "CREATE TABLE children (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, item_id INTEGER"
        " NOT NULL REFERENCES items (id))"
    )
    assert site.migrate("--adopt") == 0
    site.execute("INSERT INTO items (id, name) VALUES (1, 'one')")
    for _ in range(2):  # an id is never given a second time
        site.execute("DELETE FROM children")
        site.execute("INSERT INTO children (item_id) VALUES (1)")
    assert site.rows("SELECT id FROM children") == [(2,)]


@only_sqlite
def test_adopt_finds_a_unique_column_whatever_its_type(site, capsys):
    site.models(
        ITEM.replace("Mapped[str]", "Mapped[str] = mapped_column(sa.String(9), unique=True)")
    )
    site.execute(
        "CREATE TABLE items (id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(9) NOT NULL UNIQUE)"
    )
    assert site.migrate("--adopt") == 0, capsys.readouterr().err
    assert site.migrate("check") == 0, capsys.readouterr().err


def test_adopt_writes_nothing_where_it_refuses(site, capsys):
    site.models(ITEM)
    site.execute("CREATE TABLE items (id INTEGER PRIMARY KEY)")
    assert site.migrate("--adopt") == 1
    assert "add_column items.name" in capsys.readouterr().err
    assert site.revisions() == []
    assert site.tables() == {"items"}


@only_sqlite
def test_a_database_at_a_revision_without_file_is_told_with_the_remedies(site, capsys):
    site.revision("a1", MAKE_ITEMS)
    assert site.migrate() == 0
    site.execute("UPDATE alembic_version SET version_num = 'gone'")
    assert site.migrate() == 1
    message = capsys.readouterr().err
    assert "'gone': no file in migrations/versions has it" in message
    assert "stamp --purge head" in message
    assert site.migrate("stamp", "--purge", "head") == 0
    assert site.at() == ["a1"]


@only_sqlite
def test_versions_of_an_existing_alembic_project_work_with_our_env(site):
    path = site.revision("ae10", MAKE_ITEMS, 'op.drop_table("items")')
    path.write_text('"""made by hand"""\nfrom typing import Sequence, Union\n' + path.read_text()
                    .replace("revision =", "revision: str =", 1)
                    .replace("down_revision =", "down_revision: Union[str, None] ="))  # fmt: skip
    site.models(ITEM)
    assert site.migrate() == 0
    assert site.at() == ["ae10"]
    assert mismatch(site) is None


# ---- 11. progress


@only_sqlite
def test_each_revision_is_one_line_with_its_time(site, capsys, monkeypatch):
    monkeypatch.setattr(noventa_cli, "_PATIENCE", 0.01)
    site.revision("a1", MAKE_ITEMS)
    site.revision("b2", "import time\ntime.sleep(0.1)", after="a1")
    assert site.migrate() == 0
    said = capsys.readouterr().out
    assert re.findall(r"(?m)^  upgraded (a1|b2).* \(\d+\.\d\d s\)$", said) == ["a1", "b2"]
    assert "  migrating …" in said
    monkeypatch.undo()
    assert site.migrate("-q", "stamp", "base") == 0
    assert capsys.readouterr().out == ""


@only_sqlite
def test_a_revision_that_is_no_python_is_one_message(site, capsys):
    path = site.write("migrations/versions/a1_.py", "revision = 'a1'\ndef upgrade(:\n")
    for words in ([], ["heads"]):
        assert site.migrate(*words) == 1
        err = capsys.readouterr().err
        assert "migrations/versions/a1_.py:2: SyntaxError" in err
    path.write_text("revision = 'a1'\ndown_revision = None\nnowhere()\n")
    assert site.migrate() == 1
    assert "migrations/versions/a1_.py:3: NameError" in capsys.readouterr().err


def test_a_check_written_by_hand_goes_up_and_down_on_all_three_and_survives_a_batch(site):
    site.revision("a1", MAKE_ITEMS)
    site.revision("b2", """
        with op.batch_alter_table("items") as batch:
            batch.create_check_constraint(op.f("ck_items_name"), "name <> 'no'")
    """, """
        with op.batch_alter_table("items") as batch:
            batch.drop_constraint(op.f("ck_items_name"), type_="check")
    """, after="a1")  # fmt: skip
    site.revision("c3", """
        with op.batch_alter_table("items") as batch:
            batch.alter_column("name", type_=sa.String(90), existing_type=sa.String(50))
    """, after="b2")  # fmt: skip
    assert site.migrate() == 0
    with pytest.raises(sa.exc.DatabaseError):
        site.execute("INSERT INTO items VALUES (1, 'no')")
    assert site.migrate("downgrade", "a1") == 0
    site.execute("INSERT INTO items VALUES (1, 'no')")


def test_defaults_are_written_as_every_database_understands_them(site):
    site.models(ITEM + """
    made = mapped_column(sa.DateTime, server_default=sa.func.now())
    on: Mapped[bool] = mapped_column(server_default=sa.true())
    off: Mapped[bool] = mapped_column(server_default=sa.false())
    word: Mapped[str] = mapped_column(server_default="it's")
""")  # fmt: skip
    text = site.autogenerate("defaults")
    assert "server_default=sa.func.now()" in text
    assert "server_default=sa.true()" in text
    assert site.migrate() == 0
    site.execute("INSERT INTO items (id, name) VALUES (1, 'x')")
    assert site.rows("SELECT count(made), max(word) FROM items") == [(1, "it's")]
    assert faults(site) == ""


@only_sqlite
def test_a_column_that_rows_would_lack_is_said_when_it_is_generated(site, capsys):
    site.models(ITEM)
    site.autogenerate("first")
    assert "must have a value" not in capsys.readouterr().out
    assert site.migrate() == 0
    site.models(ITEM + "    size: Mapped[int]\n    color: Mapped[str | None]\n")
    site.autogenerate("size")
    output = capsys.readouterr().out
    assert "items.size must have a value" in output
    assert "items.color" not in output


@only_sqlite
def test_check_does_not_run_an_env_that_would_reach_the_database(site):
    site.models(ITEM)
    site.revision("a1", MAKE_ITEMS)
    site.write("migrations/env.py", "raise SystemExit('this must not run')\n")
    assert "migrations/env.py: it does not call run_migrations" in faults(site)


CIRCLE = """
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


def test_tables_that_refer_to_each_other_keep_their_foreign_keys(site):
    site.models(CIRCLE)
    site.autogenerate("teams")
    assert site.migrate() == 0
    found = sa.inspect(site.engine)
    assert [len(found.get_foreign_keys(name)) for name in ("teams", "players")] == [1, 2]
    assert site.migrate("check") == 0
    assert site.migrate("downgrade", "base") == 0
    assert site.migrate() == 0
    assert faults(site) == ""


# ---- the truth about the tables


def test_check_compares_the_tables_and_not_only_the_numbers_of_revisions(site, capsys):
    site.models(ITEM)
    site.autogenerate("first")
    assert site.migrate() == 0
    assert site.run("check") == 0, capsys.readouterr().err
    assert "its tables compared in" in capsys.readouterr().out
    kind = "VARCHAR(255) NOT NULL" if site.backend == "mysql" else ""
    change = f"CHANGE name nom {kind}" if kind else "RENAME COLUMN name TO nom"
    site.execute(f"ALTER TABLE items {change}")
    assert site.run("check") == 1
    assert "add_column items.name, remove_column items.nom" in capsys.readouterr().err
    assert site.at() != []


def test_migrate_ends_with_what_the_models_have_and_no_revision_makes(site, capsys):
    site.models(ITEM)
    site.autogenerate("first")
    assert site.migrate() == 0
    assert "no revision makes" not in capsys.readouterr().out
    site.models(ITEM + "    nickname: Mapped[str | None]\n")
    for run in (site.migrate, lambda: alembic(site, "upgrade", "head")):
        assert run() == 0
        said = capsys.readouterr().out
        assert "The models have what no revision makes: add_column items.nickname; run `" in said
    site.autogenerate("nickname")
    assert site.migrate("downgrade", "-1") == 0
    assert "no revision makes" not in capsys.readouterr().out
    assert site.migrate() == 0
    assert "no revision makes" not in capsys.readouterr().out


def test_a_rename_beside_a_new_column_is_told_in_two_steps_that_work(site, capsys):
    site.models(ITEM)
    site.autogenerate("first")
    assert site.migrate() == 0
    site.execute("INSERT INTO items (id, name) VALUES (1, 'kept')")
    site.models(
        ITEM.replace("name: Mapped[str]", "title: Mapped[str]") + "    size: Mapped[int | None]\n"
    )
    assert site.migrate("revision", "--autogenerate", "-m", "both") == 1
    (line,) = re.findall(r"op\.alter_column\(.*\)", capsys.readouterr().err)
    site.revision("b2", line, after=site.at()[0])
    assert site.migrate() == 0
    site.autogenerate("size")
    assert site.migrate() == 0
    assert site.rows("SELECT title, size FROM items") == [("kept", None)]


# ---- others in the process, and histories as public projects have them


@only_sqlite
def test_a_host_with_an_alembic_of_its_own_is_untouched(site):
    """Only the runs of our env.py have our implementation of the operations."""
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    look = "print(type(op.get_context().impl).__module__, 'runs this')"
    site.revision("a1", f"{MAKE_ITEMS}\n{look}")
    before = {**Operations.__dict__}
    assert site.migrate() == 0
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


@only_sqlite
def test_our_own_runs_have_our_implementation(site, capsys):
    """Fails when Alembic takes it from somewhere else than the context's `impl`."""
    look = "print(type(op.get_context().impl).__module__, 'runs this')"
    site.revision("a1", look)
    assert site.migrate() == 0
    assert "noventa_cli runs this" in capsys.readouterr().out


WHIMS = {
    "a check in a text": (
        f"{MAKE_ITEMS}\n"
        "with op.batch_alter_table('items') as batch:\n"
        "    batch.create_check_constraint('named', sa.text(\"name <> 'no'\"))"
    ),
    "a list with a call in it": (
        "columns = [sa.Column('id', sa.Integer, primary_key=True), sa.Column('n', sa.Integer),\n"
        "           sa.CheckConstraint('n > 0')]\n"
        "op.create_table('items', *columns)"
    ),
    "an engine of its own": (
        f"{MAKE_ITEMS}\n"
        "config = op.get_context().config\n"
        "own = sa.engine_from_config(config.get_section(config.config_ini_section))\n"
        "assert own.url.database == op.get_bind().engine.url.database\n"
        "own.dispose()"
    ),
    "rows that it reads": (
        f"{MAKE_ITEMS}\n"
        "op.execute(\"INSERT INTO items (id, name) VALUES (1, 'a'), (2, 'b')\")\n"
        "bind = op.get_bind()\n"
        "for row in bind.execute(sa.text('SELECT id, name FROM items')).fetchall():\n"
        "    query = sa.text('UPDATE items SET name = :name WHERE id = :id')\n"
        "    bind.execute(query, {'name': row.name.upper(), 'id': row.id})"
    ),
    "a block in autocommit": (
        f"{MAKE_ITEMS}\n"
        "with op.get_context().autocommit_block():\n"
        "    op.create_index('ix_name', 'items', ['name'])\n"
        "op.execute(\"INSERT INTO items (id, name) VALUES (1, 'a')\")"
    ),
    "a session that commits": (
        f"{MAKE_ITEMS}\n"
        "from sqlalchemy.orm import Session\n"
        "session = Session(bind=op.get_bind())\n"
        "session.execute(sa.text(\"INSERT INTO items (id, name) VALUES (1, 'a')\"))\n"
        "session.commit()"
    ),
}


@pytest.mark.parametrize("body", WHIMS.values(), ids=WHIMS)
def test_what_revisions_of_public_projects_do_works(site, capsys, body):
    site.revision("a1", body, "op.drop_table('items')")
    for words in ([], ["downgrade", "base"], []):
        assert site.migrate(*words) == 0, capsys.readouterr().err
    assert site.at() == ["a1"]
    assert "fails" not in faults(site)  # on the scratch database


@only_mariadb
def test_check_tries_no_revision_that_names_another_database(site, capsys):
    real = sa.make_url(site.url).database
    table = f"'items', sa.Column('id', sa.Integer, primary_key=True), schema='{real}'"
    site.revision("a1", f"op.create_table({table})", f"op.drop_table('items', schema='{real}')")
    site.write("config.yaml", f'database: "{site.url}"\nmigrations: {{portable_to: [mysql]}}\n')
    assert site.migrate() == 0, capsys.readouterr().err
    site.execute("INSERT INTO items VALUES (7)")
    assert site.run("check") == 0, capsys.readouterr().err
    assert "not tried: a revision changes" in capsys.readouterr().out
    assert site.rows("SELECT id FROM items") == [(7,)]


def test_a_column_that_must_have_a_value_is_refused_where_rows_are_there(site, capsys):
    site.revision("a1", MAKE_ITEMS)
    assert site.migrate() == 0
    add = "op.add_column('items', sa.Column('size', sa.Integer, nullable=False))"
    site.revision("b2", add, "op.drop_column('items', 'size')", after="a1")
    site.execute("INSERT INTO items (id, name) VALUES (1, 'one')")
    assert site.migrate() == 1
    assert "migrations/versions/b2_.py:" in capsys.readouterr().err
    site.execute("DELETE FROM items")
    assert site.migrate() == 0, capsys.readouterr().err


@only_postgresql
def test_behind_a_pooler_migrations_and_seeds_need_a_url_of_their_own(site, capsys):
    site.revision("a1", MAKE_ITEMS)
    text = f'database: {{url: "{site.url}", pooler: true}}\n'
    site.write("config.yaml", text)
    for words in (["migrate"], ["seed"]):
        assert site.run(*words) == 1
        assert "write migrations: {url: …}" in capsys.readouterr().err
    site.write("config.yaml", f'{text}migrations: {{url: "{site.url}"}}\n')
    for words in (["migrate"], ["seed"]):
        assert site.run(*words) == 0, capsys.readouterr().err
    assert site.at() == ["a1"]
