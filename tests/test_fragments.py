"""Fragments: one component alone, by a URL of its page or after a form; and `instance`."""

import re

import pytest
from support import make_app, make_module
from visitors import Visitor, ask

from noventa import Component, Page, RegistryError

HTMX = {"HTTP_HX_REQUEST": "true"}
OURS = {"HTTP_NOVENTA_FRAGMENT": "1"}
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


def member(app, **environ):
    visitor = Visitor(app, **environ)
    assert visitor.post("/", visitor.get().tickets[0]).status == 303
    return visitor


def urls(page):
    return re.findall(r"<a href='([^']*)'", page.text)


def fetch(visitor, url, **more):
    path, _, query = url.partition("?")
    return visitor.get(path.removeprefix("/m"), query=query, **more)


def timeless(text):
    """Without the tickets, whose time of issue may differ by a second, but with what they call."""
    return re.sub(r'value="[^"]*"', "", text)


def test_a_fragment_is_what_the_page_shows_there_byte_by_byte(tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_800_000_000.0)
    visitor = member(page_app(tmp_path), SCRIPT_NAME="/m")
    page = visitor.get()
    parts = re.findall(r"<li.*?</li>", page.text, re.DOTALL)
    first, second, keyed = (fetch(visitor, url).text for url in urls(page))
    assert [first, second, keyed] == [parts[0], parts[1], parts[3]]
    assert len({*re.findall(r'id="([^"]*)"', page.text)}) == 4


def test_a_ticket_inside_a_fragment_works_from_the_page(tmp_path):
    visitor = member(page_app(tmp_path))
    fragment = fetch(visitor, urls(visitor.get())[0])
    answer = visitor.post("/", fragment.tickets[0], {"name": "new"})
    assert (answer.status, "new<form" in answer.text, "<p>page" in answer.text) == (200, True, True)


def test_a_fragment_is_for_this_visitor_only(tmp_path):
    visitor = member(page_app(tmp_path))
    answer = fetch(visitor, urls(visitor.get())[0])
    assert "private" in answer.header("Cache-Control")
    assert "Cookie" in answer.header("Vary")
    url = urls(visitor.get())[0]
    assert fetch(Visitor(visitor.app), url).refused == "other-session"


def test_a_fragment_of_another_path_or_changed_is_refused(tmp_path):
    app = page_app(tmp_path)
    visitor = member(app)
    url = urls(visitor.get())[0]
    assert fetch(visitor, url, SCRIPT_NAME="/other").refused == "other-page"
    assert fetch(visitor, f"{url[:-1]}~").status in (400, 403)
    assert fetch(visitor, f"/?_fragment={visitor.get().tickets[0]}").refused == "bad-signature"


def test_a_fragment_stands_behind_the_guards_around_it(tmp_path):
    visitor = member(page_app(tmp_path))
    url = urls(visitor.get())[0]
    visitor.post("/", visitor.get().tickets[1])
    assert fetch(visitor, url).status == 403


def test_a_fragment_stands_behind_the_guards_of_its_page(tmp_path):
    shut = []

    def guard(request, session, db):
        return {"_redirect": "/sign-in"} if shut else None

    visitor = member(page_app(tmp_path, guards=[guard]))
    url = urls(visitor.get())[0]
    shut.append(True)
    assert fetch(visitor, url).header("Location") == "/sign-in"
    answer = fetch(visitor, url, **HTMX)
    assert (answer.status, answer.header("HX-Redirect")) == (204, "/sign-in")


