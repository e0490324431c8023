"""Seeds: once each, in the order of the registry, together with their entry in the ledger."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import USER_MODELS, only_mariadb, only_postgresql, only_sqlite, servers
from processes import environment

import noventa_cli

pytestmark = pytest.mark.slow

IMPORT = "from components.user.user_models import User\n\n\n"
ADD = "db.add(User(email='{0}@example.com', name='{0}'))"


@pytest.fixture
def seeded(site):
    """A project with the table users, and a way to write its seeds."""
    site.write("components/user/user_models.py", USER_MODELS)
    site.register("components.user.user_models")
    site.autogenerate("users")
    assert site.migrate() == 0

    def write(**bodies: str) -> None:
        functions = [
            f"def {name}(db):\n" + "\n".join(f"    {line}" for line in body.splitlines())
            for name, body in bodies.items()
        ]
        site.write("migrations/seed/first.py", IMPORT + "\n\n\n".join(functions) + "\n")
        names = " ".join(f"migrations.seed.first.{name}" for name in bodies)
        site.register("components.user.user_models", names)

    site.seeds = write
    entries = "SELECT name FROM noventa_seed ORDER BY name"
    site.names = lambda: [row[0] for row in site.rows("SELECT name FROM users ORDER BY id")]
    site.ledger = lambda: [row[0].rpartition(".")[2] for row in site.rows(entries)]
    return site


def test_a_seed_runs_once_in_the_order_of_the_registry(seeded, capsys):
    seeded.seeds(zeta=ADD.format("one"), alpha=ADD.format("two") + "\ndb.commit()")
    assert seeded.run("seed") == 0
    assert seeded.run("seed") == 0
    assert seeded.names() == ["one", "two"]
    output = capsys.readouterr().out
    assert output.index("seeded migrations.seed.first.zeta (") < output.index("first.alpha (")
    assert "Nothing to do: every seed has run." in output
    seeded.seeds(zeta=ADD.format("one"), alpha=ADD.format("two"), more=ADD.format("three"))
    assert seeded.run("seed") == 0
    assert seeded.names() == ["one", "two", "three"]


@only_sqlite
def test_a_seed_that_takes_longer_than_a_second_says_so_before_its_end(seeded, capsys, monkeypatch):
    monkeypatch.setattr(noventa_cli, "_PATIENCE", 0.01)
    seeded.seeds(slow="import time\ntime.sleep(0.1)")
    assert seeded.run("seed") == 0
    name = "migrations.seed.first.slow"
    assert f"  seeding {name} …\n  seeded {name} (" in capsys.readouterr().out


@pytest.mark.parametrize(
    "end",
    [
        "db.commit()\nraise ValueError('after a commit')",
        "db.commit()\n{more}\ndb.flush()\ndb.commit()\n1 / 0",
        "db.flush()\ndb.rollback()\n{more}\ndb.commit()\nraise ValueError('x')",
        "db.commit()\ndb.add(User(email='one@example.com', name='twice'))",
    ],
    ids=["raises after commit", "commits twice", "rolls back and commits", "constraint at the end"],
)
def test_a_seed_that_fails_leaves_nothing_even_after_its_own_commit(seeded, end, capsys):
    body = ADD.format("one") + "\n" + end.format(more=ADD.format("two"))
    seeded.seeds(good=ADD.format("good"), bad=body, never=ADD.format("never"))
    assert seeded.run("seed") == 1
    assert seeded.names() == ["good"]
    assert seeded.ledger() == ["good"]
    message = capsys.readouterr().err
    assert "Seed migrations.seed.first.bad" in message
    assert "Traceback" not in message
    seeded.seeds(good=ADD.format("good"), bad=ADD.format("one"), never=ADD.format("never"))
    assert seeded.run("seed") == 0
    assert seeded.names() == ["good", "one", "never"]


def test_what_a_seed_rolled_back_itself_is_not_kept(seeded):
    seeded.seeds(some=f"{ADD.format('lost')}\ndb.rollback()\n{ADD.format('kept')}\ndb.commit()")
    assert seeded.run("seed") == 0
    assert seeded.names() == ["kept"]
    assert seeded.ledger() == ["some"]


def test_a_seed_that_ends_the_transaction_of_its_connection_is_not_taken_for_done(seeded, capsys):
    seeded.seeds(some=f"{ADD.format('one')}\ndb.flush()\ndb.connection().commit()")
    for _ in range(2):
        assert seeded.run("seed") == 1
        assert "seed --again migrations.seed.first.some" in capsys.readouterr().err
    assert seeded.names() == ["one"]


@pytest.mark.parametrize(
    "end",
    ["db.execute(sa.text('COMMIT'))", "db.connection().connection.driver_connection.commit()"],
    ids=["COMMIT as text", "the driver's commit"],
)
def test_what_a_seed_committed_itself_is_told_and_is_not_added_twice(seeded, end, capsys):
    body = f"import sqlalchemy as sa\n{ADD.format('one')}\ndb.flush()\n{end}\n1 / 0"
    seeded.seeds(some=body, more=ADD.format("more"))
    assert seeded.run("seed") == 1
    message = capsys.readouterr().err
    assert "left nothing" not in message
    seeded.seeds(some=ADD.format("one"), more=ADD.format("more"))
    assert seeded.run("seed") == 1
    assert "seed --again migrations.seed.first.some" in capsys.readouterr().err
    assert seeded.names() == ["one"]
    seeded.execute("DELETE FROM users")
    assert seeded.run("seed", "--again", "some") == 0
    assert seeded.run("seed") == 0
    assert seeded.names() == ["one", "more"]


@only_mariadb
def test_truncate_in_a_seed_keeps_what_was_added_before_it(seeded, capsys):
    truncate = "db.execute(sa.text('TRUNCATE TABLE noventa_test'))"
    seeded.execute("CREATE TABLE noventa_test (id INTEGER)")
    flush = "db.flush()\n"
    seeded.seeds(
        some=f"import sqlalchemy as sa\n{ADD.format('one')}\n{flush}{truncate}\n"
        f"{ADD.format('two')}\n{flush}1 / 0"
    )
    assert seeded.run("seed") == 1
    message = capsys.readouterr().err
    assert "left nothing" not in message
    assert seeded.names() == ["one"]


@only_sqlite
@pytest.mark.parametrize("code", ["", "0", "3"])
def test_sys_exit_in_a_seed_is_a_failure(seeded, code, capsys):
    seeded.seeds(some=f"import sys\n{ADD.format('one')}\ndb.commit()\nsys.exit({code})")
    assert seeded.run("seed") == 1
    assert "first.py:8) failed and left nothing: it called sys.exit()" in capsys.readouterr().err
    assert seeded.names() == []
    assert seeded.ledger() == []


RUN = "import sys\nfrom noventa_cli import main\nsys.exit(main(['seed']))\n"


@pytest.mark.slow
@servers
def test_a_seed_that_two_run_without_a_lock_runs_once(seeded):
    """As after a lost lock: the ledger, in the seed's own transaction, lets one in."""
    seeded.write("config.yaml", f'database: "{seeded.url}"\nmigrations: {{lock: false}}\n')
    seeded.seeds(some=f"import time\n{ADD.format('one')}\ndb.flush()\ntime.sleep(1)")
    command = [sys.executable, "-c", RUN]
    options = {"cwd": seeded.root, "env": environment(), "text": True}
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, **options) for _ in range(2)]
    output = "".join(run.communicate(timeout=60)[0] for run in runs)
    assert [run.returncode for run in runs] == [0, 0]
    assert output.count("seeded migrations.seed.first.some") == 1
    assert seeded.names() == ["one"]


