"""The commands that inspect a project without serving it: check, routes, shell and run."""

import io
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from processes import KEY, PROJECT, noventa, terminal, write_project
from support import make_app

import noventa_cli
from noventa import SETTINGS, Mount, Page, Static
from noventa_cli import link_faults, main

USER = {
    "registry.py": """\
from components.user import user_logic, user_models
from noventa import Component, Endpoint, Mount, Page, Registry, Static


def signed_in(request, session, db):
    return None


def everybody(request, session, db):
    return None


def users(request, session, db):
    return []


class Legacy:
    def __call__(self, environ, start_response):
        return []


registry = Registry(
    components=[
        Component("user", "user.html", logic=user_logic, models=[user_models], guard=signed_in),
        Component("card", "card.html"),
        Component("unused", "card.html"),
    ],
    routes=[
        Page("/", "pages/index.html", guards=[signed_in]),
        Endpoint("/users.json", users, methods=["GET", "POST"]),
        Mount("/legacy", Legacy()),
        Static("/files", "files", guards=[]),
    ],
    guards=[everybody],
)
""",
    "components/user/user_logic.py": """\
def action_rename(request, session, db):
    return {}
""",
    "components/user/user_models.py": """\
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
""",
    "pages/index.html": '{{ component("user") }}',
    "user.html": '{% call component("card") %}{{ action("rename") }}{% endcall %}',
    "card.html": "{{ children }}",
    "files/site.css": "",
}


def run(root, *arguments):
    return main(["--project", str(root), *arguments])


# ---- routes ---------------------------------------------------------------------------------


def test_routes_as_json_describes_each_url(tmp_path, capsys):
    assert run(write_project(tmp_path, USER), "routes", "--json") == 0
    page, endpoint, mount, static = json.loads(capsys.readouterr().out)
    assert page == {
        "url": "/",
        "kind": "page",
        "methods": ["GET", "HEAD", "POST"],
        "target": "pages/index.html",
        "guards": ["registry.everybody", "registry.signed_in", "registry.signed_in"],
        "components": ["user", "card"],
        "actions": ["user.rename"],
        "tables": ["users"],
    }
    assert (endpoint["target"], endpoint["methods"]) == ("registry.users", ["GET", "POST"])
    assert (mount["kind"], mount["target"]) == ("mount", "registry.Legacy")
    assert (static["url"], static["target"], static["guards"]) == ("/files", "files", [])


def test_routes_prints_a_table_with_aligned_columns(tmp_path, capsys):
    assert run(write_project(tmp_path, USER), "routes") == 0
    head, page, endpoint, *_ = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["URL", "KIND", "METHODS"]
    assert {line.index("registry.everybody") for line in (page, endpoint)} == {head.index("GUARDS")}
    assert page.endswith("  user card   user.rename  users")


BLOCKS = """\
/
  page        pages/index.html
  guards      everybody, signed_in
  components  user › card
  actions     POST user.rename
  tables      users
/users.json
  GET, POST   registry.users
  guards      everybody
/legacy
  mount       registry.Legacy
  guards      everybody
/files
  static      files
"""


def test_routes_prints_blocks_if_the_table_does_not_fit_the_terminal(tmp_path):
    with terminal() as screen:
        assert run(write_project(tmp_path, USER), "routes") == 0
    *blocks, last = screen.lines()
    assert blocks == BLOCKS.splitlines()
    assert re.fullmatch(r"The table is 1\d\d columns wide; run routes --wide", last)


def test_routes_marks_an_action_without_a_guard(tmp_path):
    registry = USER["registry.py"].replace("=[everybody]", "=[]").replace("=[signed_in]", "=[]")
    registry = registry.replace("guard=signed_in", "guard=None")
    with terminal() as screen:
        assert run(write_project(tmp_path, {**USER, "registry.py": registry}), "routes") == 0
    assert "  actions     POST user.rename   (no guard)" in screen.lines()


@pytest.mark.parametrize(("flags", "columns"), [(["--wide"], 60), ([], 250)])
def test_routes_prints_a_table_if_it_fits_or_with_wide(flags, columns, tmp_path):
    with terminal(columns) as screen:
        assert run(write_project(tmp_path, USER), "routes", *flags) == 0
    assert screen.lines()[0].split()[:3] == ["URL", "KIND", "METHODS"]


