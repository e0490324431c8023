"""Fragments in a browser: an application with htmx 2, with htmx 4 and without scripts."""

import re
import shutil
import sqlite3
from contextlib import ExitStack, closing, contextmanager

import pytest
from conftest import leave, visiting
from playwright.sync_api import expect
from processes import KEY, ROOT, from_npm, serving, write_files, write_project
from test_guide import blocks, follow

from noventa import Config, SessionCookies
from noventa_cli import main

pytestmark = pytest.mark.slow

CHAPTER = (ROOT / "templates" / "guide" / "fragments.md").read_text("utf-8")
HTMX_CONFIG = re.search(r'<meta name="htmx-config".*?>\n', CHAPTER, re.DOTALL)[0]
CONFIG = f"""\
database: "sqlite:///./noventa.db"
secret_keys: ["{KEY}"]
headers:
  Content-Security-Policy: >-
    default-src 'none'; script-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'
"""
REGISTRY = """\
from noventa import Component, Page, Registry, Static

import door
import index
import models
import new
import note
import notes
import panel
import results

registry = Registry(
    components=[
        Component("door", "door.html", logic=door),
        Component("new", "new.html", logic=new),
        Component("note", "note.html", logic=note, models=[models]),
        Component("notes", "notes.html", logic=notes),
        Component("panel", "panel.html", logic=panel),
        Component("results", "results.html", logic=results),
    ],
    routes=[
        Page("/", "index.html", logic=index, guards=[index.signed_in]),
        Page("/sign-in", "sign_in.html"),
        Static("/files", "files"),
    ],
)
"""
MODELS = """\
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
"""
INDEX_LOGIC = """\
def signed_in(request, session, db):
    return None if "user" in session else {"_redirect": "/sign-in"}


def load_template_context(request, session, db):
    return {name: request.args.get(name, 0, type=int) for name in ("after", "edit")}
"""
NEW_LOGIC = """\
from models import Note


def action_add(request, session, db):
    text = request.form["text"]
    if len(text) < 3:
        return {"_status": 422, "errors": {"text": "Too short."}, "values": {"text": text}}
    db.add(Note(text=text))
    db.commit()
    session.flash("Added.")
    return {"_redirect": "/#panel"}
"""
NOTES_LOGIC = """\
import sqlalchemy as sa

from models import Note


def load_template_context(request, session, db, *, after, edit=0):
    return {"notes": db.scalars(sa.select(Note).filter(Note.id > after).limit(3)).all()}
"""
NOTE_LOGIC = """\
from models import Note


def load_template_context(request, session, db, *, id, mode="view"):
    return {"note": db.get(Note, id), "mode": mode}


def action_save(request, session, db, *, id, mode="view"):
    if not request.form["text"]:
        return {"_status": 422, "errors": {"text": "Please write something."}}
    db.get(Note, id).text = request.form["text"]
    db.commit()
    return {"mode": "view"}
"""
RESULTS_LOGIC = """\
import sqlalchemy as sa

from models import Note


def load_template_context(request, session, db):
    q = request.args.get("q", "")
    found = sa.select(Note.text).filter(Note.text.contains(q, autoescape=True))
    return {"texts": db.scalars(found).all() if q else []}
"""
PANEL_LOGIC = """\
import sqlalchemy as sa

from models import Note


def load_template_context(request, session, db):
    return {"count": db.scalar(sa.select(sa.func.count(Note.id)))}
"""
DOOR_LOGIC = """\
def action_enter(request, session, db):
    session.rotate()
    session["user"] = request.form["name"]
    return {"_redirect": "/"}


def action_leave(request, session, db):
    del session["user"]
    return {"_redirect": "/sign-in"}
"""
WSGI = """\
from pathlib import Path

from noventa import App, Config

from models import Base, Note
from registry import registry

app = application = App(registry, Config.load(Path(__file__).parent))
Base.metadata.create_all(app.database.engine)
with app.database.session() as db:
    db.add_all([Note(text=f"note {number}") for number in range(1, 8)])
    db.commit()
"""
LAYOUT = """\
<!doctype html>
<html lang="en">
<title>Notes</title>
{% include "htmx.html" %}
<script defer src="{{ static("htmx.min.js") }}"></script>
{% for flash in flashes() %}<p role="status">{{ flash.text }}</p>{% endfor %}
{% block body %}{% endblock %}
</html>
"""
INDEX = """\
{% extends "layout.html" %}
{% block body %}
<p id="panel" hx-get="{{ fragment("panel") }}" hx-trigger="every 250ms">{{ component("panel") }}</p>
<form role="search"><input name="q" aria-label="Find" hx-get="{{ fragment("results") }}"
  hx-trigger="input changed delay:50ms" hx-target="#results" hx-sync="this:replace">
  <button>Find</button></form>
<div id="results">{{ component("results") }}</div>
{{ component("new") }}
<ul>{{ component("notes", after=after, edit=edit) }}</ul>
{% endblock %}
"""
NEW = """\
<form method="post" hx-post="" hx-swap="outerHTML" id="{{ instance }}">{{ action("add") }}
<input name="text" aria-label="New" value="{{ values.text }}">
<em>{{ errors.form or errors.text }}</em>
<button>Add</button></form>
"""
NOTES = """\
{% for note in notes %}
{{ component("note", id=note.id, mode="edit" if note.id == edit else "view") }}
{% endfor %}
{% if notes %}{% set last = notes[-1].id %}
<li><a href="?after={{ last }}" hx-get="{{ fragment(after=last) }}"
  hx-target="closest li" hx-swap="outerHTML">More</a></li>
{% endif %}
"""
NOTE = """\
<li id="{{ instance }}" hx-target="this" hx-swap="outerHTML">
{% if mode == "view" %}
{{ note.text }}
<a href="?after={{ id - 1 }}&amp;edit={{ id }}"
  hx-get="{{ fragment(mode="edit") }}">Edit {{ id }}</a>
{% else %}
<form method="post" hx-post="">{{ action("save") }}
<input name="text" aria-label="Text" value="{{ note.text }}"> <em>{{ errors.text }}</em>
<button>Save</button></form>
{% endif %}
</li>
"""
DOOR = """\
<form method="post" hx-post="">{{ action("enter") }}
<input name="name" aria-label="Name"><button>Enter</button>
<button name="_ticket" value="{{ action_ticket("leave") }}">Leave</button></form>
"""
FILES = {
    "config.yaml": CONFIG, "registry.py": REGISTRY, "wsgi.py": WSGI, "models.py": MODELS,
    "layout.html": LAYOUT, "htmx.html": HTMX_CONFIG,
    "index.py": INDEX_LOGIC, "index.html": INDEX,
    "new.py": NEW_LOGIC, "new.html": NEW,
    "notes.py": NOTES_LOGIC, "notes.html": NOTES,
    "note.py": NOTE_LOGIC, "note.html": NOTE,
    "results.py": RESULTS_LOGIC,
    "results.html": "{% for text in texts %}<p>{{ text }}</p>{% endfor %}",
    "panel.py": PANEL_LOGIC, "panel.html": "{{ count }} notes",
    "door.py": DOOR_LOGIC, "door.html": DOOR,
    "sign_in.html": '{% extends "layout.html" %}{% block body %}{{ component("door") }}'
    "{% endblock %}",
}  # fmt: skip
INVALID_FORM = "Failed to load resource: the server responded with a status of 422"
OUTDATED_FRAGMENT = (  # of the panel; htmx 4 parses an error page even if it does not show it
    INVALID_FORM.replace("422", "403"), "Response Status Error Code 403",
    "Applying inline style violates",
)  # fmt: skip
VERSIONS = ("htmx 2", "htmx 4")


