"""The starter as a new user meets it: from a wheel, in a fresh environment, in a browser."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import yaml
from conftest import leave, visiting
from processes import ROOT, read_url, serving, stop

pytestmark = pytest.mark.slow

PASSWORD = "a password for the browser"


def clean_environment():
    """Return the environment variables of a new user's shell, plus the admin's password.

    pip compiles nothing: Python compiles only the modules that are imported, which is faster.
    """
    excluded = ("PYTHON", "NOVENTA", "PYTEST", "COV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(excluded)}
    return {**kept, "NOVENTA_ADMIN_PASSWORD": PASSWORD, "PIP_COMPILE": "0"}


def run(*command, cwd):
    ended = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=clean_environment(),
        timeout=300,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("newcomer")


@pytest.fixture(scope="module")
def wheel(place):
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", place, ROOT, cwd=place)
    (built,) = place.glob("noventa_wsgi-*.whl")
    return built


@pytest.fixture(scope="module")
def first_command(place):
    """The output of the README's first command in a fresh environment, until it serves a page."""
    copy, scripts = place / "readme" / "noventa", place / "venv" / "bin"
    ignore = shutil.ignore_patterns(".git", ".venv", ".*cache", "__pycache__", "build")
    shutil.copytree(ROOT, copy, ignore=ignore)
    venv.create(place / "venv", with_pip=False)
    readme = (copy / "README.md").read_text()
    command = re.search(r"^\$ (pip install \. && .+ --serve)$", readme, re.M)[1]
    environment = clean_environment() | {"PYTHONUNBUFFERED": "1"}
    del environment["NOVENTA_ADMIN_PASSWORD"]
    environment["PIP_PYTHON"] = str(scripts / "python")  # the environment has no pip
    folders = (scripts, Path(sys.executable).parent, environment["PATH"])
    environment["PATH"] = os.pathsep.join(map(str, folders))
    shell = subprocess.Popen(
        ["bash", "-c", command.replace("&& ", "&& exec ")],  # so the server gets the signal
        cwd=copy,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        lines = []
        with urlopen(read_url(shell, lines), timeout=10) as page:
            assert "Ada Lovelace" in page.read().decode()
        assert stop(shell) == 0
    finally:
        stop(shell)
    return "".join(lines)


@pytest.fixture(scope="module")
def python(place, wheel, first_command):
    """The interpreter of the same environment, with the wheel and the test dependencies."""
    python = place / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    run(*pip, "--force-reinstall", "--no-deps", wheel, cwd=place)
    run(*pip, "pytest", "webtest", "types-WebOb", cwd=place)
    return python


@pytest.fixture(scope="module")
def new_output(place, python):
    """The output of `noventa new hello`."""
    return run(python.with_name("noventa"), "new", "hello", cwd=place)


@pytest.fixture(scope="module")
def server(place, python, new_output):
    with serving(place / "hello", python=str(python), env=clean_environment()) as server:
        yield server


def mask_variables(text, folder):
    """Replace everything that differs between machines and runs."""
    text = re.sub(r"^ +\w+ing .+ …\n", "", text, flags=re.MULTILINE)  # printed only by slow steps
    patterns = (re.escape(str(folder)), r"[0-9a-f]{12}(?=[_ ])", r"\d+\.\d\d s", r"password\s+\S+")
    for number, pattern in enumerate(patterns):
        text = re.sub(pattern, f"<{number}>", text)
    return text


def test_the_readmes_first_command_prints_the_documented_output_and_serves(first_command, place):
    printed, readme = first_command, (ROOT / "README.md").read_text("utf-8")
    documented = re.search(r"```text\n(hello is ready.*?)```", readme, re.DOTALL)[1]
    assert mask_variables(printed[printed.index("hello is") :], place / "readme") == mask_variables(
        documented, "/home/ada"
    )


def test_new_prints_each_step_and_the_next_ones(new_output, place):
    steps = (
        "Creating",
        "first migration",
        "Applying the migration",
        "Running the tests",
        "27 passed",
    )
    last = ("Adding the first rows", "cd hello", "noventa serve", "admin@example.com")
    places = [new_output.index(step) for step in (*steps, *last)]
    assert places == sorted(places)
    assert PASSWORD not in new_output
    (revision,) = (place / "hello" / "migrations" / "versions").glob("*.py")
    assert "users" in revision.read_text()


def test_the_projects_tests_pass(python, new_output, place):
    assert "27 passed" in run(python, "-m", "pytest", "-q", cwd=place / "hello")


def test_the_github_workflow_passes_in_a_clone(python, new_output, place, tmp_path):
    run("git", "init", "-q", cwd=place / "hello")
    run("git", "add", "-A", cwd=place / "hello")
    run("git", "checkout-index", "-a", f"--prefix={tmp_path}/", cwd=place / "hello")
    jobs = yaml.safe_load((tmp_path / ".github" / "workflows" / "tests.yml").read_text())["jobs"]
    commands = [step["run"] for step in jobs["tests"]["steps"] if "run" in step]
    assert len(commands) == 5
    path = f"PATH={python.parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands:  # the fresh environment has no pip
        run("env", path, f"PIP_PYTHON={python}", "bash", "-ec", command, cwd=tmp_path)


def test_check_finds_no_problem(python, new_output, place):
    command = (python, "-m", "noventa", "--project", "hello", "check")
    assert run(*command, cwd=place).endswith("ok\n")


def test_the_wheel_contains_the_guide_without_its_pictures(python, wheel, place):
    assert run(python, "-m", "noventa", "help", "registry", cwd=place).startswith("# The registry")
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if "/guide/" in name}
    chapters = (ROOT / "templates" / "guide").glob("*.md")
    assert {name.rpartition("/")[2] for name in shipped} == {path.name for path in chapters}


