"""Seeds run once each, in registry order, in one transaction with their ledger entry."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import USER_MODELS, only_mariadb, only_postgresql, only_sqlite, servers
from processes import environment
from support import go, lacks, refuse

import noventa_cli

pytestmark = pytest.mark.slow

IMPORT = "import sqlalchemy as sa\nfrom components.user.user_models import User\n\n\n"


def add(name):
    return f"db.add(User(email='{name}@example.com', name='{name}'))"


@pytest.fixture
def seeded(site):
    """A project with a table `users`, and helpers to write seeds and read their results."""
    site.write("components/user/user_models.py", USER_MODELS)
    site.register("components.user.user_models")
    site.autogenerate("users")
    go(site, "upgrade head")

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


def fail(site, capsys, *words):
    """Run `seed`, which must exit with 1 and without a traceback; return its message."""
    return refuse(site, capsys, " ".join(words), command="seed")


def test_seeds_run_once_in_registry_order_and_the_ledger_is_not_migrated(seeded, capsys):
    seeded.seeds(zeta=add("one"), alpha=add("two") + "\ndb.commit()")
    assert seeded.run("seed") == 0
    assert seeded.run("seed") == 0
    assert seeded.names() == ["one", "two"]
    output = capsys.readouterr().out
    assert output.index("seeded migrations.seed.first.zeta (") < output.index("first.alpha (")
    assert "Nothing to do: every seed has run." in output
    rolls_back = f"{add('lost')}\ndb.rollback()\n{add('three')}\ndb.commit()"
    seeded.seeds(zeta=add("one"), alpha=add("two"), more=rolls_back)
    assert seeded.run("seed") == 0
    assert seeded.names() == ["one", "two", "three"]
    go(seeded, "revision --autogenerate -m again", "check")
    assert len(seeded.revisions()) == 1


def test_a_failed_seed_is_rolled_back_even_after_its_own_commit(seeded, capsys):
    for end in [
        "db.commit()\nraise ValueError('after a commit')",
        f"db.commit()\n{add('two')}\ndb.flush()\ndb.commit()\n1 / 0",
        f"db.flush()\ndb.rollback()\n{add('two')}\ndb.commit()\nraise ValueError('x')",
        "db.commit()\ndb.add(User(email='one@example.com', name='twice'))",
        "db.commit()\nraise SystemExit",
        "db.commit()\nraise SystemExit(0)",
    ]:
        seeded.seeds(good=add("good"), bad=f"{add('one')}\n{end}", never=add("never"))
        assert "Seed migrations.seed.first.bad" in (message := fail(seeded, capsys))
        exits = "first.py:12) failed and was rolled back: it called sys.exit()"
        assert (exits in message) is ("SystemExit" in end)
        assert (seeded.names(), seeded.ledger()) == (["good"], ["good"])
    seeded.seeds(good=add("good"), bad=add("one"), never=add("never"))
    assert seeded.run("seed") == 0
    assert seeded.names() == ["good", "one", "never"]


def test_rows_a_seed_committed_on_its_connection_are_reported_and_not_added_twice(seeded, capsys):
    for number, end in enumerate([
        "db.connection().commit()",  # succeeds, but is not recorded as done
        "db.execute(sa.text('COMMIT'))\n1 / 0",
        "db.connection().connection.driver_connection.commit()\n1 / 0",
    ]):  # fmt: skip
        name, more = f"some{number}", f"more{number}"
        seeded.seeds(**{name: f"{add('one')}\ndb.flush()\n{end}"})
        assert "failed and was rolled back" not in fail(seeded, capsys)
        seeded.seeds(**{name: add("one"), more: add("more")})
        assert f"seed --again migrations.seed.first.{name}" in fail(seeded, capsys)
        assert seeded.names() == ["one"]
        seeded.execute("DELETE FROM users")
        assert seeded.run("seed", "--again", name) == 0
        assert seeded.run("seed") == 0
        assert seeded.names() == ["one", "more"]
        seeded.execute("DELETE FROM users")


@only_mariadb
def test_truncate_in_a_seed_commits_earlier_rows_on_mariadb(seeded, capsys):
    seeded.execute("CREATE TABLE noventa_test (id INTEGER)")
    truncate = "db.execute(sa.text('TRUNCATE TABLE noventa_test'))"
    seeded.seeds(some=f"{add('one')}\ndb.flush()\n{truncate}\n{add('two')}\ndb.flush()\n1 / 0")
    assert "failed and was rolled back" not in fail(seeded, capsys)
    assert seeded.names() == ["one"]


TWO = """\
import os, sys
from noventa_cli import main
for _ in range(2):
    if not os.fork():
        sys.exit(main(["seed"]))