def test_after_a_downgrade_seeds_run_again_whose_tables_are_gone(seeded, capsys):
    seeded.seeds(one=ADD.format("one"))
    assert seeded.run("seed") == 0
    assert seeded.migrate("downgrade", "base") == 0
    assert "forgot that migrations.seed.first.one has run" in capsys.readouterr().out
    assert seeded.migrate() == 0
    assert seeded.names() == []
    assert seeded.run("seed") == 0
    assert seeded.names() == ["one"]


def test_a_seed_that_has_rows_in_a_table_that_stays_is_told_and_not_run_again(seeded, capsys):
    first = seeded.at()[0]
    make = "op.create_table('roles', sa.Column('id', sa.Integer, primary_key=True))"
    seeded.revision("b2", make, "op.drop_table('roles')", after=first)
    assert seeded.migrate() == 0
    role = "import sqlalchemy as sa\ndb.execute(sa.text('INSERT INTO roles VALUES (1)'))\n"
    seeded.seeds(both=role + ADD.format("one"), users=ADD.format("two"))
    assert seeded.run("seed") == 0
    assert seeded.migrate("downgrade", "-1") == 0
    assert "the rows of migrations.seed.first.both in roles are gone" in capsys.readouterr().out
    assert seeded.migrate() == 0
    assert seeded.run("seed") == 0
    assert seeded.names() == ["one", "two"]
    seeded.execute("DELETE FROM users")
    assert seeded.run("seed", "--again", "both") == 0
    assert len(seeded.rows("SELECT * FROM roles")) == 1


