"""Projects: loading, unloading and creating them."""

import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys

import pytest
import sqlalchemy as sa
import yaml
from conftest import servers
from processes import environment, write_files, write_project

import noventa_cli
from noventa import Config, NoventaError
from noventa_cli import load_project, main, project_imports


def load(root):
    with project_imports(root):
        return load_project(root)


def test_a_project_has_a_root_a_config_and_a_registry(tmp_path):
    project = load(write_project(tmp_path))
    assert project.root == tmp_path
    assert isinstance(project.config, Config)
    assert [route.path for route in project.registry.routes] == ["/"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.yaml": None}, r"config\.yaml does not exist; pass the project's folder"),
        ({"config.yaml": "debgu: true"}, r"debgu is not a setting; did you mean 'debug'\?"),
        ({"registry.py": None}, r"registry\.py does not exist; pass the project's folder"),
        ({"registry.py": "registery = 1"}, r"registry\.py defines no `registry`; write registry ="),
        ({"registry.py": "registry = []"}, r"`registry` is a list; expected Registry\(…\)"),
        (
            {"registry.py": "registry = ("},
            r"cannot be imported: registry\.py:1: SyntaxError: '\(' was never closed",
        ),
        (
            {"registry.py": "import models.users", "models/users.py": "\n\nimport nowhere"},
            r"imported: models/users\.py:3: ModuleNotFoundError: No module named 'nowhere'",
        ),
        (
            {"registry.py": "import models.users", "models/users.py": "def broken(:\n"},
            r"cannot be imported: models/users\.py:1: SyntaxError: ",
        ),
        ({"registry.py": "\0"}, r"registry\.py cannot be imported: registry\.py(:1)?: "),
        ({"registry.py": "import json\njson.loads('')"}, r"imported: registry\.py:2: JSONDecode"),
        ({"registry.py": "import sys\nsys.exit()"}, r"imported: registry\.py:2: SystemExit"),
    ],
)
def test_a_loading_problem_is_reported_with_location_and_remedy(files, message, tmp_path):
    missing = [name for name, text in files.items() if text is None]
    write_project(tmp_path, files)
    for name in missing:
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(NoventaError, match=message):
        load(tmp_path)


def test_a_failed_import_keeps_its_cause(tmp_path):
    write_project(tmp_path, {"registry.py": "1 / 0"})
    with pytest.raises(NoventaError) as caught:
        load(tmp_path)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_noventa_error_in_the_registry_is_raised_unchanged(tmp_path):
    text = "from noventa import NoventaError\nraise NoventaError('Set the variable X.')\n"
    with pytest.raises(NoventaError, match=r"^Set the variable X\.$"):
        load(write_project(tmp_path, {"registry.py": text}))


def write_named(folder, name):
    registry = """\
from models.here import NAME
from noventa import Registry, Static

registry = Registry(routes=[Static("/" + NAME, "files")])
"""
    return write_project(
        folder / name, {"registry.py": registry, "models/here.py": f"NAME = {name!r}\n"}
    )


def test_one_process_can_load_several_projects_in_turn(tmp_path):
    roots = [write_named(tmp_path, name) for name in ("one", "two", "one")]
    paths = [load(root).registry.routes[0].path for root in roots]
    assert paths == ["/one", "/two", "/one"]


def test_loading_a_project_restores_sys_path_and_sys_modules(tmp_path):
    path, modules = sys.path[:], dict(sys.modules)
    load(write_named(tmp_path, "one"))
    assert sys.path == path
    assert {name for name in set(sys.modules) - set(modules) if "models" in name} == set()
    assert sys.modules.get("registry") is modules.get("registry")


def test_modules_of_another_project_on_the_path_are_not_imported(tmp_path, monkeypatch):
    one, two = write_named(tmp_path, "one"), write_named(tmp_path, "two")
    (two / "models" / "here.py").unlink()
    monkeypatch.chdir(one)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    with pytest.raises(NoventaError, match=r"registry\.py:1: ModuleNotFoundError"):
        load(two)


def test_a_module_elsewhere_that_hides_a_folder_is_named(tmp_path, monkeypatch):
    root, elsewhere = write_named(tmp_path, "one"), tmp_path / "elsewhere"
    write_files(elsewhere, {"models.py": ""})
    monkeypatch.setattr(sys, "path", [*sys.path, str(elsewhere)])
    with pytest.raises(NoventaError) as caught:
        load(root)
    del sys.modules["models"]
    hidden = f"{elsewhere}/models.py hides the project's folder models, so rename one of them."
    assert str(caught.value).endswith(f"'models' is not a package; {hidden}")


