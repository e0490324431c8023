"""Fragments: one component rendered alone, from a URL or after a form; and `instance`."""

import re

import pytest
from support import make_app, make_module
from visitors import Visitor, ask

from noventa import Component, Page, RegistryError

HTMX = {"HTTP_HX_REQUEST": "true"}
PLAIN_SCRIPT = {"HTTP_NOVENTA_FRAGMENT": "1"}
ROW = """
    def load_template_context(request, session, db, *, id, **props):
        return {"name": session.get(f"name {id}", f"row {id}")}

    def action_save(request, session, db, *, id, **props):
        if request.form["name"] == "away":
            return {"_redirect": "/there"}
        if request.form["name"] == "anchor":
            return {"_redirect": "/there#row"}
        if not request.form["name"]:
            return {"_status": 422, "errors": {"name": "empty"}}
        session[f"name {id}"] = request.form["name"]
        return {}
"""
ROW_HTML = """<li id="{{ instance }}">{{ name }}{{ errors.name }}<form method="post">
{{ action("save") }}</form>{{ component("detail", of=id) }}{{ component("detail", of=id) }}</li>"""
PAGE = """
    def load_template_context(request, session, db):
        return {"open": "member" in session}
"""
GUARD = """
    def may(request, session, db, **props):
        if "member" not in session:
            return {"_status": 403, "message": "members only"}

    def load_template_context(request, session, db, **props):
        return {}

    def action_enter(request, session, db, **props):
        session["member"] = 1
        return {"_redirect": "/"}

    def action_leave(request, session, db, **props):
        del session["member"]
        return {"_redirect": "/"}
"""
DETAIL = """
    def load_template_context(request, session, db, *, of):
        return {}

    def action_touch(request, session, db, *, of):
        return {}
"""
FILES = {
    "page.html": "<p>page</p>{{ component('door') }}{{ component('list') if open else '' }}",
    "list.html": "{% for n in (1, 2) %}<a href='{{ fragment('row', id=n) }}'></a>"
    "{{ component('row', id=n) }}{% endfor %}{{ component('row', id=1) }}"
    "<a href='{{ fragment('row', key='k', id=1) }}'></a>{{ component('row', key='k', id=1) }}",
    "row.html": ROW_HTML,
    "detail.html": "<i id='{{ instance }}'>{{ of }}{{ action('touch') }}</i>",
    "door.html": "<form method='post'>{{ action('enter') }}{{ action('leave') }}</form>",
    "box.html": "<div>{{ children }}{{ errors.name }}</div>",
}


def page_app(root, files=(), config=None, **more):
    guard = make_module("fragment_guard", GUARD)
    page = make_module("fragment_page", PAGE)
    components = [
        Component("list", "list.html", guard=guard.may),
        Component("row", "row.html", logic=make_module("fragment_row", ROW)),
        Component("detail", "detail.html", logic=make_module("fragment_detail", DETAIL)),
        Component("door", "door.html", logic=guard),
        Component("box", "box.html"),
    ]
    routes = [Page("/", "page.html", logic=page, **more)]
    files = {**FILES, **dict(files)}
    return make_app(root, files, config, components=components, routes=routes)


def sign_in(app, **environ):
    visitor = Visitor(app, **environ)
    assert visitor.post("/", visitor.get().tickets[0]).status == 303
    return visitor


def fragment_urls(page):
    return re.findall(r"<a href='([^']*)'", page.text)


def fetch(visitor, url, **more):
    path, _, query = url.partition("?")
    return visitor.get(path.removeprefix("/m"), query=query, **more)


def test_a_fragment_equals_its_part_of_the_page_byte_for_byte(tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_800_000_000.0)
    visitor = sign_in(page_app(tmp_path), SCRIPT_NAME="/m")
    page = visitor.get()
    parts = re.findall(r"<li.*?</li>", page.text, re.DOTALL)
    first, second, keyed = (fetch(visitor, url).text for url in fragment_urls(page))
    assert [first, second, keyed] == [parts[0], parts[1], parts[3]]
    assert len({*re.findall(r'id="([^"]*)"', page.text)}) == 4


def test_a_ticket_from_a_fragment_works_on_its_page(tmp_path):
    visitor = sign_in(page_app(tmp_path))
    fragment = fetch(visitor, fragment_urls(visitor.get())[0])
    response = visitor.post("/", fragment.tickets[0], {"name": "new"})
    assert (response.status, "new<form" in response.text, "<p>page" in response.text) == (
        200,
        True,
        True,
    )


