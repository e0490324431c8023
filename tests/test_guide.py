"""The guide says what is so: every block of a chapter runs, in its order, in a project.

The first line of a chapter names the project: `<!-- project: starter -->`, `empty` or `none`. A
block whose first line is a comment naming a file is written there (`config.yaml` is merged). Other
Python runs as a script of the project, and prints what the ```text block after it says. Of
```console, each `$ command` ends with 0, or as `# exits 1` behind it says; each line below must
occur in what it printed, and `…` there stands for anything. `no-run` behind a language: not run.
"""

from __future__ import annotations

import inspect
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from processes import ROOT, environment, write_project

import noventa
import noventa_cli
from noventa_cli import main

GUIDE = ROOT / "templates" / "guide"
NAMED = re.compile(r"(?:# |<!-- |\{# |/\* |// )([\w./-]+\.\w+)(?: -->| #\}| \*/)?")
OUTPUT = {"text"}  # belongs to the block before it
QUICK = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p no:cacheprovider"}


class Block(NamedTuple):
    """A fenced block of a chapter: its language, where it stands, and its text."""

    language: str
    place: str
    text: str

    @property
    def file(self) -> str | None:
        """The file that its first line names."""
        named = NAMED.fullmatch(self.text.partition("\n")[0])
        return named[1] if named else None


