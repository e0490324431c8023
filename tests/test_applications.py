"""The applications that a reader learns from: sound on each database, and as short as they say."""

import ast
import io
import shutil
import subprocess
import sys
import tokenize

import pytest
from processes import KEY, ROOT, environment

from noventa_cli import main

APPLICATIONS = ROOT / "tests" / "applications"
NAMES = ["flaskr", "tracker"]
NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENDMARKER,
}  # fmt: skip


@pytest.fixture(params=NAMES)
def application(request, tmp_path):
    """A copy of an application, as a fresh clone of it is made ready: with a key."""
    left = shutil.ignore_patterns("*.db*", "secret.key", "__pycache__", ".*_cache")
    root = shutil.copytree(APPLICATIONS / request.param, tmp_path / request.param, ignore=left)
    (root / "secret.key").write_text(KEY)
    return root


def run(root, *command, **variables):
    ended = subprocess.run(
        [sys.executable, *command], cwd=root, env=environment(**variables), timeout=300,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_the_applications_own_tests_pass_and_check_is_content(
    application, database, monkeypatch, capsys
):
    run(application, "-m", "pytest", "-q", NOVENTA_TEST_DATABASE=database)
    monkeypatch.setenv("DATABASE_URL", database)  # which they have migrated
    assert main(["--project", str(application), "seed"]) == 0
    assert main(["--project", str(application), "check"]) == 0
    assert capsys.readouterr().out.endswith("ok\n")


@pytest.mark.slow
def test_the_linter_has_nothing_to_say(application):
    ruff = ("-m", "ruff", "--isolated", "--config=line-length=100")
    run(application, *ruff, "check", "--exclude=versions", "--select=E,F,I,W,B,SIM,UP")
    run(application, *ruff, "format", "--exclude=versions", "--check")


# ---- how long they are ----------------------------------------------------------------------


def lines_of_code(path):
    """Those that are not blank, and of Python no comment or docstring."""
    text = path.read_text("utf-8")
    if path.suffix != ".py":
        return sum(bool(line.strip()) for line in text.splitlines())
    counted = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            counted.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                counted.difference_update(range(node.lineno, node.end_lineno + 1))
    return len(counted)


def figures(root):
    """Lines of a project's Python, templates, schema (migrations or SQL) and tests."""
    totals = dict.fromkeys(("python", "templates", "schema", "tests"), 0)
    for path in root.rglob("*.*"):
        parts = path.relative_to(root).parts
        if path.suffix in (".py", ".html", ".sql"):
            kind = {".py": "python", ".html": "templates", ".sql": "schema"}[path.suffix]
            kind = "schema" if "versions" in parts else kind
            totals["tests" if "tests" in parts else kind] += lines_of_code(path)
    return list(totals.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_says_how_long_an_application_is(name):
    row = f"| `{name}` | {' | '.join(map(str, figures(APPLICATIONS / name)))} |"
    assert row in (APPLICATIONS / "README.md").read_text("utf-8").splitlines()