SHUT = """
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
NOTED = "<a href='{{ fragment('note') }}'></a>{{ component('note') }}"


def shut_app(root):
    """Pages whose own logic may refuse, with the module that says so, and a visitor."""
    logic = make_module("fragment_shut", SHUT)
    note = make_module("fragment_shut_note", SHUT)
    del note.load_template_context
    files = {"page.html": NOTED, "note.html": "<i>{{ action('note') }}</i>"}
    components = [Component("note", "note.html", logic=note)]
    routes = [Page("/", "page.html", logic=logic)]
    return logic, note, Visitor(make_app(root, files, components=components, routes=routes))


@pytest.mark.parametrize(
    ("says", "status", "location"),
    [({"_status": 404}, 404, None), ({"_redirect": "/sign-in"}, 303, "/sign-in")],
)
def test_a_fragment_and_an_action_are_refused_as_their_page_is(tmp_path, says, status, location):
    logic, note, visitor = shut_app(tmp_path)
    page = visitor.get()
    assert fetch(visitor, urls(page)[0]).status == 200
    logic.shut.append(says)
    for answer in (fetch(visitor, urls(page)[0]), visitor.post("/", page.tickets[0])):
        assert (answer.status, answer.header("Location")) == (status, location)
    assert note.ran == []


@pytest.mark.parametrize("script", [{}, HTMX])
def test_what_a_page_does_to_the_session_counts_once_after_an_action(tmp_path, script):
    _, note, visitor = shut_app(tmp_path)
    ticket = visitor.get().tickets[0]
    assert visitor.post("/", ticket, **script).status == 200
    session = visitor.app.sessions.read(visitor.cookies)
    assert (note.ran, dict(session)) == ([1], {"shown": 2, "noted": 1})
    assert visitor.post("/", ticket, {"away": "1"}).status == 303
    session = visitor.app.sessions.read(visitor.cookies)
    assert (note.ran, dict(session)) == ([1, 2], {"shown": 2, "noted": 2})


def test_a_page_that_its_action_has_shut_shows_no_fragment_of_itself(tmp_path):
    logic, note, visitor = shut_app(tmp_path)
    ticket = visitor.get().tickets[0]
    note.shut = logic.shut
    assert visitor.post("/", ticket, {"shut": "1"}, **HTMX).status == 404


@pytest.mark.parametrize("script", [HTMX, OURS])
def test_a_form_that_a_script_posts_gets_its_instance_alone(tmp_path, script):
    visitor = member(page_app(tmp_path))
    ticket = visitor.get().tickets[2]
    answer = visitor.post("/", ticket, {"name": "new"}, **script)
    assert (answer.status, answer.text.startswith('<li id="row-')) == (200, True)
    assert "new<form" in answer.text
    answer = visitor.post("/", ticket, {"name": ""}, **script)
    assert (answer.status, "newempty<form" in answer.text) == (422, True)
    assert "<p>page" not in answer.text


@pytest.mark.parametrize("prefix", ["", "/m"])
@pytest.mark.parametrize(("script", "header"), [(HTMX, "HX-Redirect"), (OURS, "Noventa-Redirect")])
def test_a_redirect_of_a_script_is_a_204_that_says_where(tmp_path, script, header, prefix):
    visitor = member(page_app(tmp_path), SCRIPT_NAME=prefix)
    answer = visitor.post("/", visitor.get().tickets[2], {"name": "away"}, **script)
    assert (answer.status, answer.body, answer.header(header)) == (204, b"", f"{prefix}/there")
    assert answer.header("Location") is None
    assert "no-store" in answer.header("Cache-Control")


@pytest.mark.parametrize(
    ("current", "refresh"),
    [
        ("http://site.test/m/there", "true"),  # to the browser it is the page that it shows
        ("http://site.test/m/there#before", "true"),
        ("http://site.test/m/there?page=2", None),
        ("http://site.test/m/", None),
        ("http://[", None),
        ("", None),
    ],
)
def test_a_redirect_to_an_anchor_of_the_page_shown_loads_it_again(tmp_path, current, refresh):
    visitor = member(page_app(tmp_path), SCRIPT_NAME="/m")
    script = HTMX | {"HTTP_HX_CURRENT_URL": current}
    answer = visitor.post("/", visitor.get().tickets[2], {"name": "anchor"}, **script)
    assert answer.header("HX-Redirect") == "/m/there#row"
    assert answer.header("HX-Refresh") == refresh


@pytest.mark.parametrize("more", ["HTTP_HX_BOOSTED", "HTTP_HX_HISTORY_RESTORE_REQUEST"])
def test_a_boosted_form_gets_the_page(tmp_path, more):
    visitor = member(page_app(tmp_path))
    answer = visitor.post("/", visitor.get().tickets[2], {"name": "new"}, **HTMX, **{more: "true"})
    assert "<p>page" in answer.text


def test_a_form_beside_children_gets_the_page(tmp_path):
    source = "def action_save(request, session, db):\n    return {'said': 'saved'}"
    files = {
        "page.html": "<p>page</p>{% call component('box') %}x{% endcall %}",
        "box.html": "{{ children }}{{ said }}<form method='post'>{{ action('save') }}</form>",
    }
    box = Component("box", "box.html", logic=make_module("fragment_box", source))
    visitor = Visitor(make_app(tmp_path, files, components=[box], routes=[Page("/", "page.html")]))
    answer = visitor.post("/", visitor.get().tickets[0], **HTMX)
    assert (answer.status, answer.text.startswith("<p>page</p>xsaved")) == (200, True)
    assert (answer.header("HX-Retarget"), answer.header("HX-Reswap")) == ("body", "innerHTML")


def test_a_form_of_an_earlier_session_gets_the_page_which_htmx_is_told_to_show(tmp_path):
    app = page_app(tmp_path)
    ticket, origin = member(app).get().tickets[2], {"HTTP_SEC_FETCH_SITE": "same-origin"}
    answer = member(app).post("/", ticket, {"name": "new"}, **origin, **HTMX)
    assert (answer.status, answer.refused) == (422, "other-session")
    assert (answer.header("HX-Retarget"), "<p>page" in answer.text) == ("body", True)
    answer = member(app).post("/", ticket, {"name": "new"}, **origin, **OURS)
    assert (answer.status, answer.header("HX-Retarget")) == (403, None)


def test_htmx_is_told_to_show_an_error_page_as_the_whole_page(tmp_path):
    app = page_app(tmp_path)
    for script, target in ((HTMX, "body"), (OURS, None)):
        answer = ask(app, "GET", "/nowhere", **script)
        assert (answer.status, answer.header("HX-Retarget")) == (404, target)


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
def test_a_fragment_that_cannot_be_is_a_fault(tmp_path, page, problem):
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


def test_a_component_names_itself_with_other_props_and_stays_the_same_instance(tmp_path):
    visitor = Visitor(step_app(tmp_path))
    pages = [visitor.get()]
    while pages[-1].status == 200:
        pages.append(fetch(visitor, urls(pages[-1])[0]))
    assert [re.findall("<b.*>(.*)</b>", page.text) for page in pages] == [["1"], ["2"], ["3"], []]
    assert len({*re.findall("id='(.*?)'", "".join(page.text for page in pages))}) == 1
    assert pages[-1].status == 403  # its guard was asked with the new props only


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
def test_a_component_that_cannot_be_its_own_fragment_names_the_line(
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


def test_each_component_of_an_application_is_alone_what_it_is_within_its_page(
    tmp_path, monkeypatch
):
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
    parts = {*urls(page)}
    assert len(parts) == 27
    for url in parts:
        assert f"<a href='{url}'>[{fetch(visitor, url).text}]</a>" in page.text