def test_a_fragment_is_private_to_its_visitor(tmp_path):
    visitor = sign_in(page_app(tmp_path))
    response = fetch(visitor, fragment_urls(visitor.get())[0])
    assert "private" in response.header("Cache-Control")
    assert "Cookie" in response.header("Vary")
    url = fragment_urls(visitor.get())[0]
    assert fetch(Visitor(visitor.app), url).refused == "other-session"


def test_a_fragment_url_from_another_path_or_with_changes_is_rejected(tmp_path):
    app = page_app(tmp_path)
    visitor = sign_in(app)
    url = fragment_urls(visitor.get())[0]
    assert fetch(visitor, url, SCRIPT_NAME="/other").refused == "other-page"
    assert fetch(visitor, f"{url[:-1]}~").status in (400, 403)
    assert fetch(visitor, f"/?_fragment={visitor.get().tickets[0]}").refused == "bad-signature"


def test_a_fragment_runs_the_guards_of_its_ancestors(tmp_path):
    visitor = sign_in(page_app(tmp_path))
    url = fragment_urls(visitor.get())[0]
    visitor.post("/", visitor.get().tickets[1])
    assert fetch(visitor, url).status == 403


def test_a_fragment_runs_the_guards_of_its_page(tmp_path):
    closed = []

    def guard(request, session, db):
        return {"_redirect": "/sign-in"} if closed else None

    visitor = sign_in(page_app(tmp_path, guards=[guard]))
    url = fragment_urls(visitor.get())[0]
    closed.append(True)
    assert fetch(visitor, url).header("Location") == "/sign-in"
    response = fetch(visitor, url, **HTMX)
    assert (response.status, response.header("HX-Redirect")) == (204, "/sign-in")


CLOSABLE_LOGIC = """
    shut = []

    def load_template_context(request, session, db):
        session["shown"] = session.get("shown", 0) + 1
        return shut[0] if shut else {}

    ran = []

    def action_note(request, session, db):
        ran.append(session.get("shown", 0))
        if request.form.get("shut"):
            shut.append({"_status": 404})
        session["noted"] = session.get("noted", 0) + 1
        return {"_redirect": "/there"} if request.form.get("away") else {}
"""
NOTE_PAGE = "<a href='{{ fragment('note') }}'></a>{{ component('note') }}"


def closable_app(root):
    """Return the logic of a page, which can close it, the logic of its note, and a visitor."""
    logic = make_module("fragment_shut", CLOSABLE_LOGIC)
    note = make_module("fragment_shut_note", CLOSABLE_LOGIC)
    del note.load_template_context
    files = {"page.html": NOTE_PAGE, "note.html": "<i>{{ action('note') }}</i>"}
    components = [Component("note", "note.html", logic=note)]
    routes = [Page("/", "page.html", logic=logic)]
    return logic, note, Visitor(make_app(root, files, components=components, routes=routes))


@pytest.mark.parametrize(
    ("result", "status", "location"),
    [({"_status": 404}, 404, None), ({"_redirect": "/sign-in"}, 303, "/sign-in")],
)
def test_fragments_and_actions_are_rejected_like_their_page(tmp_path, result, status, location):
    logic, note, visitor = closable_app(tmp_path)
    page = visitor.get()
    assert fetch(visitor, fragment_urls(page)[0]).status == 200
    logic.shut.append(result)
    for response in (fetch(visitor, fragment_urls(page)[0]), visitor.post("/", page.tickets[0])):
        assert (response.status, response.header("Location")) == (status, location)
    assert note.ran == []


@pytest.mark.parametrize("script", [{}, HTMX])
def test_a_pages_changes_to_the_session_are_applied_once_after_an_action(tmp_path, script):
    _, note, visitor = closable_app(tmp_path)
    ticket = visitor.get().tickets[0]
    assert visitor.post("/", ticket, **script).status == 200
    session = visitor.app.sessions.read(visitor.cookies)
    assert (note.ran, dict(session)) == ([1], {"shown": 2, "noted": 1})
    assert visitor.post("/", ticket, {"away": "1"}).status == 303
    session = visitor.app.sessions.read(visitor.cookies)
    assert (note.ran, dict(session)) == ([1, 2], {"shown": 2, "noted": 2})


def test_a_page_closed_by_its_action_renders_no_fragment(tmp_path):
    logic, note, visitor = closable_app(tmp_path)
    ticket = visitor.get().tickets[0]
    note.shut = logic.shut
    assert visitor.post("/", ticket, {"shut": "1"}, **HTMX).status == 404