print("exit codes", [os.wait()[1] for _ in range(2)])
"""


@servers
def test_two_processes_without_the_lock_run_a_seed_once(seeded):
    """As after a lost lock: the ledger, in the seed's transaction, admits only one."""
    seeded.write("config.yaml", f'database: "{seeded.url}"\nmigrations: {{lock: false}}\n')
    seeded.seeds(some=f"import time\n{add('one')}\ndb.flush()\ntime.sleep(1)")
    command, options = [sys.executable, "-u", "-c", TWO], {"cwd": seeded.root, "timeout": 60}
    output = subprocess.check_output(command, env=environment(), text=True, **options)
    assert "exit codes [0, 0]" in output
    assert output.count("seeded migrations.seed.first.some") == 1
    assert seeded.names() == ["one"]


def test_after_a_downgrade_seeds_of_dropped_tables_rerun_and_others_are_reported(seeded, capsys):
    make = "op.create_table('roles', sa.Column('id', sa.Integer, primary_key=True))"
    seeded.revision("b2", make, "op.drop_table('roles')", after=seeded.at()[0])
    go(seeded, "upgrade head")
    role = "db.execute(sa.text('INSERT INTO roles VALUES (1)'))\n"
    seeded.seeds(both=role + add("one"), users=add("two"))
    assert seeded.run("seed") == 0
    go(seeded, "downgrade -1")
    assert "the rows of migrations.seed.first.both in roles are gone" in capsys.readouterr().out
    go(seeded, "upgrade head")
    assert seeded.run("seed") == 0
    assert seeded.names() == ["one", "two"]  # neither has run again
    seeded.execute("DELETE FROM users")
    assert seeded.run("seed", "--again", "both") == 0
    assert len(seeded.rows("SELECT * FROM roles")) == 1
    go(seeded, "downgrade base")
    assert "forgot that migrations.seed.first.users has run" in capsys.readouterr().out
    go(seeded, "upgrade head")
    assert seeded.names() == []
    assert seeded.run("seed") == 0
    assert seeded.names() == ["one", "two"]


@only_sqlite
def test_a_changed_seed_is_reported_and_reruns_only_by_name(seeded, capsys):
    seeded.seeds(one=add("one"), two=add("two"))
    assert seeded.run("seed") == 0
    seeded.seeds(one="# changed\n" + add("three"), two=add("two"))
    assert seeded.run("seed") == 0
    assert "first.one has changed since it ran; to run it again" in capsys.readouterr().out
    assert seeded.names() == ["one", "two"]
    assert seeded.run("seed", "--again", "first.one") == 0
    assert seeded.names() == ["one", "two", "three"]
    assert len(seeded.ledger()) == 2
    for name in ("thre", "onne"):
        assert f"unknown seed '{name}'; " in fail(seeded, capsys, "--again", name)


@only_sqlite
def test_list_shows_seeds_that_ran_are_pending_or_were_removed(seeded, capsys):
    seeded.seeds(one=add("one"))
    assert seeded.run("seed", "--list") == 0
    assert "first.one  pending" in capsys.readouterr().out
    assert "noventa_seed" not in seeded.tables()
    assert seeded.run("seed") == 0
    seeded.seeds(two=add("two"))
    assert seeded.run("seed", "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("first.two  pending" in line for line in lines)
    assert any("first.one  ran 20" in line and "no longer listed" in line for line in lines)


@only_sqlite
def test_list_creates_no_database_and_reports_a_project_without_seeds(site, capsys):
    assert site.run("seed", "--list") == 0
    assert not list(site.root.glob("*.db*"))
    assert site.run("seed") == 0
    assert capsys.readouterr().out.count("The registry lists no seeds.") == 2


@only_postgresql
def test_sequences_continue_after_ids_assigned_by_a_seed(seeded):
    insert = "db.add(User(id={0}, email='{1}', name='{1}'))"
    one = insert.format(1, "a") + "\n" + insert.format(41, "b")
    for seeds, latest in [({"one": one}, 42), ({"one": one, "two": insert.format(7, "d")}, 43)]:
        seeded.seeds(**seeds)
        assert seeded.run("seed") == 0
        seeded.execute(f"INSERT INTO users (email, name) VALUES ('{latest}', 'c')")
        assert seeded.rows("SELECT max(id) FROM users") == [(latest,)]


@only_sqlite
def test_a_seeds_output_is_shown_and_a_slow_seed_is_announced(seeded, capsys, monkeypatch):
    monkeypatch.setenv("NOVENTA_TEST_SEED", "said")
    monkeypatch.setattr(noventa_cli, "_PROGRESS_DELAY", 0.01)
    seeded.seeds(slow="import os, time\ntime.sleep(0.1)\nprint(os.environ['NOVENTA_TEST_SEED'])")
    assert seeded.run("seed") == 0
    name = "migrations.seed.first.slow"
    expected = f"  seeding {name} …\n", "said\n", f"  seeded {name} ("
    assert lacks(capsys.readouterr().out, *expected) == []


@only_sqlite
def test_a_seed_before_its_migration_names_the_command_to_run(seeded, capsys):
    seeded.seeds(one=add("one"))
    go(seeded, "downgrade base")
    assert "run `python -m noventa migrate`" in fail(seeded, capsys)
