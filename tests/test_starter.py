"""The starter, as a newcomer meets it: from a wheel, in a fresh environment, in a browser."""

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
    """What a newcomer's shell has: nothing of these tests, but the admin's password.

    And pip compiles nothing: Python compiles what is imported, which is far less.
    """
    ours = ("PYTHON", "NOVENTA", "PYTEST", "COV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
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
    """What the README's first command prints, in a fresh environment, until it serves its page."""
    copy, scripts = place / "readme" / "noventa", place / "venv" / "bin"
    left = shutil.ignore_patterns(".git", ".venv", ".*cache", "__pycache__", "build")
    shutil.copytree(ROOT, copy, ignore=left)
    venv.create(place / "venv", with_pip=False)
    readme = (copy / "README.md").read_text()
    command = re.search(r"^\$ (pip install \. && .+ --serve)$", readme, re.M)[1]
    environment = clean_environment() | {"PYTHONUNBUFFERED": "1"}
    del environment["NOVENTA_ADMIN_PASSWORD"]
    environment["PIP_PYTHON"] = str(scripts / "python")  # pip itself comes from ours
    folders = (scripts, Path(sys.executable).parent, environment["PATH"])
    environment["PATH"] = os.pathsep.join(map(str, folders))
    shell = subprocess.Popen(
        ["bash", "-c", command.replace("&& ", "&& exec ")],  # so that the signal meets the server
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
    """The interpreter of the same environment, with the wheel and what tests need."""
    python = place / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    run(*pip, "--force-reinstall", "--no-deps", wheel, cwd=place)
    run(*pip, "pytest", "webtest", "types-WebOb", cwd=place)
    return python


@pytest.fixture(scope="module")
def made(place, python):
    """What `noventa new hello` printed."""
    return run(python.with_name("noventa"), "new", "hello", cwd=place)


@pytest.fixture(scope="module")
def server(place, python, made):
    with serving(place / "hello", python=str(python), env=clean_environment()) as server:
        yield server


def masked(text, folder):
    """Without what differs from one machine and run to the next."""
    text = re.sub(r"^ +\w+ing .+ …\n", "", text, flags=re.MULTILINE)  # what took over a second
    patterns = (re.escape(str(folder)), r"[0-9a-f]{12}(?=[_ ])", r"\d+\.\d\d s", r"password\s+\S+")
    for number, pattern in enumerate(patterns):
        text = re.sub(pattern, f"<{number}>", text)
    return text


def test_the_first_command_of_the_readme_prints_what_stands_there_and_serves(first_command, place):
    printed, readme = first_command, (ROOT / "README.md").read_text("utf-8")
    shown = re.search(r"```text\n(hello is ready.*?)```", readme, re.DOTALL)[1]
    assert masked(printed[printed.index("hello is") :], place / "readme") == masked(
        shown, "/home/ada"
    )


def test_new_says_each_step_and_what_comes_next(made, place):
    steps = (
        "Creating",
        "first migration",
        "Applying the migration",
        "Running the tests",
        "26 passed",
    )
    last = ("Adding the first rows", "cd hello", "noventa serve", "admin@example.com")
    places = [made.index(step) for step in (*steps, *last)]
    assert places == sorted(places)
    assert PASSWORD not in made
    (revision,) = (place / "hello" / "migrations" / "versions").glob("*.py")
    assert "users" in revision.read_text()


def test_the_projects_own_tests_pass_again(python, made, place):
    assert "26 passed" in run(python, "-m", "pytest", "-q", cwd=place / "hello")


def test_what_github_is_to_run_passes_in_a_clone(python, made, place, tmp_path):
    run("git", "init", "-q", cwd=place / "hello")
    run("git", "add", "-A", cwd=place / "hello")
    run("git", "checkout-index", "-a", f"--prefix={tmp_path}/", cwd=place / "hello")
    jobs = yaml.safe_load((tmp_path / ".github" / "workflows" / "tests.yml").read_text())["jobs"]
    commands = [step["run"] for step in jobs["tests"]["steps"] if "run" in step]
    assert len(commands) == 5
    path = f"PATH={python.parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands:  # the fresh environment has no pip of its own
        run("env", path, f"PIP_PYTHON={python}", "bash", "-ec", command, cwd=tmp_path)


def test_check_is_content(python, made, place):
    command = (python, "-m", "noventa", "--project", "hello", "check")
    assert run(*command, cwd=place).endswith("ok\n")


def test_the_wheel_brings_the_guide_without_its_pictures(python, wheel, place):
    assert run(python, "-m", "noventa", "help", "registry", cwd=place).startswith("# The registry")
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if "/guide/" in name}
    ours = (ROOT / "templates" / "guide").glob("*.md")
    assert {name.rpartition("/")[2] for name in shipped} == {path.name for path in ours}


def test_the_readme_of_the_package_has_no_link_that_needs_the_repository(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    text = archive.read(name).decode().partition("\n\n")[2]
    assert text.startswith("# Noventa")
    assert "Start: `first_steps`, `registry`," in text
    assert "](" not in text


def test_the_linter_has_nothing_to_say(made, place):
    for arguments in (["check"], ["format", "--check", "--exclude", "migrations/versions"]):
        run(sys.executable, "-m", "ruff", *arguments, "--isolated", cwd=place / "hello")


def types_checked(python, root):
    """What mypy says of a project, with what is installed beside `python`."""
    command = [sys.executable, "-m", "mypy", "--python-executable", python]
    ended = subprocess.run(
        [*command, "registry.py", "wsgi.py"], cwd=root, env=clean_environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return ended.stdout + ended.stderr


def test_the_wheel_brings_the_types_by_which_mypy_finds_a_mistake_in_a_project(
    python, made, place, tmp_path
):
    root = shutil.copytree(place / "hello", tmp_path / "hello")
    assert "Success: no issues found" in types_checked(python, root)
    readme = (ROOT / "README.md").read_text("utf-8")
    handler = re.search(r"```python\n(# functions/users_json.py.*?)```", readme, re.DOTALL)[1]
    (root / "functions" / "users_json.py").write_text(handler)
    assert "Success: no issues found" in types_checked(python, root)
    wrong = handler.replace("user.name", "session.flash(user.id)")
    (root / "functions" / "users_json.py").write_text(f"{wrong}\n\nSession.flsh\n")
    said = types_checked(python, root)
    assert 'Argument 1 to "flash" of "Session" has incompatible type "int"' in said
    assert '"type[Session]" has no attribute "flsh"' in said
    (root / "wsgi.py").write_text("from noventa import App\n\nApp(debug=True)\n")
    assert 'Unexpected keyword argument "debug" for "App"' in types_checked(python, root)


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
def test_the_pages_are_served(path, text, server):
    with urlopen(server.url + path, timeout=10) as response:
        assert text in response.read().decode()


def test_the_users_are_served_as_json(server):
    with urlopen(f"{server.url}/api/users.json", timeout=10) as response:
        assert {"id": 1, "name": "Admin"} in json.load(response)


def test_an_unknown_page_is_not_found(server):
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


def test_a_user_is_renamed_in_the_browser(chromium, server, artifacts):
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


def test_signing_in_and_out_in_the_browser(chromium, server, artifacts):
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