def test_a_seed_that_has_changed_is_said_and_not_run_again_but_by_name(seeded, capsys):
    seeded.seeds(one=ADD.format("one"), two=ADD.format("two"))
    assert seeded.run("seed") == 0
    seeded.seeds(one="# changed\n" + ADD.format("three"), two=ADD.format("two"))
    assert seeded.run("seed") == 0
    assert "first.one has changed since it ran; to run it again" in capsys.readouterr().out
    assert seeded.names() == ["one", "two"]
    assert seeded.run("seed", "--again", "first.one") == 0
    assert seeded.names() == ["one", "two", "three"]
    assert len(seeded.ledger()) == 2
    assert seeded.run("seed", "--again", "thre") == 1
    assert seeded.run("seed", "--again", "onne") == 1
    assert "'onne' is no seed; " in capsys.readouterr().err


@only_sqlite
def test_list_says_what_ran_what_is_pending_and_what_is_gone(seeded, capsys):
    seeded.seeds(one=ADD.format("one"))
    assert seeded.run("seed", "--list") == 0
    assert "first.one  pending" in capsys.readouterr().out
    assert "noventa_seed" not in seeded.tables()
    assert seeded.run("seed") == 0
    seeded.seeds(two=ADD.format("two"))
    assert seeded.run("seed", "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("first.two  pending" in line for line in lines)
    assert any("first.one  ran 20" in line and "no longer listed" in line for line in lines)


@only_postgresql
def test_sequences_go_on_after_the_ids_that_a_seed_gave(seeded):
    given = "db.add(User(id={0}, email='{1}', name='{1}'))"
    seeded.seeds(one=given.format(1, "a") + "\n" + given.format(41, "b"))
    assert seeded.run("seed") == 0
    seeded.execute("INSERT INTO users (email, name) VALUES ('c', 'c')")
    assert seeded.rows("SELECT max(id) FROM users") == [(42,)]
    seeded.seeds(one=given.format(1, "a") + "\n" + given.format(41, "b"), two=given.format(7, "d"))
    assert seeded.run("seed") == 0
    seeded.execute("INSERT INTO users (email, name) VALUES ('e', 'e')")
    assert seeded.rows("SELECT max(id) FROM users") == [(43,)]


def test_the_ledger_is_kept_out_of_autogenerate(seeded):
    seeded.seeds(one=ADD.format("one"))
    assert seeded.run("seed") == 0
    assert seeded.migrate("revision", "--autogenerate", "-m", "again") == 0
    assert len(seeded.revisions()) == 1
    assert seeded.migrate("check") == 0


@only_sqlite
def test_a_seed_before_its_migration_names_the_command_that_is_missing(seeded, capsys):
    seeded.seeds(one=ADD.format("one"))
    assert seeded.migrate("downgrade", "base") == 0
    assert seeded.run("seed") == 1
    assert "run `python -m noventa migrate`" in capsys.readouterr().err


@only_sqlite
def test_list_makes_no_database_and_a_project_without_seeds_says_so(site, capsys):
    assert site.run("seed", "--list") == 0
    assert not list(site.root.glob("*.db*"))
    assert site.run("seed") == 0
    assert capsys.readouterr().out.count("The registry lists no seeds.") == 2


@only_sqlite
def test_a_seed_prints_and_reads_the_environment_as_it_likes(seeded, capsys):
    os.environ["NOVENTA_TEST_SEED"] = "said"
    seeded.seeds(one="import os\nprint(os.environ['NOVENTA_TEST_SEED'])")
    assert seeded.run("seed") == 0
    assert "said\n" in capsys.readouterr().out