def test_libraries_inside_the_projects_folder_stay_loaded(tmp_path, monkeypatch):
    root = write_project(tmp_path, {"registry.py": "import a_library\nregistry = None"})
    packages = tmp_path / ".venv" / "lib"
    write_files(packages, {"a_library.py": ""})
    monkeypatch.setattr(sys, "path", [*sys.path, str(packages)])
    with pytest.raises(NoventaError, match="NoneType"):
        load(root)
    assert sys.modules.pop("a_library").__file__ == str(packages / "a_library.py")


# ---- new ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["noventa", "Noventa", "noventa_cli", "1a", "a b", "a-", "-", "é"])
def test_an_invalid_project_name_is_rejected(name, tmp_path, capsys):
    assert main(["new", str(tmp_path / name)]) == 1
    assert f"{name!r} is " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "reason"), [("file/hello", "Not a directory"), ("a" * 300, "File name too long")]
)
def test_a_folder_that_cannot_be_created_is_one_message(name, reason, tmp_path, capsys):
    write_files(tmp_path, {"file": "mine"})
    assert main(["new", str(tmp_path / name)]) == 1
    assert f"{reason}." in capsys.readouterr().err


def test_a_non_empty_folder_is_rejected_and_left_alone(tmp_path, capsys):
    write_files(tmp_path, {"hello/mine.txt": "mine", "file": "mine"})
    assert main(["new", str(tmp_path / "hello")]) == 1
    assert main(["new", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.count("is not an empty folder; choose another name") == 2
    assert [path.name for path in (tmp_path / "hello").iterdir()] == ["mine.txt"]


@pytest.fixture
def quick_new(tmp_path, monkeypatch):
    """Prepare an existing empty folder and replace the slow steps of `new`."""
    for step in ("migrate", "seed", "_run_tests"):
        monkeypatch.setattr(noventa_cli, step, lambda *_, **__: 0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hello").mkdir()
    return tmp_path / "hello"


def test_new_writes_the_starter_and_prints_the_next_steps(quick_new, capsys):
    assert main(["new", "hello"]) == 0
    last = capsys.readouterr().out.partition("hello is ready.\n\n")[2]
    commands, facts = last.split("\n\n")
    assert commands == "  cd hello\n  python -m noventa serve --reload"  # ready to copy
    lines = [re.split(" {2,}", line.strip()) for line in facts.splitlines()]
    assert lines == [
        ["Open", "http://127.0.0.1:8000"],
        ["sign in as", "admin@example.com"],
        ["with the password", lines[2][1], "(shown only once)"],
    ]
    written = {str(path.relative_to(quick_new)) for path in quick_new.rglob("*.*")}
    assert {".gitignore", "README.md", "layouts/base.html", "config.yaml"} <= written
    assert "migrations/seed/initial_users.py" in written
    assert not [name for name in written if name.endswith((".jinja", ".pyc"))]


def test_the_starters_secret_key_is_unique_marked_and_private(quick_new):
    assert main(["new", "hello"]) == 0
    assert main(["--project", "elsewhere", "new", "hello"]) == 0
    folders = quick_new, quick_new.parent / "elsewhere" / "hello"
    keys = {Config.load(folder)["secret_keys"][0] for folder in folders}
    assert len(keys) == 2
    for name in ("secret.key", "noventa.db"):
        assert {stat.S_IMODE((path / name).stat().st_mode) for path in folders} == {0o600}
    for name in (".gitignore", ".dockerignore"):
        assert all("secret.key" in (path / name).read_text().split() for path in folders)
    assert not any(key in (path / "config.yaml").read_text() for key in keys for path in folders)
    assert all(re.fullmatch("starter-[0-9a-f]{64}", key) for key in keys)


def test_new_shows_the_password_that_the_seed_uses(quick_new, monkeypatch, capsys):
    passwords = []
    seed = lambda _: passwords.append(os.environ["NOVENTA_ADMIN_PASSWORD"]) or 0  # noqa: E731
    monkeypatch.setattr(noventa_cli, "seed", seed)
    monkeypatch.delenv("NOVENTA_ADMIN_PASSWORD", raising=False)
    assert main(["new", "hello"]) == 0
    assert f"  {passwords[0]}   (shown only once)" in capsys.readouterr().out
    assert "NOVENTA_ADMIN_PASSWORD" not in os.environ

    monkeypatch.setenv("NOVENTA_ADMIN_PASSWORD", "of my own")
    assert main(["new", "again"]) == 0
    out = capsys.readouterr().out
    assert "from NOVENTA_ADMIN_PASSWORD" in out
    assert "of my own" not in out
    assert passwords[1] == os.environ["NOVENTA_ADMIN_PASSWORD"] == "of my own"


@pytest.mark.parametrize("failure", ["code", "error"])
def test_a_failing_step_reports_what_was_created_and_how_to_continue(
    failure, quick_new, monkeypatch, capsys
):
    def fail(*_, **__):
        if failure == "error":
            raise NoventaError("No tests today.")
        return 1

    monkeypatch.setattr(noventa_cli, "_run_tests", fail)
    assert main(["new", "hello"]) == 1
    err = capsys.readouterr().err
    assert ("No tests today." in err) == (failure == "error")
    assert f"{quick_new} was created, but this step failed: running the tests." in err
    assert "in that folder with:\n  python -m pytest\n  python -m noventa seed\n" in err


def test_new_can_start_the_server(quick_new, monkeypatch):
    served = []
    monkeypatch.setattr(noventa_cli, "serve", lambda root: served.append(root) or 0)
    assert main(["new", "hello", "--serve"]) == 0
    assert served == [quick_new]


def test_new_reports_skipped_tests(tmp_path, monkeypatch, capsys):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "webtest" else find_spec(name)
    )
    monkeypatch.chdir(tmp_path)
    assert main(["new", "hello", "--empty"]) == 0
    assert "skipped; run `pip install webtest`" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("foo", "--database is not a URL; expected driver://user:password@host"),
        (
            "postgrse://a/b",
            r"--database: 'postgrse' is not a known driver; did you mean 'postgresql'",
        ),
        (
            "postgresql://me:secret@127.0.0.1:1/b",
            r"Database postgresql\+psycopg://me:\*{3}@127.0.0.1:1/b: Op",
        ),
        ("mysql://me@127.0.0.1:1/", "names no database; add its name at the end"),
        ("sqlite://", "an in-memory SQLite ends with its process; name a file"),
        ("sqlite:////nowhere/at/all.db", "unable to open database file"),
    ],
)
def test_an_unusable_database_is_one_error_and_creates_nothing(url, message, tmp_path, capsys):
    assert main(["new", str(tmp_path / "hello"), "--database", url]) == 1
    out, err = capsys.readouterr()
    assert re.match(message if message.startswith(("-", "Data")) else f".*{message}", err)
    assert (out, err.count("\n")) == ("", 1)
    assert list(tmp_path.iterdir()) == []