def test_routes_lists_recursive_components_up_to_the_first_repetition(tmp_path):
    files = {"card.html": "{% if 0 %}{{ component('user') }}{% endif %}{{ children }}"}
    with terminal() as screen:
        assert run(write_project(tmp_path, {**USER, **files}), "routes") == 0
    assert "  components  user › card › user" in screen.lines()


# ---- check ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def migrated_once(tmp_path_factory):
    root = write_project(tmp_path_factory.mktemp("migrated"), USER)
    assert run(root, "migrate", "revision", "--autogenerate", "-m", "Users") == 0
    assert run(root, "migrate") == 0
    return root


@pytest.fixture
def migrated(migrated_once, tmp_path):
    """A project without problems, whose database is migrated."""
    return shutil.copytree(migrated_once, tmp_path, dirs_exist_ok=True)


def test_check_reports_each_part_and_ok_without_problems(migrated, capsys):
    capsys.readouterr()
    assert run(migrated, "check") == 0
    (file,) = (migrated / "migrations" / "versions").glob("*.py")
    out = re.sub(r"\d+\.\d\d s", "? s", capsys.readouterr().out)
    assert out == (
        f"settings     1 of {len(SETTINGS)} changed, none misspelt\n"
        "registry     4 routes, 3 components, 0 seeds\n"
        "templates    3 compile\n"
        "models       1 table, on sqlite, postgresql, mysql\n"
        "migrations   1 revision; a newly migrated database matches the models\n"
        f"database     at {file.name[:12]}, sqlite:///{migrated}/noventa.db,"
        " tables compared in ? s\n"
        "ok\n"
    )


def test_check_reports_the_number_of_problems_of_each_part(migrated, capsys):
    write_project(migrated, {**USER, "user.html": "{% if %}", "config.yaml": "debgu: true\n"})
    capsys.readouterr()
    assert run(migrated, "check") == 1
    assert capsys.readouterr().out == (
        "settings     config.yaml, 1 problem\n"
        "registry     4 routes, 3 components, 0 seeds\n"
        "templates    2, 1 problem\n"
    )


def test_check_uses_colours_and_the_width_of_the_terminal(migrated):
    (migrated / "user.html").write_text("{% if %}")
    with terminal() as screen:
        assert run(migrated, "check") == 1
    assert "\x1b[32msettings\x1b[0m " in screen.text()
    assert "\x1b[31mtemplates\x1b[0m " in screen.text()
    assert "\n\x1b[31m1 problem:\x1b[0m\n  user.html:1: " in screen.text()
    assert max(len(line) for line in screen.lines() if str(migrated) not in line) <= 60


def test_check_reports_parts_that_take_longer_than_a_second(migrated, capsys, monkeypatch):
    monkeypatch.setattr(noventa_cli, "_PROGRESS_DELAY", 0.01)
    capsys.readouterr()
    assert run(migrated, "check") == 0
    assert "\nmigrations   being checked …\nmigrations   1 revision; " in capsys.readouterr().out
    assert run(migrated, "check", "--json") == 0
    assert json.loads(capsys.readouterr().out)["faults"] == []


def test_check_as_json_prints_one_document(migrated, capsys):
    capsys.readouterr()
    assert run(migrated, "check", "--json") == 0
    assert json.loads(capsys.readouterr().out)["faults"] == []
    write_project(migrated, {**USER, "pages/index.html": '{{ component("usr") }}'})
    with (migrated / "config.yaml").open("a") as config:
        config.write("debgu: true\n")
    assert run(migrated, "check", "--json") == 1
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["faults"] == [
        {"where": "config.yaml", "problem": "debgu is not a setting; did you mean 'debug'?",
         "remedy": None},
        {"where": "pages/index.html", "problem": "component 'usr' is not in the registry",
         "remedy": "did you mean 'user'?"},
    ]  # fmt: skip
    assert (len(document["looked_at"]), document["advice"], err) == (3, [], "")


