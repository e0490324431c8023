"""The example applications work on every database and are as short as their README says."""

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
NOT_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENDMARKER,
}  # fmt: skip


@pytest.fixture(params=NAMES)
def application(request, tmp_path):
    """A copy of an application, like a fresh clone, with a secret key."""
    ignore = shutil.ignore_patterns("*.db*", "secret.key", "__pycache__", ".*_cache")
    root = shutil.copytree(APPLICATIONS / request.param, tmp_path / request.param, ignore=ignore)
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
def test_the_applications_tests_pass_and_check_finds_no_problem(
    application, database, monkeypatch, capsys
):
    run(application, "-m", "pytest", "-q", NOVENTA_TEST_DATABASE=database)
    monkeypatch.setenv("DATABASE_URL", database)  # migrated by the application's tests
    assert main(["--project", str(application), "seed"]) == 0
    assert main(["--project", str(application), "check"]) == 0
    assert capsys.readouterr().out.endswith("ok\n")


@pytest.mark.slow
def test_the_linter_finds_no_problem(application):
    ruff = ("-m", "ruff", "--isolated", "--config=line-length=100")
    run(application, *ruff, "check", "--exclude=versions", "--select=E,F,I,W,B,SIM,UP")
    run(application, *ruff, "format", "--exclude=versions", "--check")


# ---- sizes ----------------------------------------------------------------------------------


def lines_of_code(path):
    """Count the lines of a file that are not blank and, in Python, not comments or docstrings."""
    text = path.read_text("utf-8")
    if path.suffix != ".py":
        return sum(bool(line.strip()) for line in text.splitlines())
    counted = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NOT_CODE:
            counted.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                counted.difference_update(range(node.lineno, node.end_lineno + 1))
    return len(counted)


def line_counts(root):
    """Count the lines of a project's Python, templates, schema (migrations or SQL) and tests."""
    totals = dict.fromkeys(("python", "templates", "schema", "tests"), 0)
    for path in root.rglob("*.*"):
        parts = path.relative_to(root).parts
        if path.suffix in (".py", ".html", ".sql"):
            kind = {".py": "python", ".html": "templates", ".sql": "schema"}[path.suffix]
            kind = "schema" if "versions" in parts else kind
            totals["tests" if "tests" in parts else kind] += lines_of_code(path)
    return list(totals.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_lists_the_size_of_each_application(name):
    row = f"| `{name}` | {' | '.join(map(str, line_counts(APPLICATIONS / name)))} |"
    assert row in (APPLICATIONS / "README.md").read_text("utf-8").splitlines()