@pytest.mark.parametrize("script", [HTMX, PLAIN_SCRIPT])
def test_a_form_posted_by_a_script_gets_only_its_instance(tmp_path, script):
    visitor = sign_in(page_app(tmp_path))
    ticket = visitor.get().tickets[2]
    response = visitor.post("/", ticket, {"name": "new"}, **script)
    assert (response.status, response.text.startswith('<li id="row-')) == (200, True)
    assert "new<form" in response.text
    response = visitor.post("/", ticket, {"name": ""}, **script)
    assert (response.status, "newempty<form" in response.text) == (422, True)
    assert "<p>page" not in response.text


@pytest.mark.parametrize("prefix", ["", "/m"])
@pytest.mark.parametrize(
    ("script", "header"), [(HTMX, "HX-Redirect"), (PLAIN_SCRIPT, "Noventa-Redirect")]
)
def test_a_redirect_for_a_script_is_a_204_with_the_target_in_a_header(
    tmp_path, script, header, prefix
):
    visitor = sign_in(page_app(tmp_path), SCRIPT_NAME=prefix)
    response = visitor.post("/", visitor.get().tickets[2], {"name": "away"}, **script)
    assert (response.status, response.body, response.header(header)) == (
        204,
        b"",
        f"{prefix}/there",
    )
    assert response.header("Location") is None
    assert "no-store" in response.header("Cache-Control")


@pytest.mark.parametrize(
    ("current", "refresh"),
    [
        ("http://site.test/m/there", "true"),  # the page that the browser shows
        ("http://site.test/m/there#before", "true"),
        ("http://site.test/m/there?page=2", None),
        ("http://site.test/m/", None),
        ("http://[", None),
        ("", None),
    ],
)
def test_a_redirect_to_an_anchor_on_the_current_page_reloads_it(tmp_path, current, refresh):
    visitor = sign_in(page_app(tmp_path), SCRIPT_NAME="/m")
    script = HTMX | {"HTTP_HX_CURRENT_URL": current}
    response = visitor.post("/", visitor.get().tickets[2], {"name": "anchor"}, **script)
    assert response.header("HX-Redirect") == "/m/there#row"
    assert response.header("HX-Refresh") == refresh


@pytest.mark.parametrize("more", ["HTTP_HX_BOOSTED", "HTTP_HX_HISTORY_RESTORE_REQUEST"])
def test_a_boosted_form_gets_the_whole_page(tmp_path, more):
    visitor = sign_in(page_app(tmp_path))
    response = visitor.post(
        "/", visitor.get().tickets[2], {"name": "new"}, **HTMX, **{more: "true"}
    )
    assert "<p>page" in response.text


def test_a_form_in_a_component_with_children_gets_the_whole_page(tmp_path):
    source = "def action_save(request, session, db):\n    return {'said': 'saved'}"
    files = {
        "page.html": "<p>page</p>{% call component('box') %}x{% endcall %}",
        "box.html": "{{ children }}{{ said }}<form method='post'>{{ action('save') }}</form>",
    }
    box = Component("box", "box.html", logic=make_module("fragment_box", source))
    visitor = Visitor(make_app(tmp_path, files, components=[box], routes=[Page("/", "page.html")]))
    response = visitor.post("/", visitor.get().tickets[0], **HTMX)
    assert (response.status, response.text.startswith("<p>page</p>xsaved")) == (200, True)
    assert (response.header("HX-Retarget"), response.header("HX-Reswap")) == ("body", "innerHTML")


def test_a_form_from_an_earlier_session_gets_the_page_retargeted_for_htmx(tmp_path):
    app = page_app(tmp_path)
    ticket, origin = sign_in(app).get().tickets[2], {"HTTP_SEC_FETCH_SITE": "same-origin"}
    response = sign_in(app).post("/", ticket, {"name": "new"}, **origin, **HTMX)
    assert (response.status, response.refused) == (422, "other-session")
    assert (response.header("HX-Retarget"), "<p>page" in response.text) == ("body", True)
    response = sign_in(app).post("/", ticket, {"name": "new"}, **origin, **PLAIN_SCRIPT)
    assert (response.status, response.header("HX-Retarget")) == (403, None)


