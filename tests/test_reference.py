"""The reference page: it is what the code says, complete, and its examples work."""

from __future__ import annotations

import ast
import functools
import re
import shlex
from pathlib import Path

import pytest
import reference
import yaml
from processes import ROOT, write_files
from webtest import TestApp

import noventa
import noventa_cli
from noventa import App, Component, Config, Page, Registry

KEY = "0123456789abcdef0123456789abcdef"


def test_the_page_is_what_the_generator_writes():
    assert reference.PAGE.read_text("utf-8") == reference.page(), "run python -m tests.reference"


def test_each_name_of_the_code_has_an_example_and_no_other():
    members = {
        f"{name}.{member}"
        for name in (*noventa.__all__, *reference.GIVEN)
        if isinstance(cls := getattr(noventa, name), type)
        for member in reference.public_members(cls)
    }
    known = {*noventa.__all__, *reference.GIVEN, *members, *reference.COMMAND_LINE}
    assert reference.DATA["python"].keys() == known
    assert reference.DATA["settings"].keys() == {setting.name for setting in noventa.SETTINGS}
    assert reference.DATA["commands"].keys() == noventa_cli.COMMANDS.keys()
    templates = noventa._FUNCTIONS | noventa.RESERVED | {"errors", "values"}
    assert reference.DATA["templates"].keys() == templates
    assert reference.DATA["results"].keys() >= noventa._SPECIAL_KEYS
    assert {*map(str, noventa._MESSAGES)} <= reference.DATA["statuses"].keys()
    assert reference.DATA["intro"].keys() == {"Reference", *reference.PARTS}


def test_each_link_leads_to_a_heading_of_a_chapter():
    chapters = noventa_cli.chapters()
    links = re.findall(r"\]\((\w+)\.md(?:#([\w-]+))?\)", reference.page())
    assert len(links) > 150
    for name, slug in {*links}:
        slugs = {noventa_cli._slug(title) for title in chapters[name].sections}
        assert not slug or slug in slugs, f"{name}.md#{slug}"


# ---- reasons and log messages -----------------------------------------------------------------

EXPANSIONS = {  # what the code puts into a reason
    "nul-in-": ["nul-in-query", "nul-in-form"],
    "undecodable-": ["undecodable-query", "undecodable-form"],
    "-too-large": ["form-too-large", "json-too-large"],
    "value-of-": ["value-of-NAME"],
}


def strings(node: ast.AST) -> list[str]:
    """Return the constant strings of an expression; of an f-string, what it expands to."""
    if isinstance(node, ast.JoinedStr):
        constant = "".join(part.value for part in node.values if isinstance(part, ast.Constant))
        return EXPANSIONS[constant]
    return [
        one.value
        for one in ast.walk(node)
        if isinstance(one, ast.Constant) and isinstance(one.value, str) and "-" in one.value
    ]


@functools.cache
def all_calls() -> list[ast.Call]:
    """Return every call in the two modules."""
    files = (ROOT / "noventa.py", ROOT / "noventa_cli.py")
    trees = [ast.parse(file.read_text("utf-8")) for file in files]
    return [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]


def calls(*names: str) -> list[ast.Call]:
    """Return the calls of these functions or methods in the two modules."""
    return [
        call
        for call in all_calls()
        if (getattr(call.func, "id", None) or getattr(call.func, "attr", None)) in names
    ]


def test_the_reasons_are_those_of_the_code():
    found = {"method", "charset", "missing-field", "old-ticket", "other-session"}
    for call in calls("Rejection"):
        found.update(strings(call.args[1]))
    for call in calls("BadTicket"):
        found.update(strings(call.args[0]))
    assert reference.DATA["log words"].keys() == found


def test_the_log_messages_are_those_of_the_code():
    messages = {
        call.args[0].value
        for call in calls("debug", "info", "warning", "error", "exception")
        if getattr(getattr(call.func, "value", None), "id", "") == "log"
    }
    assert reference.DATA["messages"].keys() == messages