@pytest.mark.parametrize("state", ["missing", "empty", "behind", "damaged", "unreachable"])
def test_check_reports_a_missing_outdated_or_unreachable_database(state, migrated, capsys):
    file = migrated / "noventa.db"
    if state == "missing":
        file.unlink()
    elif state == "empty":
        file.write_bytes(b"")
    elif state == "behind":
        assert run(migrated, "migrate", "revision", "-m", "more") == 0
    elif state == "damaged":
        file.write_bytes(b"no database at all, but long enough to have been one" * 100)
    else:
        url = "postgresql+psycopg://me:hidden-word@127.0.0.1:1/x"
        settings = PROJECT["config.yaml"].replace("sqlite:///./noventa.db", url)
        write_project(migrated, {**USER, "config.yaml": settings})
    before = file.read_bytes() if file.exists() else None
    assert run(migrated, "check") == 1
    err = capsys.readouterr().err
    messages = {
        "missing": "has no revision, expected ", "empty": "has no revision, expected ",
        "behind": ", behind ", "damaged": "it is not available: DatabaseError: file is not a data",
        "unreachable": "it is not available: OperationalError: connection failed",
    }  # fmt: skip
    assert messages[state] in err
    remedy = (
        "start it, or" if state in ("damaged", "unreachable") else "run `python -m noventa migrate"
    )
    assert remedy in err
    assert "hidden-word" not in err
    if state in ("missing", "damaged"):
        assert before == (file.read_bytes() if file.exists() else None)


def test_check_reports_tables_missing_from_the_database(migrated, capsys):
    with closing(sqlite3.connect(migrated / "noventa.db")) as connection:
        connection.execute("DROP TABLE users")
    assert run(migrated, "check") == 1
    assert "it differs from the models: add_table users; revert" in capsys.readouterr().err


def test_check_requires_a_secret_key_if_templates_use_forms(migrated, capsys):
    settings = PROJECT["config.yaml"].partition("secret_keys")[0]
    write_project(migrated, {**USER, "config.yaml": settings})
    assert run(migrated, "check") == 1
    err = capsys.readouterr().err
    assert "forms and messages need a key, as in user.html; set it to" in err
    assert err.startswith("1 problem:")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"components/user/user_logic.py": "def action_rename(request, session, db, **x): 1\n"
             "def load_template_context(request, session, db, *, id): 1\n"},
            "pages/index.html:1: component 'user' requires the prop 'id'; pass it: component(",
        ),
        (
            {"registry.py": USER["registry.py"].replace('"/users.json"', '"/users/<int:id>"')},
            "route '/users/<int:id>': segment '<int:id>' has another framework's syntax; write",
        ),
    ],
)  # fmt: skip
def test_check_and_serve_report_the_same_mistakes(files, message, migrated, capsys):
    write_project(migrated, {**USER, **files})
    assert run(migrated, "check") == 1
    assert message in capsys.readouterr().err
    assert run(migrated, "serve") == 1
    assert message in capsys.readouterr().err


def test_check_advises_on_strings_without_a_length_for_mysql(tmp_path, capsys):
    models = "components/user/user_models.py"
    root = write_project(tmp_path, {**USER, models: USER[models] + "    name: Mapped[str]\n"})
    assert run(root, "migrate", "revision", "--autogenerate", "-m", "Users") == 0
    assert run(root, "migrate") == 0
    capsys.readouterr()
    assert run(root, "check") == 0
    *_, advice, ok = capsys.readouterr().out.splitlines()
    assert advice.startswith(f"advice: {models}: User: name: String without a length is")
    assert ok == "ok"
    with (root / "config.yaml").open("a") as config:
        config.write("migrations: {portable_to: [postgresql]}\n")
    assert run(root, "check") == 0
    assert "advice" not in capsys.readouterr().out


GUARDS = """\
from noventa import redirect

def lost(request, session, db):
    if "user" not in session:
        redirect("/sign-in")

def kept(request, session, db):
    if "user" not in session:
        return redirect("/sign-in")
"""
GUARDED = """\
from functions import guards
from noventa import Page, Registry

registry = Registry(routes=[Page("/", "page.html", guards=[guards.lost, guards.kept])])
"""


def test_check_advises_on_a_redirect_that_a_guard_drops(tmp_path, capsys):
    files = {"functions/guards.py": GUARDS, "registry.py": GUARDED, "page.html": ""}
    run(write_project(tmp_path, files), "check")
    (advice,) = [line for line in capsys.readouterr().out.splitlines() if "redirect()" in line]
    assert advice.startswith("advice: functions/guards.py:3: lost calls redirect() without ")


def test_check_does_not_create_the_database(migrated):
    for file in migrated.glob("noventa.db*"):
        file.unlink()
    assert run(migrated, "check", "--deploy") == 1
    assert list(migrated.glob("noventa.db*")) == []