@pytest.fixture(scope="module")
def htmx(tmp_path_factory):
    """Return the paths of htmx 2 and 4 as published on npm, from its cache if possible."""
    return {
        version: from_npm(tmp_path_factory.mktemp("npm"), f"htmx.org@{version[-1]}")
        / "dist" / "htmx.min.js"
        for version in VERSIONS
    }  # fmt: skip


@pytest.fixture(scope="module")
def servers(tmp_path_factory, htmx):
    """Serve the notes with each version of htmx."""
    with ExitStack() as stack:
        running = {}
        for version, file in htmx.items():
            root = write_project(tmp_path_factory.mktemp("notes"), FILES)
            (root / "files").mkdir()
            shutil.copy(file, root / "files")
            running[version] = stack.enter_context(serving(root))
            running[version].root = root
        yield running


@pytest.fixture(params=[*VERSIONS, "no script"])
def script(request):
    return request.param


@pytest.fixture
def scripted(script):
    return script in VERSIONS


@pytest.fixture
def server(servers, script):
    return servers[script if script in VERSIONS else "htmx 2"]


def sign_in(page):
    page.goto("/sign-in")
    page.get_by_label("Name").fill("ada")
    page.get_by_role("button", name="Enter").click()
    page.wait_for_url(re.compile("/$"))