def test_an_error_page_is_retargeted_to_the_whole_page_for_htmx(tmp_path):
    app = page_app(tmp_path)
    for script, target in ((HTMX, "body"), (PLAIN_SCRIPT, None)):
        response = ask(app, "GET", "/nowhere", **script)
        assert (response.status, response.header("HX-Retarget")) == (404, target)


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        (
            "{{ fragment('rwo', id=1) }}",
            "component 'rwo' is not in the registry; did you mean 'row'",
        ),
        ("{{ fragment('row') }}", "page.html:1: component 'row' requires the prop 'id'"),
        ("{{ fragment('box') }}", "component 'box' uses children, so it cannot be a fragment"),
    ],
)
def test_an_invalid_fragment_is_an_error(tmp_path, page, problem):
    with pytest.raises(RegistryError, match=re.escape(problem)):
        page_app(tmp_path, {"page.html": page})


def test_a_fragment_with_children_is_an_error_that_names_the_line(tmp_path, caplog):
    page = "{% call fragment('row', id=1) %}x{% endcall %}"
    assert ask(page_app(tmp_path, {"page.html": page})).status == 500
    assert "page.html:1: fragment('row') cannot render children." in caplog.text


STEP = """
    def may(request, session, db, *, n=1):
        if n > 3:
            return {"_status": 403}

    def load_template_context(request, session, db, *, n=1):
        return {}
"""
STEP_HTML = "<b id='{{ instance }}'>{{ n }}</b><a href='{{ fragment(n=n + 1) }}'></a>"


def step_app(root, page="{{ component('step') }}", **files):
    step = make_module("fragment_step", STEP)
    components = [Component("step", "step.html", logic=step, guard=step.may)]
    files = {"page.html": page, "step.html": STEP_HTML, **files}
    return make_app(root, files, components=components, routes=[Page("/", "page.html")])


def test_a_components_fragment_of_itself_keeps_its_instance_with_other_props(tmp_path):
    visitor = Visitor(step_app(tmp_path))
    pages = [visitor.get()]
    while pages[-1].status == 200:
        pages.append(fetch(visitor, fragment_urls(pages[-1])[0]))
    assert [re.findall("<b.*>(.*)</b>", page.text) for page in pages] == [["1"], ["2"], ["3"], []]
    assert len({*re.findall("id='(.*?)'", "".join(page.text for page in pages))}) == 1
    assert pages[-1].status == 403  # its guard ran with the new props only


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("{{ fragment() }}", "page.html:1: page '/': fragment() requires a component name"),
        (
            "{% call component('step') %}{% endcall %}",
            "step.html:1: component 'step': fragment() cannot render children.",
        ),
        ("{{ component('wrong') }}", "step.html:1: component 'step' has no prop 'm'"),
    ],
)
def test_the_error_for_a_components_invalid_fragment_of_itself_names_the_line(
    tmp_path, page, message, caplog
):
    wrong = {"step.html": "{{ fragment(m=1) }}"} if "wrong" in page else {}
    visitor = Visitor(step_app(tmp_path, page.replace("wrong", "step"), **wrong))
    assert visitor.get().status == 500
    assert message in caplog.text


TREE = """
    def may(request, session, db, *, depth):
        return None

    def load_template_context(request, session, db, *, depth):
        return {"errors": {"depth": f"<{depth}>"}}

    def action_grow(request, session, db, *, depth):
        return {}
"""
NESTED = {
    "both.html": "{% macro both(name) %}<a href='{{ fragment(name, **kwargs) }}'>"
    "[{{ component(name, **kwargs) }}]</a>{% endmacro %}",
    "page.html": "{% from 'both.html' import both %}{{ both('tree', depth=1) }}"
    "{{ both('tree', depth=1) }}{{ both('tree', key='a/b', depth=1) }}{{ both('plain') }}",
    "tree.html": "{% from 'both.html' import both %}<i id='{{ instance }}'>{{ errors.depth }}"
    "{{ action('grow') }}{% for n in range(2) if depth %}{{ both('tree', depth=depth - 1) }}"
    "{{ both('tree', key=n, depth=depth - 1) }}{% endfor %}{{ both('plain') }}</i>",
    "plain.html": "<b>plain</b>",
}


def test_every_nested_component_renders_alone_exactly_as_in_its_page(tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_800_000_000.0)
    tree = make_module("fragment_tree", TREE)
    components = [
        Component("tree", "tree.html", logic=tree, guard=tree.may),
        Component("plain", "plain.html"),
    ]
    visitor = Visitor(
        make_app(tmp_path, NESTED, components=components, routes=[Page("/", "page.html")])
    )
    page = visitor.get()
    parts = {*fragment_urls(page)}
    assert len(parts) == 27
    for url in parts:
        assert f"<a href='{url}'>[{fetch(visitor, url).text}]</a>" in page.text