def test_check_lists_the_problems_of_all_parts_together(migrated, capsys):
    write_project(
        migrated,
        {
            **USER,
            "config.yaml": "debgu: true\nserver: {port: high}\n",
            "user.html": "{% if %}",
            "pages/index.html": '{{ component("usr") }}',
            "components/user/user_logic.py": "def action_rename(request): pass\n",
        },
    )
    assert run(migrated, "check") == 1
    out, err = capsys.readouterr()
    assert "ok" not in out.splitlines()
    for part in (
        "debgu is not a setting",
        "server.port is 'high'",
        "user.html:1",
        "'usr'",
        "rename",
    ):
        assert part in err
    count, *faults = err.splitlines()
    assert count == f"{len(faults)} problems:"
    assert len(faults) >= 5


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"registry.py": "1 / 0"}, "cannot be imported: registry.py:1: ZeroDivisionError"),
        ({"registry.py": ""}, "registry.py defines no `registry`"),
        ({"config.yaml": 'database: "sqlite://"'}, "database is SQLite in memory"),
        (
            {"registry.py": "from noventa import *\nregistry = Registry(routes=None)"},
            "routes is None",
        ),
        ({"pages/index.html": "{% if 1 %}" * 101 + "{% endif %}" * 101}, "is nested too deeply"),
        ({"pages/index.html": f"{{{{ {'(' * 3000}1{')' * 3000} }}}}"}, "is nested too deeply"),
    ],
)
def test_check_reports_a_single_problem(files, message, tmp_path, capsys):
    assert run(write_project(tmp_path, files), "check") == 1
    err = capsys.readouterr().err
    assert err.startswith("1 problem:\n")
    assert message in err


def test_check_reports_both_missing_files_in_an_empty_folder(tmp_path, capsys):
    assert run(tmp_path, "check") == 1
    err = capsys.readouterr().err
    assert "config.yaml does not exist" in err
    assert "registry.py does not exist" in err


# ---- check --deploy -------------------------------------------------------------------------


def check_deploy(root, capsys, settings):
    write_project(root, {"config.yaml": settings})
    code = run(root, "check", "--deploy")
    out, err = capsys.readouterr()
    assert code == (1 if err else 0)
    return out, err


GOOD = 'secret_keys: ["${SOME_KEY}"]\nsession: {secure: true}\n'


def test_a_project_ready_to_deploy_gets_only_advice(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SOME_KEY", KEY)
    out, err = check_deploy(tmp_path, capsys, GOOD)
    assert err == ""
    assert out.splitlines()[-1] == "ok"
    assert sum(line.startswith("advice: ") for line in out.splitlines()) == 4
    assert "database is SQLite" in out
    assert "through a proxy on this machine" in out
    assert 'set headers: {Strict-Transport-Security: "max-age=31536000"}' in out


def test_check_deploy_lists_public_routes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SOME_KEY", KEY)
    write_project(tmp_path, {
        "config.yaml": GOOD, "files/a.css": "", "registry.py": """
from noventa import Endpoint, Registry, Static

def guard(request, session, db):
    return None

def handler(request, session, db):
    return {}

registry = Registry(
    routes=[Endpoint("/open", handler), Endpoint("/own", handler, guards=[guard]),
            Static("/files", "files")],
)
"""})  # fmt: skip
    assert run(tmp_path, "check", "--deploy") == 0
    assert "public       /open, /files\n" in capsys.readouterr().out
    registry = tmp_path / "registry.py"
    text = registry.read_text().replace("routes=", "guards=[guard], routes=")
    registry.write_text(text.replace('"files")', '"files", guards=[])'))
    assert run(tmp_path, "check", "--deploy") == 0
    assert "public       /files\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("debug: true", "debug is true, so errors show source code; set debug: false"),
        ("debug_from: [10.0.0.0/8]", "debug_from lets other machines see source code"),
        ("secret_keys: []", 'so sessions and forms fail; set secret_keys: ["${NOVENTA'),
        (f'secret_keys: ["{KEY}"]', "secret_keys[0] is written in the file; set"),
        (f'secret_keys: ["${{NOT_SET:-{KEY}}}"]', "secret_keys[0] is written in the file; set"),
        (f'secret_keys: ["starter-{KEY}"]', "secret_keys[0] is the starter's key; create"),
        ("session: {secure: false}", "session.secure is false"),
        ('debug: true\ndatabase: "sqlite://"', "database is in memory, so each process has"),
    ],
)
def test_each_deployment_problem_is_reported_with_a_remedy(settings, message, tmp_path, capsys):
    _, err = check_deploy(tmp_path, capsys, settings)
    assert message in err
    assert KEY not in err


