"""The README is true: its code runs, and its links lead to files."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import ROOT, write_files
from webtest import TestApp

import noventa_cli
from noventa import App, Component, Config, Page, Registry

README = ROOT.joinpath("README.md").read_text("utf-8")


def blocks(language: str) -> dict[str, str]:
    """The code blocks that begin by naming their file."""
    found = {}
    for text in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL):
        name = re.match(r"(?:# |<!-- )(\S+\.\w+)", text)
        if name:
            found[name[1]] = text
    return found


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A folder with the README's files, which can be imported."""
    page = "{% for one in flashes() %}{{ one.text }}{% endfor %}{{ component('note', id=id) }}"
    write_files(tmp_path, blocks("python") | blocks("html") | {"pages/note.html": page})
    with noventa_cli.project_imports(tmp_path):
        yield tmp_path


def test_the_one_file_of_the_readme_is_a_whole_application(project: Path) -> None:
    notes: Any = noventa_cli.import_from_project("notes", project)
    notes.registry.metadata.create_all(notes.app.database.engine)
    client = TestApp(notes.app)
    assert client.post("/notes", {"text": "Hello"}, status=201).json == {"id": 1}
    assert client.get("/notes").json == [{"id": 1, "text": "Hello"}]
    assert client.post("/notes", {}, status=400).headers["X-Noventa-Refused"] == "missing-field"


def test_the_component_of_the_readme_can_be_shown_and_saved(project: Path) -> None:
    notes: Any = noventa_cli.import_from_project("notes", project)
    registry = Registry(
        components=[Component("note", logic=importlib.import_module("components.note.note_logic"))],
        models=[notes.Note],
        routes=[Page("/notes/{id:int}", "pages/note.html")],
    )
    config = Config.from_mapping({"secret_keys": ["key of the readme" * 2]}, project)
    app = App(registry, config)
    registry.metadata.create_all(app.database.engine)
    with app.database.session() as db:
        db.add(notes.Note(text="Hello"))
        db.commit()
    form = TestApp(app).get("/notes/1").form
    form["text"] = " "
    assert "Write something." in form.submit(status=422)
    form["text"] = "Bye"
    page = form.submit(status=303).follow()
    assert "Saved." in page
    assert page.form["text"].value == "Bye"
    TestApp(app).get("/notes/2", status=404)


def test_all_that_the_readme_links_to_is_there_and_its_pictures_are_small() -> None:
    linked = [ROOT / path for path in re.findall(r"\]\(([\w./]+)\)", README)]
    assert [path for path in linked if not path.is_file()] == []
    sizes = [path.stat().st_size for path in linked if path.suffix == ".png"]
    assert len(sizes) == 1
    assert max(sizes) < 150_000


def test_the_readme_links_to_each_chapter_in_order() -> None:
    linked = re.findall(r"\]\(templates/guide/(\w+)\.md\)", README.split("## Where next")[1])
    assert linked == [*noventa_cli.chapters()]


def test_the_figures_of_the_readme_are_those_of_the_chapter_on_performance() -> None:
    why = README.split("## Why Noventa")[1].split("##")[0]
    figures = re.findall(r"\b\d+\.\d+\b", why)
    assert len(figures) == 9
    assert set(figures) <= {*re.findall(r"[\d.]+", noventa_cli.chapters()["performance"].text)}


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len(README.splitlines()) <= 150
    tagline = README.splitlines()[2]
    assert len(tagline.split()) <= 10