@pytest.fixture(scope="module")
def sessions(chromium, servers):
    """Return the browser state of a signed-in visitor for each server."""
    return {server: signed_in_state(chromium, server) for server in servers.values()}


def signed_in_state(chromium, server):
    with visiting(chromium, server) as page:
        sign_in(page)
        return page.context.storage_state()


@pytest.fixture
def visit(chromium, server, scripted, sessions):
    """Open the notes in a browser, signed in.

    With htmx, no other page may be loaded unless the test `leaves` the page.
    """
    options = {"java_script_enabled": scripted, "storage_state": sessions[server]}

    @contextmanager
    def visit(*, leaves=False, expected=()):
        with visiting(chromium, server, expected=expected, **options) as page:
            page.goto("/")
            loaded = []
            page.on("request", lambda request: loaded.append(request.is_navigation_request()))
            yield page
            assert any(loaded) == (leaves or not scripted)

    return visit


def test_a_row_is_edited_in_place(visit, scripted):
    number = 1 + scripted  # one of the first three rows; with htmx, a different one
    with visit(expected=[INVALID_FORM]) as page:
        page.get_by_role("link", name=f"Edit {number}").click()
        page.get_by_label("Text").fill("")
        page.get_by_role("button", name="Save").click()
        expect(page.locator("li em")).to_have_text("Please write something.")
        page.get_by_label("Text").fill("a <b>bold</b> note")
        page.get_by_role("button", name="Save").click()
        row = page.get_by_role("listitem").filter(has_text=f"Edit {number}")
        expect(row).to_contain_text("a <b>bold</b> note")


def test_rows_that_a_list_loads_later_can_be_edited_too(visit, scripted):
    with visit() as page:
        page.get_by_role("link", name="More").click()
        page.get_by_role("link", name="Edit 6").click()
        page.get_by_label("Text").fill("six")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("listitem").filter(has_text="six")).to_be_visible()
        first = page.get_by_role("link", name="Edit").first
        expect(first).to_have_text("Edit 1" if scripted else "Edit 6")


def test_search_results_appear_while_typing(visit, scripted):
    aborted = ["htmx:afterRequest", "htmx:sendAbort"]  # a search that the next letter replaced
    with visit(expected=aborted) as page:
        page.get_by_label("Find").press_sequentially("note 5")
        if not scripted:
            page.get_by_role("button", name="Find").click()
        expect(page.locator("#results")).to_have_text("note 5")


def test_a_form_shows_its_errors_and_then_redirects_with_a_message(visit):
    with visit(leaves=True, expected=[INVALID_FORM]) as page:
        page.get_by_label("New").fill("ab")
        page.get_by_role("button", name="Add").click()
        expect(page.locator("em")).to_have_text("Too short.")
        expect(page.get_by_label("New")).to_have_value("ab")
        page.get_by_label("New").fill("abc")
        page.get_by_role("button", name="Add").click()
        expect(page.get_by_role("status")).to_have_text("Added.")
        expect(page.get_by_label("New")).to_have_value("")


def test_the_next_fragment_redirects_after_signing_out_in_another_tab(visit, scripted):
    with visit(leaves=True) as page:
        other = page.context.new_page()
        other.goto("/sign-in")
        leave(other, other.get_by_role("button", name="Leave"))
        if not scripted:  # with htmx, the panel's next poll redirects
            page.get_by_role("link", name="Edit 3").click()
        page.wait_for_url("**/sign-in")
        sign_in(page)
        expect(page.locator("#panel")).to_contain_text("notes")