def test_a_secret_key_in_its_own_file_is_accepted(tmp_path, capsys):
    (tmp_path / "secret.key").write_text(f"{KEY}\n")
    (tmp_path / "secret.key").chmod(0o600)
    settings = 'secret_keys: ["${file:secret.key}"]\nsession: {secure: true}\n'
    assert check_deploy(tmp_path, capsys, settings)[1] == ""


@pytest.mark.parametrize("name", ["secret.key", "database.url"])
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_secret_readable_by_other_users_is_a_deployment_problem(name, mode, tmp_path, capsys):
    for secret, text in (("secret.key", KEY), ("database.url", "sqlite:///./noventa.db")):
        (tmp_path / secret).write_text(f"{text}\n")
        (tmp_path / secret).chmod(mode if secret == name else 0o600)
    settings = 'secret_keys: ["${file:secret.key}"]\nsession: {secure: true}\n'
    err = check_deploy(tmp_path, capsys, settings + 'database: "${file:database.url}"\n')[1]
    assert err.startswith("1 problem:")
    assert f"run `chmod 600 {name}`" in err


KEYS_MODELS = """\
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)


class Link(Base):
    __tablename__ = "links"
    __table_args__ = (sa.UniqueConstraint("unique_id", "plain_id"),)
    first_id: Mapped[int] = mapped_column(sa.ForeignKey(User.id), primary_key=True)
    second_id: Mapped[int] = mapped_column(sa.ForeignKey(User.id), primary_key=True)
    plain_id: Mapped[int] = mapped_column(sa.ForeignKey(User.id))
    index_id: Mapped[int] = mapped_column(sa.ForeignKey(User.id), index=True)
    unique_id: Mapped[int] = mapped_column(sa.ForeignKey(User.id))
"""


def test_check_advises_an_index_for_an_unindexed_foreign_key(tmp_path, capsys):
    registry = "import models\nfrom noventa import Registry\n\n"
    registry += "registry = Registry(models=[models])\n"
    write_project(tmp_path, {"models.py": KEYS_MODELS, "registry.py": registry})
    run(tmp_path, "check")
    out = capsys.readouterr().out
    assert re.findall(r"advice: links\.(\w+) is a foreign key", out) == ["plain_id", "second_id"]


@pytest.mark.parametrize("command", [["check"], ["check", "--deploy"], ["serve"]])
def test_the_starters_key_is_only_accepted_in_debug(command, tmp_path, capsys):
    settings = 'secret_keys: ["${file:secret.key}"]\ndebug: false\nsession: {secure: true}\n'
    write_project(tmp_path, {"config.yaml": settings, "secret.key": f"starter-{KEY}"})
    assert run(tmp_path, *command) == 1
    remedy = "create your own with `(umask 077; openssl rand -hex 32 > secret.key)`."
    assert f"secret_keys[0] is the starter's key; {remedy}" in capsys.readouterr().err
    write_project(tmp_path, {"config.yaml": settings.replace("false", "true", 1)})
    assert run(tmp_path, "check") == 0


