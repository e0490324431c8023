"""The README says what is so: its code runs, and what it points to is there."""

from __future__ import annotations

import re
from pathlib import Path

from webtest import TestApp

import noventa
import noventa_cli

ROOT = Path(__file__).parents[1]
README = ROOT.joinpath("README.md").read_text("utf-8")


def blocks(language: str) -> dict[str, str]:
    """The code blocks that begin by naming their file."""
    found = {}
    for text in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL):
        name = re.match(r"(?:# |<!-- )(\S+\.\w+)", text)
        if name:
            found[name[1]] = text
    return found


def test_the_application_of_the_readme_runs(tmp_path: Path) -> None:
    files = {**blocks("python"), **blocks("html")}
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
            db.execute(registry.metadata.tables["users"].insert(), {"name": "Ada"})
            db.commit()
        form = TestApp(app).get("/users/1").form
        form["name"] = ""
        assert "Please enter a name." in form.submit(status=422)
        form["name"] = "Grace"
        page = form.submit(status=303).follow()
        assert "Saved." in page
        assert page.form["name"].value == "Grace"
        assert TestApp(app).get("/api/users.json").json == ["Grace"]
        assert "There is no such user." in TestApp(app).get("/users/2", status=404)


def test_all_that_the_readme_links_to_is_there_and_its_pictures_are_small() -> None:
    linked = [ROOT / path for path in re.findall(r"\]\(([\w./]+)\)", README)]
    assert [path for path in linked if not path.is_file()] == []
    sizes = [path.stat().st_size for path in linked if path.suffix == ".png"]
    assert len(sizes) == 2
    assert max(sizes) < 150_000


def test_the_readme_links_to_each_chapter_in_order() -> None:
    linked = re.findall(r"\]\(templates/guide/(\w+)\.md\)", README.split("## Where to go on")[1])
    assert linked == [*noventa_cli.chapters()]


def test_the_figures_of_the_readme_are_those_of_the_chapter_on_performance() -> None:
    why = README.split("## Why")[1].split("##")[0]
    figures = re.findall(r"\b\d+\.\d+\b", why)
    assert len(figures) == 9
    assert set(figures) <= {*re.findall(r"[\d.]+", noventa_cli.chapters()["performance"].text)}


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len(README.splitlines()) < 150