def test_a_database_with_tables_is_only_accepted_with_empty(tmp_path, quick_new, capsys):
    url = f"sqlite:///{tmp_path / 'old.db'}"
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        connection.execute(sa.text("CREATE TABLE customers (id INTEGER)"))
    assert main(["new", "hello", "--database", url]) == 1
    assert "already has tables (customers)" in capsys.readouterr().err
    assert list(quick_new.iterdir()) == []
    assert main(["new", "hello", "--database", url, "--empty"]) == 0
    assert Config.load(quick_new).database_url.database == str(tmp_path / "old.db")


@servers
def test_a_database_url_is_kept_out_of_git_and_ci_tests_its_backend(database, quick_new):
    assert main(["new", "hello", "--empty", "--database", database]) == 0
    file = quick_new / "database.url"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.name in (quick_new / ".gitignore").read_text().split()
    others = [path for path in quick_new.rglob("*") if path.is_file() and path != file]
    assert not [path for path in others if database in path.read_text()]
    expected = Config.from_mapping({"database": database}, quick_new).database_url
    assert Config.load(quick_new).database_url == expected
    workflow = yaml.safe_load((quick_new / ".github" / "workflows" / "tests.yml").read_text())
    job = workflow["jobs"]["tests"]
    tried = sa.make_url(job["env"]["NOVENTA_TEST_DATABASE"]).get_backend_name()
    assert tried == expected.get_backend_name()
    assert job["services"]["database"]["image"].startswith(tried[:5])


def test_a_database_url_with_variables_is_written_unchanged(quick_new, monkeypatch):
    monkeypatch.delenv("HELLO_DATABASE", raising=False)
    given = "${HELLO_DATABASE:-sqlite:///./hello.db}"
    assert main(["new", "hello", "--empty", "--database", given]) == 0
    assert f'database: "{given}"' in (quick_new / "config.yaml").read_text()
    monkeypatch.setenv("HELLO_DATABASE", "sqlite:///./other.db")
    assert Config.load(quick_new).database_url.database == str(quick_new / "other.db")


