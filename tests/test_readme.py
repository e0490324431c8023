"""The README says what is so: its code runs, its tables are those of the code."""

from __future__ import annotations

import inspect
import re
import runpy
from importlib import import_module
from pathlib import Path
from typing import Any

from webtest import TestApp

import noventa
import noventa_cli

README = Path(__file__).parents[1].joinpath("README.md").read_text("utf-8")


def blocks(language: str) -> dict[str, str]:
    """The code blocks that begin by naming their file."""
    found = {}
    for text in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL):
        name = re.match(r"(?:# |<!-- )(\S+\.\w+)", text)
        if name:
            found[name[1]] = text
    return found


def test_the_table_of_commands_is_that_of_the_parser() -> None:
    section = README.split("## Commands")[1].split("##")[0]
    assert re.findall(r"^\| `([a-z]+(?: [a-z]+)?)", section, re.MULTILINE) == list(
        noventa_cli.COMMANDS
    )


def test_the_application_of_the_readme_runs(tmp_path: Path) -> None:
    files = {**blocks("python"), **blocks("html")}
    files["files/site.css"] = "body { color: black }"
    files["config.yaml"] = f"secret_keys: ['{'key of the readme' * 2}']\n"
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    with noventa_cli.project_imports(tmp_path):
        registry = noventa_cli.load_registry(tmp_path)
        app = noventa.App(registry, noventa.Config.load(tmp_path))
        registry.metadata.create_all(app.database.engine)
        with app.database.session() as db:
            db.execute(registry.metadata.tables["users"].insert(), {"email": "a@b", "name": "Ada"})
            db.commit()
        form = TestApp(app).get("/users/1").form
        form["name"] = ""
        assert "Please enter a name." in form.submit(status=422)
        form["name"] = "Grace"
        page = form.submit(status=303).follow()
        assert "Saved." in page
        assert page.form["name"].value == "Grace"
        assert TestApp(app).get("/api/users.json").json == ["Grace"]
        with app.database.sandbox() as db:
            run_tests(tmp_path / "tests" / "test_users.py", app, db)


def run_tests(path: Path, app: noventa.App, db: Any) -> None:
    """The README's own tests, with what its fixtures give."""
    user = import_module("components.user.user_models").User(email="b@b", name="Ada")
    db.add(user)
    db.commit()
    given = {"app": app, "user": user}
    tests = runpy.run_path(str(path))
    for name in [name for name in tests if name.startswith("test_")]:
        given["client"] = TestApp(app, extra_environ={"HTTP_HOST": "localhost"})
        tests[name](**{key: given[key] for key in inspect.signature(tests[name]).parameters})