def test_debug_set_by_the_environment_is_reported_with_its_variable(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NOVENTA_DEBUG", "1")
    monkeypatch.setenv("SOME_KEY", KEY)
    assert "unset NOVENTA_DEBUG" in check_deploy(tmp_path, capsys, GOOD)[1]


def test_unreadable_settings_are_reported_before_any_advice(tmp_path, capsys):
    out, err = check_deploy(tmp_path, capsys, GOOD)
    assert err.startswith("1 problem:\n  config.yaml: secret_keys needs the environment variable")
    assert "advice" not in out


def test_advice_depends_on_the_settings(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SOME_KEY", KEY)
    settings = 'server: {host: 0.0.0.0}\nheaders: {strict-transport-security: "max-age=1"}\n'
    out, _ = check_deploy(tmp_path, capsys, GOOD + settings)
    assert "put an HTTPS proxy in front of it and set server: {host: 127.0.0.1}" in out
    assert "HTTP first" not in out
    assert "set server: {hosts: [example.com]}" in out
    listed = "server: {hosts: [example.com]}\n"
    assert "server.hosts" not in check_deploy(tmp_path, capsys, GOOD + listed)[0]


def test_a_database_server_gets_no_sqlite_advice(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SOME_KEY", KEY)
    settings = "database: postgresql+psycopg://me@127.0.0.1:1/x\n"
    write_project(tmp_path, {"config.yaml": GOOD + settings})
    assert run(tmp_path, "check", "--deploy") == 1  # the database is unreachable
    out = capsys.readouterr().out
    assert "advice" in out
    assert "SQLite" not in out


@pytest.mark.parametrize("driver", ["postgresql+psycopg", "mysql+pymysql"])
def test_check_reports_features_a_database_lacks(driver, tmp_path, capsys):
    settings = PROJECT["config.yaml"].replace("sqlite:///./noventa.db", f"{driver}://me@h:1/x")
    write_project(tmp_path, {"config.yaml": settings})
    assert run(tmp_path, "check") == 1  # the database is unreachable
    out = capsys.readouterr().out
    assert ("mysql+pymysql has no read-only connections" in out) == (driver == "mysql+pymysql")
    assert "no migration lock" not in out


# ---- shell ----------------------------------------------------------------------------------


def test_the_shell_provides_db_registry_and_models(migrated, monkeypatch, capsys):
    assert run(migrated, "migrate") == 0
    lines = "db.add(User()); db.commit()\nprint(db.query(User).count(), len(registry.routes))\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{lines}print(app)\n"))
    assert run(migrated, "shell") == 0
    out, err = capsys.readouterr()
    assert "1 4" in out
    assert f"<App {migrated.name}" in out
    assert "User, db, app, registry" in err


@pytest.mark.slow
def test_the_shell_uses_the_app_of_wsgi_py_even_behind_middleware(tmp_path, capsys):
    wrapped = PROJECT["wsgi.py"].replace("= app\n", "= lambda *arguments: app(*arguments)\n")
    ended = noventa(
        "--project", write_project(tmp_path, {"wsgi.py": wrapped}), "shell",
        input="import wsgi; print(wsgi.app is app)\n",
    )  # fmt: skip
    assert "True\n" in ended.stdout
    write_project(tmp_path, {"wsgi.py": "application = None\n"})
    assert run(tmp_path, "shell") == 1
    assert "wsgi.py defines no `app`; write app = App(registry" in capsys.readouterr().err


@pytest.mark.slow
def test_exit_leaves_the_shell_with_code_0(tmp_path):
    ended = noventa("--project", write_project(tmp_path), "shell", input="exit()\nprint('on')\n")
    assert ended.returncode == 0
    assert "on\n" not in ended.stdout


# ---- run ------------------------------------------------------------------------------------

SCRIPT = """\
import sys
from contextlib import closing
from components.user.user_models import User as imported
import helper

db.add(User())
db.commit()
counts = db.query(User).count(), len(registry.routes)
print(sys.argv, __file__, __name__, imported is User, *counts, app)
"""


def test_a_script_gets_the_shells_names_and_its_own_arguments(migrated, monkeypatch, capsys):
    assert run(migrated, "migrate") == 0
    monkeypatch.chdir(migrated)
    write_project(migrated, {"scripts/fill.py": SCRIPT, "scripts/helper.py": "", **USER})
    before = sys.argv, sys.modules["__main__"]
    argv = ["scripts/fill.py", "-x", "--project", "y", "--", "-h"]
    assert run(migrated, "run", *argv) == 0
    path = migrated / "scripts" / "fill.py"  # absolute, as Python sets __file__
    assert f"{argv} {path} __main__ True 1 4 <App {migrated.name}" in capsys.readouterr().out
    assert (sys.argv, sys.modules["__main__"]) == before


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("import sys\nsys.exit(7)", 7, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit('No rows today.')", 1, "No rows today.\n"),
        ("raise KeyboardInterrupt", 130, ""),
    ],
)
def test_a_script_exits_as_it_would_under_python(text, code, message, tmp_path, capsys):
    write_project(tmp_path, {"x.py": text})
    assert run(tmp_path, "run", str(tmp_path / "x.py")) == code
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(
    "text", ["import json\n\ndef f(): json.loads('')\n\nf()", "x = (", "raise NameError"]
)
def test_a_scripts_traceback_is_the_same_as_pythons(text, tmp_path, capsys):
    write_project(tmp_path, {"x.py": text})
    path = str(tmp_path / "x.py")
    plain = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
    assert run(tmp_path, "run", path) == plain.returncode == 1
    assert capsys.readouterr().err == plain.stderr