def test_a_separate_sqlite_folder_is_kept_in_clones(quick_new):
    assert main(["new", "hello", "--empty", "--database", "sqlite:///./data/a.db"]) == 0
    assert {path.name for path in (quick_new / "data").iterdir()} == {".gitkeep", "a.db"}
    assert stat.S_IMODE((quick_new / "data" / "a.db").stat().st_mode) == 0o600


@pytest.mark.slow
def test_an_empty_project_has_one_page_and_works(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "hello", "--empty"]) == 0
    out = capfd.readouterr().out
    assert "2 passed" in out
    assert "sign in" not in out
    assert {path.name for path in (tmp_path / "hello").iterdir() if path.is_dir()} == {
        ".github", ".pytest_cache", "migrations", "pages", "tests",
    }  # fmt: skip
    assert main(["--project", "hello", "check"]) == 0


@servers  # test_starter.py covers SQLite
@pytest.mark.slow
def test_tests_in_a_fresh_clone_create_their_own_database(database, tmp_path, monkeypatch):
    monkeypatch.setattr(noventa_cli, "_run_tests", lambda _: 0)  # they run below
    assert main(["new", str(tmp_path / "hello"), "--database", database]) == 0
    ignored = "noventa.db*", "secret.key", "database.url", "__pycache__", ".pytest_cache"
    ignore = shutil.ignore_patterns(*ignored)
    clone = shutil.copytree(tmp_path / "hello", tmp_path / "clone", ignore=ignore)
    files = {path.relative_to(clone) for path in clone.rglob("*")}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=clone,
        env=environment(NOVENTA_TEST_DATABASE=database),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "27 passed" in ended.stdout
    assert {path.relative_to(clone) for path in clone.rglob("*")} == files


@pytest.mark.slow
def test_new_runs_the_projects_tests_in_its_folder_and_reports_failure(
    tmp_path, monkeypatch, capfd
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k none --junit-xml=none.xml")
    assert main(["new", "../hello", "--empty"]) == 1
    assert "2 deselected" in capfd.readouterr().out
    assert (tmp_path / "hello" / "none.xml").exists()


# ---- new component --------------------------------------------------------------------------


def test_new_component_creates_three_files_and_prints_the_registry_lines(tmp_path, capsys):
    root = write_project(tmp_path)
    new_component = ["--project", str(root), "new", "component"]
    assert main([*new_component, "order_list"]) == 0
    out = capsys.readouterr().out
    line = re.search(r"^  (from components\..+)$", out, re.MULTILINE)[1]
    entry = re.search(r"^  Component\(.+\),$", out, re.MULTILINE)[0]
    registry = (
        f"from noventa import Component, Page, Registry\n{line}\n\n"
        f'registry = Registry(components=[\n{entry}\n], routes=[Page("/", "pages/index.html")])\n'
    )
    write_files(
        root, {"registry.py": registry, "pages/index.html": '{{ component("order_list") }}'}
    )
    with project_imports(root):
        app = noventa_cli.load_app(root)
        assert "<h2>Order list</h2>" in app.render("order_list")
        assert list(app.registry.metadata.tables) == ["order_list"]


@pytest.mark.parametrize("name", ["class", "Card", "1a", "a-b", "../a", "", "a" * 300])
def test_an_invalid_component_name_is_rejected(name, tmp_path, capsys):
    root = write_project(tmp_path)
    assert main(["--project", str(root), "new", "component", name]) == 1
    assert f"{name!r} is not a valid component name; use" in capsys.readouterr().err
    assert not (root / "components").exists()


def test_a_file_in_place_of_the_components_folder_is_one_message(tmp_path, capsys):
    write_project(tmp_path, {"components": "a file"})
    assert main(["--project", str(tmp_path), "new", "component", "news"]) == 1
    assert "cannot be written: Not a directory." in capsys.readouterr().err


def test_an_existing_component_is_left_alone(tmp_path, capsys):
    root = write_project(tmp_path, {"components/card/card_logic.py": "mine"})
    assert main(["--project", str(root), "new", "component", "card"]) == 1
    assert "components/card exists; choose another name." in capsys.readouterr().err
    assert [path.name for path in (root / "components" / "card").iterdir()] == ["card_logic.py"]


def test_new_component_creates_nothing_outside_a_project(tmp_path, capsys):
    assert main(["--project", str(tmp_path), "new", "component", "card"]) == 1
    assert "is not a project" in (err := capsys.readouterr().err)
    assert "pass the project's folder with --project" in err
    assert list(tmp_path.iterdir()) == []
    assert main(["new", "component"]) == 2