def test_typed_text_is_kept_after_signing_in_again_in_another_tab(visit):
    with visit(leaves=True, expected=[INVALID_FORM, *OUTDATED_FRAGMENT]) as page:
        sign_in(page.context.new_page())
        page.get_by_label("New").fill("typed before")
        page.get_by_role("button", name="Add").click()
        expect(page.locator("em")).to_contain_text("session")
        expect(page.get_by_label("New")).to_have_value("typed before")
        page.get_by_role("button", name="Add").click()
        expect(page.get_by_role("status")).to_have_text("Added.")


@pytest.mark.parametrize("script", VERSIONS, indirect=True)
def test_a_panel_polls(visit, server):
    with visit() as page:
        before = page.locator("#panel").inner_text()
        with closing(sqlite3.connect(server.root / "noventa.db")) as database, database:
            database.execute("INSERT INTO notes (text) VALUES ('from elsewhere')")
        expect(page.locator("#panel")).to_have_text(f"{int(before.split()[0]) + 1} notes")


@pytest.mark.parametrize("script", ["htmx 4"], indirect=True)
def test_an_error_page_replaces_the_whole_page_and_not_a_row(chromium, server, sessions):
    """Without `noSwap`, htmx 4 swaps error pages; the row's fragment is from an earlier session."""
    options = {"storage_state": sessions[server], "expected": OUTDATED_FRAGMENT}
    with visiting(chromium, server, **options) as page:
        page.goto("/")
        page.evaluate("htmx.config.noSwap = [204, 304]")
        page.locator("#panel").evaluate("panel => panel.remove()")
        sign_in(page.context.new_page())
        page.get_by_role("link", name="Edit 3").click()
        expect(page.get_by_role("heading")).to_have_text("Forbidden")
        expect(page.get_by_role("listitem")).to_have_count(0)


# ---- the issue tracker ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def tracker(tmp_path_factory, htmx):
    """Serve tests/applications/tracker with its seed, many issues and a local copy of htmx."""
    root = tmp_path_factory.mktemp("applications") / "tracker"
    shutil.copytree(ROOT / "tests" / "applications" / "tracker", root)
    shutil.copy(htmx["htmx 2"], root / "files")
    (root / "secret.key").write_text(KEY)
    layout = root / "layouts" / "base.html"
    script = '<script defer src="{{ static("htmx.min.js") }}"></script>'
    layout.write_text(re.sub("<script.*?</script>", script, layout.read_text(), flags=re.DOTALL))
    assert [main(["--project", str(root), word]) for word in ("migrate", "seed")] == [0, 0]
    with closing(sqlite3.connect(root / "tracker.db")) as db, db:
        row = "1, 1, ?, 'Wheel ' || ?, '', 1, '2026-01-01 00:00:00'"
        names = "project_id, author_id, number, title, body, is_open, created_at"
        insert = f"INSERT INTO issues ({names}) VALUES ({row})"
        db.executemany(insert, [(number, number) for number in range(2, 52)])
        comment = "INSERT INTO comments (issue_id, author_id, body, created_at) VALUES "
        db.execute(comment + "(2, 1, 'Oil it', '2026-01-01'), (3, 1, 'Oil it', '2026-01-01')")
    with serving(root) as server:
        server.session = SessionCookies(Config.load(root)).make({"user_id": 1})
        yield server


# The tracker has its own settings for htmx 2.
htmx_2_or_no_script = pytest.mark.parametrize("script", ["htmx 2", "no script"], indirect=True)


@pytest.fixture
def track(chromium, tracker, scripted):
    """Open a page of the tracker as its administrator; with htmx, no other page may be loaded."""

    @contextmanager
    def track(path):
        options = {"expected": [INVALID_FORM], "java_script_enabled": scripted}
        with visiting(chromium, tracker, **options) as page:
            cookie = {"name": "noventa_session", "value": tracker.session, "url": tracker.url}
            page.context.add_cookies([cookie])
            page.goto(path)
            loaded = []
            page.on("request", lambda request: loaded.append(request.is_navigation_request()))
            yield page
            assert any(loaded) == (not scripted)

    return track