# ---- examples ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Yield the names that the Python examples use."""
    folder = tmp_path_factory.mktemp("reference")
    modules = {
        "user_models": (
            "from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column\n"
            "class Base(DeclarativeBase): pass\n"
            "class User(Base):\n"
            "    __tablename__ = 'users'\n"
            "    id: Mapped[int] = mapped_column(primary_key=True)\n"
            "    name: Mapped[str]\n"
        ),
        "user_logic": (
            "def load_template_context(request, session, db, *, id):\n"
            "    return {'user': id, 'values': {'name': 'Ada'}}\n"
            "def action_rename(request, session, db, *, id):\n"
            "    return {'_redirect': '/users/7'}\n"
        ),
        "users_json": "def add_user(request, session, db):\n    return {}\n",
    }
    files = {
        "pages/index.html": '{{ component("user", id=1) }}{{ flashes() }}',
        "pages/profile.html": "{{ id }}",
        "components/user/user_template.html": "<b>{{ user }}</b>",
        "files/site.css": "b {}",
        "config.yaml": f"secret_keys: [{KEY}]\ndebug: true\napp: {{mail_from: shop@example.com}}\n",
        "registry.py": "from noventa import Registry\nregistry = Registry()\n",
    }
    write_files(folder, files | {f"{name}.py": text for name, text in modules.items()})
    with noventa_cli.project_imports(folder):
        found = {name: noventa_cli.import_from_project(name, folder) for name in modules}
        names = example_names(folder, found)
        yield {**names, "__file__": str(folder / "migrations" / "env.py")}
        names["request"].close_files()


def example_names(folder, modules):
    components = [Component("user", logic=modules["user_logic"], models=[modules["user_models"]])]
    registry = Registry(components=components, routes=[Page("/", "pages/index.html")])
    config = Config.load(folder)
    app = App(registry, config)
    registry.metadata.create_all(app.database.engine)
    with app.database.session() as db:
        db.add(modules["user_models"].User(name="Ada"))
        db.commit()
    fields = {"name": "Ada", "photo": ("ada.png", b"...")}
    request = noventa.Request.blank("/users/7?page=2", POST=fields)
    request.app = app
    exported = (*noventa.__all__, *reference.GIVEN)
    public = {name: getattr(noventa, name) for name in exported}
    command_line = {name: getattr(noventa_cli, name) for name in reference.COMMAND_LINE}
    signer = noventa.Signer([KEY], "invitation")
    return public | command_line | modules | {
        "User": modules["user_models"].User, "app": app, "client": TestApp(app), "config": config,
        "folder": folder, "registry": registry, "request": request, "signer": signer,
        "broken_registry": Registry(routes=[Page("/", "pages/indx.html")]), "Path": Path,
        "json_request": noventa.Request.blank("/", json={"name": "Ada"}, method="POST"),
        "session": app.sessions.read({}), "signed_in": lambda request, session, db: None,
        "wsgi_application": app, "link": signer.sign(b"7"),
    }  # fmt: skip


@pytest.mark.parametrize("name", reference.DATA["python"])
def test_an_example_in_python_runs(name, names, tmp_path):
    source = reference.DATA["python"][name][0]
    if name == "run_migrations":  # runs within Alembic only
        assert source in (ROOT / "migrations_skeleton" / "env.py").read_text("utf-8")
        return
    if name == "migrate_to_head":
        names = {**names, "config": Config.from_mapping({"secret_keys": [KEY]}, tmp_path)}
    body = "\n".join(f"    {line}" for line in source.splitlines())
    exec(f"def example():\n{body}\nexample()", {**names})


@pytest.mark.parametrize("name", reference.DATA["settings"])
def test_an_example_of_a_setting_sets_it(name, tmp_path):
    document = yaml.safe_load(reference.DATA["settings"][name][0])
    config = Config.from_mapping(document, tmp_path)
    (setting,) = [one for one in noventa.SETTINGS if one.name == name]
    assert config[name] != setting.default


def test_the_examples_of_commands_are_commands():
    for name, (example, _) in reference.DATA["commands"].items():
        words = shlex.split(example)
        assert words[:3] == ["python", "-m", "noventa"]
        assert noventa_cli._parse(words[3:]).command == name


def test_the_examples_of_templates_render(names, tmp_path):
    folder = names["folder"]
    parts = [example for _, example, _ in reference.DATA["templates"].values()]
    inside = "\n".join(text for text in parts if "component(" not in text)
    outside = "\n".join(text for text in parts if "component(" in text)
    page = f"{outside}{{{{ component('all', id=1) }}}}"
    write_files(folder, {"components/all.html": inside, "pages/all.html": page})
    registry = Registry(
        components=[
            Component("user", logic=names["user_logic"]),
            Component("all", "components/all.html", logic=names["user_logic"]),
        ],
        routes=[Page("/", "pages/all.html"), noventa.Static("/files", "files")],
    )
    page = TestApp(App(registry, Config.from_mapping({"secret_keys": [KEY]}, folder))).get("/")
    assert "/files/site.css?v=" in page
    assert page.text.count('name="_ticket"') == 2


@pytest.mark.parametrize("name", reference.DATA["results"])
def test_the_examples_of_results_are_read(name):
    returned = ast.literal_eval(reference.DATA["results"][name][1])
    assert name in returned
    noventa.read_result(returned, test_the_examples_of_results_are_read)
