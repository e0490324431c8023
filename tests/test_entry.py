"""The entry point: argument parsing, help, exit codes and output."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint

import pytest
from processes import ROOT, environment, noventa, terminal, write_project

import noventa_cli
from noventa_cli import main


@pytest.mark.parametrize("command", noventa_cli.COMMANDS)
def test_the_help_of_a_command_is_its_docstring(command, capsys):
    assert main([*command.split(), "--help"]) == 0
    name = {"help": "guide"}.get(command, command.replace(" ", "_"))
    first_line = getattr(noventa_cli, name).__doc__.splitlines()[0]
    assert first_line in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_running_without_a_command_shows_the_help(argv, capsys):
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "COMMAND" in out
    assert re.search(r"Database:\n  migrate +\w.+\n  seed +\w.+\n\nInspect:\n  check +\w", out)


def test_each_command_belongs_to_one_group():
    assert sorted(sum(noventa_cli.GROUPS.values(), ())) == sorted(noventa_cli.COMMANDS)


def test_run_requires_a_file(capsys):
    assert main(["run"]) == 2
    assert "required: FILE\n" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_prints_no_error(unbuffered):
    reader, writer = os.pipe()
    os.close(reader)  # like `| head`
    command = [sys.executable, "-m", "noventa", "help", "forms"]
    env = environment(PYTHONUNBUFFERED=unbuffered)
    with os.fdopen(writer) as stdout:
        ended = subprocess.run(command, stdout=stdout, stderr=-1, env=env, check=False)
    assert ended.stderr == b""


def test_the_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "noventa 0.2.0\n"


def test_the_changelog_starts_with_the_current_version():
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(r"^## (\S+)", changelog, re.MULTILINE)[1] == noventa_cli.__version__


@pytest.mark.parametrize(
    "argv",
    [
        ["serve", "--port", "eighty"],
        ["serve", "--prot", "80"],
        ["new"],
        ["routes", "more"],
        ["routes", "--project"],
    ],
)
def test_wrong_usage_returns_2(argv, capsys):
    assert main(argv) == 2
    assert "usage: noventa" in capsys.readouterr().err


def test_a_misspelt_command_suggests_the_nearest_one(capsys):
    assert main(["srve"]) == 2
    assert "unknown command 'srve'; did you mean 'serve'?" in capsys.readouterr().err


def test_an_error_the_user_can_fix_prints_one_message_and_returns_1(tmp_path, capsys):
    assert main(["--project", str(tmp_path), "routes"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{tmp_path}/config.yaml does not exist; ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "argv",
    [["--project", "{}", "routes"], ["routes", "--project", "{}"], ["routes", "--project={}"]],
)
def test_the_project_option_is_accepted_before_and_after_the_command(argv, tmp_path, capsys):
    write_project(tmp_path)
    assert main([argument.format(tmp_path) for argument in argv]) == 0
    assert "pages/index.html" in capsys.readouterr().out


def test_migrate_passes_its_arguments_on_unchanged(tmp_path, monkeypatch):
    write_project(tmp_path)
    received = []
    monkeypatch.setattr(
        noventa_cli, "migrate", lambda _, arguments: received.append(arguments) or 0
    )
    verb = ["-x", "allow_drop=1", "revision", "--autogenerate", "-m", "a b"]
    assert main(["migrate", "--project", str(tmp_path), *verb]) == 0
    assert main(["--project", str(tmp_path), "migrate", *verb]) == 0
    assert main(["--project", str(tmp_path), "migrate"]) == 0
    assert received == [verb, verb, []]


def test_a_misspelt_migrate_verb_returns_2(tmp_path, capsys):
    assert main(["--project", str(write_project(tmp_path)), "migrate", "upgrad", "head"]) == 2
    assert "invalid choice: 'upgrad'" in capsys.readouterr().err  # Alembic's own message
    assert main(["--project", str(tmp_path), "migrate", "upgrade"]) == 2
    assert "arguments are required: revision" in capsys.readouterr().err


def test_problems_wrap_between_words_at_the_width_of_the_terminal(tmp_path):
    text = "from noventa import Registry\n\nregistry = Registry(routes=['a', 'b'])\n"
    with terminal() as screen:
        root = write_project(tmp_path, {"registry.py": text})
        assert main(["--project", str(root), "routes"]) == 1
    head, *lines = screen.lines()
    assert head == "The registry has 2 problems:"
    assert max(map(len, lines)) <= 60
    assert " ".join(lines).count("is a str") == 2
    assert [line[:4].strip() == "" for line in lines] == [False, True, False, True]


def test_lines_do_not_wrap_in_a_pipe(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    noventa_cli.say("word " * 40)
    assert capsys.readouterr().out == "word " * 40 + "\n"


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_disabled(variable, value, monkeypatch):
    with terminal():
        assert noventa_cli.coloured("a", "red", sys.stdout) == "\x1b[31ma\x1b[0m"
        monkeypatch.setenv(variable, value)
        assert noventa_cli.coloured("a", "red", sys.stdout) == "a"


def test_an_interrupted_command_returns_130(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(noventa_cli, "check", interrupted)
    assert main(["--project", str(tmp_path), "check"]) == 130


def test_the_console_script_returns_the_exit_code(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["noventa", "srve"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    entry = EntryPoint("noventa", project["scripts"]["noventa"], "console_scripts").load()
    assert entry() == 2  # pip's script wraps it in sys.exit(…)


@pytest.mark.slow
def test_the_noventa_module_is_loaded_once(tmp_path):
    question = 'import sys\nprint("Config" in vars(sys.modules["__main__"]))\n'
    write_project(tmp_path, {"registry.py": f"{question}raise OSError('broken')\n"})
    ended = noventa("routes", cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stdout == "False\n"
    assert ended.stderr == "registry.py cannot be imported: registry.py:3: OSError: broken\n"
