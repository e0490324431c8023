"""The guide is correct: every block of a chapter runs, in order, in a project.

The first line of a chapter names the project: `<!-- project: starter -->`, `empty` or `none`. A
block whose first line is a comment with a file name is written to that file (`config.yaml` is
merged). Other Python blocks run as scripts of the project and must print the ```text block that
follows. In ```console blocks, each `$ command` must exit with 0, or with the code of a trailing
`# exits 1`. Each line below it must occur in its output; `…` matches anything. Blocks with
`no-run` after their language are skipped.
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
FILE_COMMENT = re.compile(r"(?:# |<!-- |\{# |/\* |// )([\w./-]+\.\w+)(?: -->| #\}| \*/)?")
OUTPUT = {"text"}  # the output of the previous block
QUICK_PYTEST = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p no:cacheprovider"}


class Block(NamedTuple):
    """A fenced block of a chapter: its language, its location and its text."""

    language: str
    location: str
    text: str

    @property
    def file(self) -> str | None:
        """The file named in its first line."""
        named = FILE_COMMENT.fullmatch(self.text.partition("\n")[0])
        return named[1] if named else None


def blocks(name: str) -> Iterator[Block]:
    """Yield the blocks of a chapter that run, in order."""
    text = (GUIDE / f"{name}.md").read_text("utf-8")
    for found in re.finditer(r"^```(\S+)( no-run)?\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if not found[2]:
            line = text.count("\n", 0, found.start()) + 1
            yield Block(found[1], f"{name}.md, line {line}", found[3])


def project_kind(name: str) -> str:
    first_line = (GUIDE / f"{name}.md").read_text("utf-8").partition("\n")[0]
    found = re.fullmatch(r"<!-- project: (empty|starter|none) -->", first_line)
    assert found, f"{name}.md: the first line names no project"
    return found[1]


def run_command(root: Path, command: str) -> tuple[int, str]:
    """Run a console line (`noventa` in this process) and return its exit code and output."""
    words, output = shlex.split(command, comments=True), io.StringIO()
    if words[:3] == ["python", "-m", "noventa"] and not set("|&;<>$`*") & set(command):
        with redirect_stdout(output), redirect_stderr(output):
            return main(["--project", str(root), *words[3:]]), output.getvalue()
    python = f'python() {{ {shlex.quote(sys.executable)} "$@"; }}\n'
    completed = subprocess.run(
        ["bash", "-c", python + command], cwd=root, env=environment(**QUICK_PYTEST), timeout=120,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return completed.returncode, completed.stdout


def run_console(root: Path, block: Block) -> None:
    output = ""
    for line in filter(str.strip, block.text.splitlines()):
        if line.startswith("$ "):
            expected = re.search(r"# exits (\d+)$", line)
            code, output = run_command(root, line[2:])
            assert code == int(expected[1] if expected else 0), (
                f"{block.location}: {line}\n{output}"
            )
        else:
            words = [".*".join(map(re.escape, word.split("…"))) for word in line.split()]
            pattern = " +".join(words)
            assert re.search(pattern, output), f"{block.location}: {line}\nis not in\n{output}"


def stripped(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def run_script(root: Path, block: Block, expected: str | None) -> None:
    script = root.parent / "script.py"
    script.write_text(block.text, "utf-8")
    code, output = run_command(root, f"python -m noventa run {shlex.quote(str(script))}")
    assert code == 0, f"{block.location}:\n{output}"
    if expected is not None:
        assert stripped(output) == stripped(expected), block.location


def merged(base: dict, override: dict) -> dict:
    """Merge the mappings of two YAML files; the second takes precedence."""
    for key, value in override.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        base[key] = merged(base[key], value) if both else value
    return base


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
    """Return a folder where one project of each kind is created on demand."""
    return tmp_path_factory.mktemp("projects")


def copy_project(projects: Path, kind: str, root: Path) -> Path:
    """Create a new project at `root` by copying one of its kind."""
    if kind == "none":
        root.mkdir()
        return root
    origin = projects / kind / root.name
    if not origin.exists():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(noventa_cli, "_run_tests", lambda _: 0)  # run by other tests
            assert main(["new", str(origin), *(["--empty"] if kind == "empty" else [])]) == 0
        if kind == "starter":  # cheap hashes are enough for tests
            passwords = origin / "functions" / "passwords.py"
            passwords.write_text(passwords.read_text("utf-8").replace("2**17", "2**4"), "utf-8")
    return shutil.copytree(origin, root)


def follow(root: Path, found: list[Block]) -> None:
    """Run the blocks of a chapter one by one."""
    for block, after in zip(found, [*found[1:], None], strict=True):
        if block.file:
            write_block(root, block)
        elif block.language == "console":
            run_console(root, block)
        elif block.language == "python":
            expected = after.text if after and after.language in OUTPUT else None
            run_script(root, block, expected)
        else:
            assert block.language in OUTPUT, (
                f"{block.location}: names no file; write one, or no-run"
            )


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in noventa_cli.chapters() if n != "reference"])
def test_a_chapter_can_be_followed_and_leaves_a_valid_project(
    name, projects, tmp_path, monkeypatch
):
    kind = project_kind(name)
    root = copy_project(projects, kind, tmp_path / "hello")
    monkeypatch.chdir(root)
    found = [*blocks(name)]
    follow(root, found)
    ends_with_tests = "$ python -m pytest -q\n" in found[-1].text
    for command in () if kind == "none" else ("python -m noventa check", "python -m pytest -q"):
        if command != "python -m pytest -q" or not ends_with_tests:
            code, output = run_command(root, command)
            assert code == 0, f"{name}.md: {command}\n{output}"


# ---- documented names -----------------------------------------------------------------------


def spans() -> set[str]:
    """Return the words in backquotes in all chapters; settings and options are kept whole."""
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
PUBLIC_NAMES = {
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


@pytest.mark.parametrize("subject", PUBLIC_NAMES)
def test_every_public_name_is_documented_in_some_chapter(subject):
    assert PUBLIC_NAMES[subject] - spans() == set()


def test_the_table_of_commands_matches_the_parser():
    text = noventa_cli.chapters()["first_steps"].text.partition("## The commands")[2]
    rows = re.findall(r"^\| `([a-z]+(?: component)?)(.*?)` \|", text, re.MULTILINE)
    assert [name for name, _ in rows] == [*noventa_cli.COMMANDS]
    for name, usage in rows:
        flags = {flag for flag in noventa_cli.COMMANDS[name] if flag.startswith("--")}
        assert set(re.findall(r"--[a-z]+", usage)) == flags, name


def test_every_linked_chapter_exists():
    known = noventa_cli.chapters()
    links = [
        link
        for chapter in known.values()
        for link in re.findall(r"\[(\w+)\]\((.+?)\)", chapter.text)
    ]
    linked = {name for name, target in links if target == f"{name}.md"}
    assert len(linked) > 10
    assert linked <= known.keys()


def test_help_shows_a_link_as_the_command_for_its_chapter(capsys):
    assert main(["help", "registry"]) == 0
    output = capsys.readouterr().out
    assert "`help errors`" in output
    assert ".md)" not in output


def test_the_readme_of_the_guide_links_each_chapter_by_its_title():
    index = (GUIDE / "README.md").read_text("utf-8")
    links = re.findall(r"^- \[(.+)\]\((\w+)\.md\)$", index, re.MULTILINE)
    known = noventa_cli.chapters()
    assert sorted(links) == sorted((chapter.title, name) for name, chapter in known.items())


def test_each_chapter_ends_with_a_link_to_the_next():
    known = noventa_cli.chapters()
    for name, (following, chapter) in zip(known, [*known.items()][1:], strict=False):
        last = known[name].text.rpartition("\n\n")[2]
        assert last == f"Next: [{chapter.title}]({following}.md)\n", name


def test_each_chapter_can_be_read_in_ten_minutes():
    words = {name: len(one.text.split()) for name, one in noventa_cli.chapters().items()}
    del words["reference"]  # is searched, not read
    assert {name: count for name, count in words.items() if count > 2_550} == {}


# ---- the help command -----------------------------------------------------------------------


def test_help_lists_the_chapters_in_order_and_shows_a_chapter(capsys):
    assert main(["help"]) == 0
    output = capsys.readouterr().out
    assert re.findall(r"^  (\w+)  +\S", output, re.MULTILINE) == [*noventa_cli.chapters()]
    assert main(["help", "registry"]) == 0
    assert capsys.readouterr().out.startswith("# The registry\n")


def test_help_suggests_the_nearest_chapter_for_a_misspelt_one(capsys):
    assert main(["help", "registri"]) == 2
    assert "help: unknown chapter 'registri'; did you mean 'registry'?" in capsys.readouterr().err


def test_help_lists_the_chapters_that_mention_an_unknown_word(capsys):
    assert main(["help", "getlist"]) == 2
    assert "unknown chapter 'getlist'; it is mentioned in: forms, " in capsys.readouterr().err


def test_help_needs_no_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["help"]) == 0


@pytest.mark.slow
def test_a_chapter_is_paged_and_word_wrapped_on_a_terminal(tmp_path):
    write_project(tmp_path)
    command = f"stty columns 60; PAGER='sed s/^/:/' {sys.executable} -m noventa help registry"
    output = subprocess.run(
        ["script", "-qec", command, os.devnull], env=environment(TERM="xterm", COLUMNS="60"),
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    lines = output.replace("\r", "").splitlines()
    assert lines[0] == ":# The registry"
    prose = [line for line in lines if not line.startswith((": ", ":|", ":$"))]
    assert max(map(len, prose)) <= 61