def test_the_packages_readme_has_no_relative_links(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    text = archive.read(name).decode().partition("\n\n")[2]
    assert text.startswith("# Noventa")
    assert "Start: `first_steps`, `registry`," in text
    assert "](" not in text


def test_the_linter_finds_no_problem(new_output, place):
    for arguments in (["check"], ["format", "--check", "--exclude", "migrations/versions"]):
        run(sys.executable, "-m", "ruff", *arguments, "--isolated", cwd=place / "hello")


def mypy_output(python, root):
    """Return mypy's output for a project, using the packages installed for `python`."""
    command = [sys.executable, "-m", "mypy", "--python-executable", python]
    ended = subprocess.run(
        [*command, "registry.py", "wsgi.py"], cwd=root, env=clean_environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return ended.stdout + ended.stderr


def test_the_wheels_types_let_mypy_find_mistakes_in_a_project(python, new_output, place, tmp_path):
    root = shutil.copytree(place / "hello", tmp_path / "hello")
    assert "Success: no issues found" in mypy_output(python, root)
    chapter = (ROOT / "templates" / "guide" / "registry.md").read_text("utf-8")
    handler = re.search(r"(# functions/users_json.py.*?)```", chapter, re.DOTALL)[1]
    (root / "functions" / "users_json.py").write_text(handler)
    assert "Success: no issues found" in mypy_output(python, root)
    wrong = handler.replace("user.name", "session.flash(user.id)")
    (root / "functions" / "users_json.py").write_text(f"{wrong}\n\nSession.flsh\n")
    output = mypy_output(python, root)
    assert 'Argument 1 to "flash" of "Session" has incompatible type "int"' in output
    assert '"type[Session]" has no attribute "flsh"' in output
    (root / "wsgi.py").write_text("from noventa import App\n\nApp(debug=True)\n")
    assert 'Unexpected keyword argument "debug" for "App"' in mypy_output(python, root)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/", "Ada Lovelace"),
        ("/users/1", "Email address"),
        ("/sign-in", "Email address"),
        ("/account", "Email address"),
        ("/files/site.css", "prefers-color-scheme"),
    ],
)
def test_every_page_is_served(path, text, server):
    with urlopen(server.url + path, timeout=10) as response:
        assert text in response.read().decode()


def test_the_users_are_served_as_json(server):
    with urlopen(f"{server.url}/api/users.json", timeout=10) as response:
        assert {"id": 1, "name": "Admin"} in json.load(response)


def test_an_unknown_page_returns_404(server):
    with pytest.raises(HTTPError, match="404"):
        urlopen(f"{server.url}/nothing", timeout=10)


# ---- in a browser ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def artifacts(place):
    folder = Path(os.environ.get("NOVENTA_ARTIFACTS") or place / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    print(f"screenshots: {folder}")
    return folder


def sign_in(page):
    page.goto("/sign-in")
    page.get_by_label("Email address").fill("admin@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    leave(page, page.get_by_role("button", name="Sign in"))
    assert page.url.endswith("/account")


def test_a_user_can_be_renamed_in_the_browser(chromium, server, artifacts):
    with visiting(chromium, server) as page:
        sign_in(page)
        page.goto("/")
        page.screenshot(path=artifacts / "people.png")
        leave(page, page.get_by_role("link", name="Ada Lovelace"))
        assert page.get_by_label("Name").count() == 0
        leave(page, page.get_by_label("Path").get_by_role("link", name="People"))
        leave(page, page.get_by_role("link", name="Admin"))
        page.get_by_label("Name").fill("Ada <b>King</b>")
        leave(page, page.get_by_role("button", name="Save"))
        flash = page.get_by_role("status")
        assert flash.inner_text() == "Saved. The name is now Ada <b>King</b>."
        page.screenshot(path=artifacts / "saved.png")
        page.reload()
        assert flash.count() == 0
        assert page.get_by_role("heading", level=1).inner_text() == "Ada <b>King</b>"
        leave(page, page.get_by_label("Path").get_by_role("link", name="People"))
        assert page.get_by_role("link", name="Ada <b>King</b>").count() == 1


def test_a_user_can_sign_in_and_out_in_the_browser(chromium, server, artifacts):
    with visiting(chromium, server) as page:
        page.goto("/account")
        assert page.get_by_role("status").inner_text() == "Please sign in first."
        sign_in(page)
        assert "admin@example.com" in page.locator("main").inner_text()
        page.screenshot(path=artifacts / "account.png")
        leave(page, page.get_by_role("button", name="Sign out"))
        assert page.get_by_role("status").inner_text() == "You have signed out."
        page.goto("/account")
        assert page.url.endswith("/sign-in")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_fit_a_phone(scheme, chromium, server, artifacts):
    size = {"width": 360, "height": 740}
    with visiting(chromium, server, viewport=size, color_scheme=scheme) as page:
        sign_in(page)
        for name, path in {"people": "/", "profile": "/users/1", "sign-in": "/sign-in"}.items():
            page.goto(path)
            page.screenshot(path=artifacts / f"{name}-{scheme}-phone.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