def test_a_missing_script_is_one_message(tmp_path, capsys):
    assert run(write_project(tmp_path), "run", "gone.py") == 1
    expected = "gone.py cannot be read: No such file or directory; pass the path of a Python file."
    assert capsys.readouterr().err == f"{expected}\n"
    assert run(tmp_path, "run") == 2


def test_a_single_model_class_can_be_registered(tmp_path, capsys):
    registry = PROJECT["registry.py"].replace("routes=", "models=[User], routes=")
    files = {**USER, "registry.py": f"from components.user.user_models import User\n{registry}"}
    files |= {"pages/index.html": "", "x.py": "print(User.__tablename__)"}
    root = write_project(tmp_path, files)
    assert run(root, "run", str(root / "x.py")) == 0
    assert capsys.readouterr().out == "users\n"


def test_a_problem_in_the_settings_is_reported_once(tmp_path, capsys):
    write_project(tmp_path, {"config.yaml": "sesion: 1\n", "migrations/versions/.keep": ""})
    assert main(["--project", str(tmp_path), "check"]) == 1
    assert capsys.readouterr().err.count("sesion") == 1


@pytest.mark.parametrize("command", ["check", "routes"])
def test_an_entry_of_the_wrong_type_is_reported_without_a_traceback(command, tmp_path, capsys):
    text = 'from noventa import Registry\n\nregistry = Registry(routes=["x"])\n'
    write_project(tmp_path, {"registry.py": text})
    assert main(["--project", str(tmp_path), command]) == 1
    assert "routes[0]: 'x' is a str" in capsys.readouterr().err


def test_check_reports_a_broken_link_in_a_template(tmp_path, capsys):
    root = write_project(tmp_path, {**USER, "card.html": '<a href="/nowhere">'})
    assert run(root, "check") == 1
    assert "no route matches '/nowhere'" in capsys.readouterr().err


def test_check_reports_a_missing_static_file(tmp_path, capsys):
    root = write_project(tmp_path, {**USER, "pages/index.html": '\n{{ static("sit.css") }}'})
    assert run(root, "check") == 1
    message = "pages/index.html:2: static('sit.css'): no such file in files; did you"
    assert message in capsys.readouterr().err


def linked_app_arguments(text):
    """Return the arguments of an application with several routes, whose page is `text`."""
    routes = [
        Page("/", "a.html"), Page("/users", "b.html"), Page("/users/{id:int}", "b.html"),
        Static("/files", "files"), Mount("/old", lambda environ, start_response: []),
    ]  # fmt: skip
    return {"files": {"a.html": text, "b.html": "", "files/a.css": ""}, "routes": routes}


@pytest.mark.parametrize(("text", "problem"), [
    ('{{ url("/usr/") }}', "a.html:1: no route matches '/usr/'; did you mean"),
    ('<p>\n<a class="x" href="/nothing?a=1#b">', "a.html:2: no route matches '/nothing'"),
    ("<form method=post action='/usr'>", "did you mean '/users'?"),
    ('<button formaction="/nothing">', "a.html:1: no route matches '/nothing'"),
    ('<link href="/files/no.css">', "a.html:1: no route matches '/files/no.css'"),
])  # fmt: skip
def test_a_template_path_that_matches_no_route_is_a_problem(tmp_path, text, problem):
    app = make_app(tmp_path, **linked_app_arguments(text))
    (fault,) = link_faults(app.components, app.router)
    assert problem in str(fault)


@pytest.mark.parametrize("text", [
    '{{ url("/users/7") }} <a href="/users?page=2"> <a href="/%75sers"> <a href="/old/any">',
    '<a href="/users/"> <a href="/files/a.css"> <a href="//other/x"> <a data-href="/nothing">',
    """<a href="/{{ 'nothing' }}"> <a href="{{ '/media/x' }}"> <a href="https://x/y">""",
])  # fmt: skip
def test_routed_and_dynamic_template_paths_are_accepted(tmp_path, text):
    app = make_app(tmp_path, **linked_app_arguments(text))
    assert [*link_faults(app.components, app.router)] == []
