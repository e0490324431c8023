"""The document in tests/data runs unchanged: its files, its commands, its page.

On PostgreSQL and MariaDB only the `database` setting differs.
"""

import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import pytest
import sqlalchemy as sa
from processes import KEY, PROJECT, environment, serving, write_files

from noventa import Config, make_engine
from noventa_cli import main

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parent / "data" / "database-integration.txt"
KINDS = ("PYTHON", "YAML", "BASH")
PROSE = re.compile(r"\n\n(?=[A-Z])")  # starts a line after an empty one, which code here never does

REGISTRY = """\
from components.user import user_logic, user_models
from migrations.seed import initial_users
from models import global_models
from noventa import Component, Page, Registry

registry = Registry(
    components=[
        Component(
            "user", "components/user/user_template.html", logic=user_logic, models=[user_models]
        ),
    ],
    models=[global_models],
    routes=[Page("/user", "pages/user.html")],
    seeds=[initial_users.seed_users],
)
"""

TEMPLATE = """\
{% if message %}<p id="message">{{ message }}</p>{% endif %}
<form method="post">
  {{ action("update_user") }}
  <input type="hidden" name="user_id" value="{{ user.id }}">
  <input name="name" value="{{ user.name }}">
  <button>Save</button>
</form>
"""


def blocks(kind):
    """Return the blocks of one kind, in order: each starts after its kind and ends before prose."""
    parts = re.split(rf"^({'|'.join(KINDS)})\n", DOCUMENT.read_text("utf-8"), flags=re.MULTILINE)
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return [PROSE.split(text, maxsplit=1)[0].rstrip("\n") + "\n" for k, text in pairs if k == kind]


def test_every_block_of_the_document_is_found_complete():
    assert [len(blocks(kind)) for kind in KINDS] == [4, 1, 1]
    for block in blocks("PYTHON"):
        compile(block, "block", "exec")
    logic = blocks("PYTHON")[0]
    assert logic.startswith("# Example: ")
    assert logic.endswith('    return {"message": "User updated!"}\n')
    assert blocks("YAML") == ['database: "sqlite:///./noventa.db"\n']


def document_files():
    """Return the document's files by the path in their first line.

    The example, which has no path, is the component's logic.
    """
    files = {}
    for block in blocks("PYTHON"):
        name = block.splitlines()[0].removeprefix("# ")
        files[name if name.endswith(".py") else "components/user/user_logic.py"] = block
    return files


@pytest.fixture
def project(tmp_path, database):
    (settings,) = blocks("YAML")
    if not database.startswith("sqlite"):
        settings = f'database: "{database}"\n'
    files = {
        **document_files(),
        "config.yaml": f'{settings}secret_keys: ["{KEY}"]\n',
        "registry.py": REGISTRY,
        "wsgi.py": PROJECT["wsgi.py"],
        "pages/user.html": '{{ component("user") }}',
        "components/user/user_template.html": TEMPLATE,
    }
    assert set(files) >= {
        "components/user/user_models.py",
        "models/global_models.py",
        "migrations/seed/initial_users.py",
    }
    return write_files(tmp_path, files)


def commands():
    lines = blocks("BASH")[0].splitlines()
    return [shlex.split(line) for line in lines if line and not line.startswith("#")]


def run(command, project):
    """Run a command of the document as a process, from the project's root."""
    scripts = Path(sys.executable).parent
    result = subprocess.run(
        [scripts / command[0], *command[1:]],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def tables(project):
    engine = make_engine(Config.load(project), poolclass=sa.NullPool)
    return set(sa.inspect(engine).get_table_names())


class Form(HTMLParser):
    """The fields of the only form on a page."""

    def __init__(self, html):
        super().__init__()
        self.fields = {}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "input" and "name" in values:
            self.fields[values["name"]] = values.get("value", "")


def test_the_document_runs(project):
    revision, upgrade, downgrade = commands()
    assert main(["--project", str(project), "migrate", "current"]) == 0  # creates alembic.ini

    run(revision, project)
    (path,) = (project / "migrations" / "versions").glob("*add_user_table.py")
    assert "op.create_table('users'" in path.read_text().replace('"', "'")
    run(upgrade, project)
    assert {"users", "system_settings"} <= tables(project)

    assert main(["--project", str(project), "seed"]) == 0
    with serving(project) as server:
        rename_the_admin(f"{server.url}/user?id=1")

    run(downgrade, project)
    assert not {"users", "system_settings"} & tables(project)


def rename_the_admin(url):
    browser = build_opener(HTTPCookieProcessor(CookieJar()))

    def fetch(**form):
        data = urlencode(form).encode() if form else None
        with browser.open(url, data, timeout=10) as response:
            return response.read().decode()

    fields = Form(fetch()).fields
    assert (fields["user_id"], fields["name"]) == ("1", "Admin")
    answer = fetch(**{**fields, "name": "Ada Lovelace"})
    assert '<p id="message">User updated!</p>' in answer
    assert Form(answer).fields["name"] == "Ada Lovelace"
    assert Form(fetch()).fields["name"] == "Ada Lovelace"