@htmx_2_or_no_script
def test_the_tracker_searches_while_typing_and_lists_more_issues(track, scripted):
    with track("/projects/demo") as page:
        titles = page.locator(".issues li > a:first-child")
        page.get_by_role("link", name="Older issues").click()
        expect(titles).to_have_count(40 if scripted else 20)
        expect(titles.last).to_have_text("Wheel 12")
        page.get_by_role("searchbox").press_sequentially("wheel 4")
        if not scripted:
            page.get_by_role("button", name="Search").click()
        expect(titles).to_have_text([f"Wheel {n}" for n in (*range(49, 39, -1), 34, 24, 14, 4)])


@htmx_2_or_no_script
def test_the_tracker_changes_labels_and_comments_in_place(track, scripted):
    number = 2 + scripted
    with track(f"/projects/demo/{number}") as page:
        page.get_by_label("bug").check()
        page.get_by_label("closed").check()
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("status")).to_have_text("Saved.")
        expect(page.get_by_label("closed")).to_be_checked()
        expect(page.get_by_label("idea")).not_to_be_checked()
        page.get_by_text("Edit").click()
        for text in (" ", "Oil it\nwell"):
            page.locator("article").get_by_role("textbox").fill(text)
            page.locator("article").get_by_role("button").click()
            if not text.strip():
                expect(page.get_by_role("alert")).to_have_text("Please enter some text.")
        expect(page.locator("article .text")).to_have_text("Oil it well")


# ---- the guide's chapter --------------------------------------------------------------------

OWN_SCRIPT = re.search(r"```js no-run\n(.*?)```", CHAPTER, re.DOTALL)[1]


@pytest.fixture(scope="module", params=[*VERSIONS, "the chapter's own script"])
def chapter(request, tmp_path_factory, htmx):
    """Serve what the chapter on fragments builds, with a local htmx or the chapter's own script."""
    root = write_project(tmp_path_factory.mktemp("chapter"))
    follow(root, [*blocks("fragments")])
    script = htmx[request.param].read_text() if request.param in htmx else OWN_SCRIPT
    write_files(root, {"files/script.js": script})
    tag = '<script defer src="{{ static("script.js") }}"></script>'
    for name, old, new in (
        ("pages/index.html", r"<script.*?</script>", tag),
        ("registry.py", r"(?=Page\()", 'Static("/files", "files"), '),
        ("registry.py", r"(?=Registry\n)", "Static, "),
        ("components/note/note_template.html", r"(?<=<li )", "data-fragment "),
        ("components/note/note_template.html", r'hx-get(="{{.*?}}")', r"\g<0> data-get\1"),
        ("components/new_note/new_note_template.html", r"(?<=<form )", "data-fragment "),
    ):
        text = re.sub(old, new, (root / name).read_text(), count=1, flags=re.DOTALL)
        (root / name).write_text(text)
    with serving(root) as server:
        yield server


def test_the_chapters_project_adds_and_edits_rows_and_keeps_typed_text(chromium, chapter):
    with visiting(chromium, chapter, expected=[INVALID_FORM, *OUTDATED_FRAGMENT]) as page:
        page.goto("/")
        new, add = page.get_by_label("New note"), page.get_by_role("button", name="Add")
        for text, selector in ((" ", "em"), ("one", "[role=status]")):
            new.fill(text)
            add.click()
            expect(page.locator(selector)).to_have_text(re.compile("characters|Added"))
        loaded = []
        page.on("request", lambda request: loaded.append(request.is_navigation_request()))
        page.get_by_text("Edit 1").click()
        for text in (" ", "two"):
            page.get_by_label("Text").fill(text)
            page.get_by_role("button", name="Save").click()
            row = page.get_by_role("listitem")
            expect(row).to_contain_text("two Edit" if text.strip() else "1 to 200 characters")
        assert not any(loaded)
        page.context.clear_cookies()  # as if the visitor signed in again in another tab
        page.context.new_page().goto("/")
        new.fill("typed before")
        add.click()
        expect(page.locator("em").first).to_contain_text("session")
        expect(new).to_have_value("typed before")