def blocks(name: str) -> Iterator[Block]:
    """Those of a chapter that run, in its order."""
    text = (GUIDE / f"{name}.md").read_text("utf-8")
    for found in re.finditer(r"^```(\S+)( no-run)?\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if not found[2]:
            line = text.count("\n", 0, found.start()) + 1
            yield Block(found[1], f"{name}.md, line {line}", found[3])


def kind_of(name: str) -> str:
    first_line = (GUIDE / f"{name}.md").read_text("utf-8").partition("\n")[0]
    found = re.fullmatch(r"<!-- project: (empty|starter|none) -->", first_line)
    assert found, f"{name}.md: the first line names no project"
    return found[1]


def answer_of(root: Path, command: str) -> tuple[int, str]:
    """The exit code of a line of a console and what it printed; Noventa's run in this process."""
    words, printed = shlex.split(command, comments=True), io.StringIO()
    if words[:3] == ["python", "-m", "noventa"] and not set("|&;<>$`*") & set(command):
        with redirect_stdout(printed), redirect_stderr(printed):
            return main(["--project", str(root), *words[3:]]), printed.getvalue()
    python = f'python() {{ {shlex.quote(sys.executable)} "$@"; }}\n'
    ended = subprocess.run(
        ["bash", "-c", python + command], cwd=root, env=environment(**QUICK), timeout=120,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return ended.returncode, ended.stdout


def run_console(root: Path, block: Block) -> None:
    printed = ""
    for line in filter(str.strip, block.text.splitlines()):
        if line.startswith("$ "):
            expected = re.search(r"# exits (\d+)$", line)
            code, printed = answer_of(root, line[2:])
            assert code == int(expected[1] if expected else 0), f"{block.place}: {line}\n{printed}"
        else:
            words = [".*".join(map(re.escape, word.split("…"))) for word in line.split()]
            pattern = " +".join(words)
            assert re.search(pattern, printed), f"{block.place}: {line}\nis not in\n{printed}"


def stripped(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def run_script(root: Path, block: Block, expected: str | None) -> None:
    script = root.parent / "script.py"
    script.write_text(block.text, "utf-8")
    code, printed = answer_of(root, f"python -m noventa run {shlex.quote(str(script))}")
    assert code == 0, f"{block.place}:\n{printed}"
    if expected is not None:
        assert stripped(printed) == stripped(expected), block.place


def merged(below: dict, above: dict) -> dict:
    """The mappings of two YAML files, the second over the first."""
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        below[key] = merged(below[key], value) if both else value
    return below


def write_block(root: Path, block: Block) -> None:
    path, text = root / str(block.file), block.text
    if block.file == "config.yaml":
        text = yaml.safe_dump(merged(yaml.safe_load(path.read_text("utf-8")), yaml.safe_load(text)))
    elif block.language in ("html", "jinja"):
        text = text.partition("\n")[2]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the project of each kind is made once, when it is asked for."""
    return tmp_path_factory.mktemp("projects")


def made(projects: Path, kind: str, root: Path) -> Path:
    """A copy of a new project at `root`."""
    if kind == "none":
        root.mkdir()
        return root
    origin = projects / kind / root.name
    if not origin.exists():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(noventa_cli, "_run_tests", lambda _: 0)  # other tests see that they pass
            assert main(["new", str(origin), *(["--empty"] if kind == "empty" else [])]) == 0
        if kind == "starter":  # nobody attacks the passwords of these tests
            passwords = origin / "functions" / "passwords.py"
            passwords.write_text(passwords.read_text("utf-8").replace("2**17", "2**4"), "utf-8")
    return shutil.copytree(origin, root)


def follow(root: Path, found: list[Block]) -> None:
    """Does what a chapter says, block by block."""
    for block, after in zip(found, [*found[1:], None], strict=True):
        if block.file:
            write_block(root, block)
        elif block.language == "console":
            run_console(root, block)
        elif block.language == "python":
            expected = after.text if after and after.language in OUTPUT else None
            run_script(root, block, expected)
        else:
            assert block.language in OUTPUT, f"{block.place}: names no file; write one, or no-run"


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in noventa_cli.chapters() if n != "reference"])
def test_a_chapter_can_be_followed_and_leaves_a_sound_project(
    name, projects, tmp_path, monkeypatch
):
    kind = kind_of(name)
    root = made(projects, kind, tmp_path / "hello")
    monkeypatch.chdir(root)
    found = [*blocks(name)]
    follow(root, found)
    ends_with_tests = "$ python -m pytest -q\n" in found[-1].text
    for command in () if kind == "none" else ("python -m noventa check", "python -m pytest -q"):
        if command != "python -m pytest -q" or not ends_with_tests:
            code, printed = answer_of(root, command)
            assert code == 0, f"{name}.md: {command}\n{printed}"


# ---- what it names --------------------------------------------------------------------------


def spans() -> set[str]:
    """The words in backquotes of all chapters, settings and options whole."""
    text = "\n".join(chapter.text for chapter in noventa_cli.chapters().values())
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    for span in re.findall(r"`([^`\n]+)`", prose):
        found.update(re.findall(r"--[\w-]+|[\w]+(?:\.\w+)*", span), re.findall(r"\w+", span))
    return found


def commands() -> Iterator[str]:
    for name, arguments in noventa_cli.COMMANDS.items():
        yield from name.split()
        yield from (flag for flag in arguments if flag.startswith("--"))


def arguments(*classes: type) -> set[str]:
    names = {name for cls in classes for name in inspect.signature(cls).parameters}
    return names - {"where"}


ENTRIES = (noventa.Component, noventa.Page, noventa.Endpoint, noventa.Mount, noventa.Static)
PROMISED = {
    "settings": {setting.name for setting in noventa.SETTINGS},
    "commands": {*commands()},
    "templates": {*noventa._FUNCTIONS, "instance", "children", "errors", "values", "key"},
    "module": {*noventa.__all__},
    "registry": arguments(noventa.Registry, *ENTRIES) | {"metadata"},
    "handlers": {"_status", "_redirect", *arguments(noventa.reply, noventa.redirect)},
    "app": {"config", "database", "registry", "sessions", "render", "act", "count_queries"},
    "request": {"args", "form", "files", "json", "cookies", "view_args", "app", "getlist"},
    "session": {"flash", "rotate", "clear"},
    "upload": {"filename", "content_type", "file"},
    "database": {"session", "sandbox", "engine"},
}  # fmt: skip


@pytest.mark.parametrize("subject", PROMISED)
def test_every_name_is_in_backquotes_in_some_chapter(subject):
    assert PROMISED[subject] - spans() == set()


def test_the_table_of_commands_is_that_of_the_parser():
    text = noventa_cli.chapters()["first_steps"].text.partition("## The commands")[2]
    rows = re.findall(r"^\| `([a-z]+(?: component)?)(.*?)` \|", text, re.MULTILINE)
    assert [name for name, _ in rows] == [*noventa_cli.COMMANDS]
    for name, shown in rows:
        flags = {flag for flag in noventa_cli.COMMANDS[name] if flag.startswith("--")}
        assert set(re.findall(r"--[a-z]+", shown)) == flags, name


def test_a_chapter_that_is_pointed_to_is_there():
    known = noventa_cli.chapters()
    links = [link for one in known.values() for link in re.findall(r"\[(\w+)\]\((.+?)\)", one.text)]
    named = {name for name, target in links if target == f"{name}.md"}
    assert len(named) > 10
    assert named <= known.keys()


def test_help_shows_a_link_as_the_command_that_shows_its_chapter(capsys):
    assert main(["help", "registry"]) == 0
    shown = capsys.readouterr().out
    assert "`help errors`" in shown
    assert ".md)" not in shown


def test_the_index_for_a_code_host_links_each_chapter_by_its_title():
    index = (GUIDE / "README.md").read_text("utf-8")
    links = re.findall(r"^- \[(.+)\]\((\w+)\.md\)$", index, re.MULTILINE)
    known = noventa_cli.chapters()
    assert sorted(links) == sorted((one.title, name) for name, one in known.items())


# ---- how it is shown ------------------------------------------------------------------------


def test_help_lists_the_chapters_in_order_and_shows_one(capsys):
    assert main(["help"]) == 0
    shown = capsys.readouterr().out
    assert re.findall(r"^  (\w+)  +\S", shown, re.MULTILINE) == [*noventa_cli.chapters()]
    assert main(["help", "registry"]) == 0
    assert capsys.readouterr().out.startswith("# The registry\n")


def test_a_misspelt_chapter_is_answered_with_the_nearest(capsys):
    assert main(["help", "registri"]) == 2
    assert "help: unknown chapter 'registri'; did you mean 'registry'?" in capsys.readouterr().err


def test_of_a_word_that_is_no_chapter_help_says_which_chapters_have_it(capsys):
    assert main(["help", "getlist"]) == 2
    assert "unknown chapter 'getlist'; it is mentioned in: forms, " in capsys.readouterr().err


def test_help_needs_no_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["help"]) == 0


@pytest.mark.slow
def test_a_chapter_is_paged_and_broken_between_words_on_a_terminal(tmp_path):
    write_project(tmp_path)
    command = f"stty columns 60; PAGER='sed s/^/:/' {sys.executable} -m noventa help registry"
    shown = subprocess.run(
        ["script", "-qec", command, os.devnull], env=environment(TERM="xterm", COLUMNS="60"),
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    lines = shown.replace("\r", "").splitlines()
    assert lines[0] == ":# The registry"
    prose = [line for line in lines if not line.startswith((": ", ":|", ":$"))]
    assert max(map(len, prose)) <= 61
