"""Components: templates with a logic module, rendered in pages as independent instances."""

import re
import shutil

import pytest
from jinja2 import StrictUndefined
from jinja2.ext import InternationalizationExtension
from support import make_app, make_module, users_module
from visitors import Visitor, ask

from noventa import Component, Page, PropsError, RegistryError, Static


def component_app(root, page, components=(), files=(), config=None, **registry):
    """Create an application with one page; `components` maps names to (template, source)."""
    registered, written = [], {"page.html": page, **dict(files)}
    for name, (template, source) in dict(components).items():
        logic = make_module(f"{name}.{name}_logic", source) if source else None
        written[f"{name}.html"] = template
        registered.append(Component(name, f"{name}.html", logic=logic))
    registry.setdefault("routes", [Page("/", "page.html"), Page("/at/{place}", "page.html")])
    return make_app(root, written, config, components=registered, **registry)


def failure_of(app, caplog, path="/"):
    """Request the path, which must return a 500, and return the message of its exception."""
    caplog.clear()
    assert ask(app, path=path).status == 500
    (record,) = [record for record in caplog.records if record.exc_info]
    return str(record.exc_info[1])


USER_LOGIC = """
    from user.user_models import User

    def load_template_context(request, session, db, **props):
        return {"user": db.get(User, props.get("id", 1))}

    def action_rename(request, session, db, **props):
        db.get(User, props.get("id", 1)).name = request.form["name"]
        db.commit()
        return {"message": "saved"}
"""


# Template contexts


@pytest.mark.parametrize("name", ["url", "children", "key", "caller"])
@pytest.mark.parametrize("default", ["", "=None"])
def test_declaring_a_prop_with_a_reserved_name_is_an_error(tmp_path, name, default):
    source = f"def load_template_context(request, session, db, *, {name}{default}): return {{}}"
    with pytest.raises(RegistryError, match=r"prop '\w+' of component 'c' is reserved"):
        component_app(tmp_path, "{{ component('c') }}", {"c": ("", source)})


@pytest.mark.parametrize("page", [
    "{% for n in range(2) %}{% set text = n ~ '!' %}{{ component('c', text=text) }}{% endfor %}",
    ("{% block main %}{% set text = '0!' %}{{ component('c', text=text) }}"
    "{{ component('c', text='1!') }}{% endblock %}"),
    ("{% set text = '0!' %}{{ component('c', text=text) }}"
    "{% call component('c', text='1!') %}ignored{% endcall %}"),
    ("{% macro render(text) %}{{ component('c', text=text) }}{% endmacro %}"
    "{{ render('0!') }}{{ render('1!') }}"),
    "{% from 'macros.html' import render with context %}{{ render('0!') }}{{ render('1!') }}",
    "{% include 'part.html' %}{% set show = component %}{{ show('c', text='1!') }}",
])  # fmt: skip
def test_a_component_can_be_rendered_wherever_jinja_allows_a_call(tmp_path, page):
    files = {
        "macros.html": "{% macro render(text) %}{{ component('c', text=text) }}{% endmacro %}",
        "part.html": "{{ component('c', text='0!') }}",
    }
    source = "def load_template_context(request, session, db, *, text): return {}"
    app = component_app(tmp_path, page, {"c": ("[{{ text }}]", source)}, files)
    assert ask(app).text.strip() == "[0!][1!]"


def test_a_component_has_access_to_its_props_and_its_handlers_result(tmp_path):
    source = (
        "def load_template_context(request, session, db, **props): return {'b': props['a'] * 2}"
    )
    app = component_app(tmp_path, "{{ component('c', a=2) }}", {"c": ("{{ a }} {{ b }}", source)})
    assert ask(app).text == "2 4"


def test_a_component_has_no_access_to_the_context_of_its_page_or_parent(tmp_path):
    components = {
        "outer": ("{{ place }}{% set x = 1 %}{{ component('inner') }}", None),
        "inner": ("[{{ place }}{{ x }}{{ mine }}{{ request }}]", None),
    }
    page = "{% set x = 2 %}{{ place }}: {{ component('outer', mine=3) }}"
    assert ask(component_app(tmp_path, page, components), path="/at/home").text == "home: []"


def test_a_components_handler_receives_request_session_and_db(tmp_path):
    source = """
        def load_template_context(request, session, db, **props):
            session["seen"] = True
            return {"found": (request.args.get("q"), db.connection().closed, props)}
    """
    app = component_app(tmp_path, "{{ component('c') }}", {"c": ("{{ found }}", source)})
    response = ask(app, query="q=x")
    assert response.text == "(&#39;x&#39;, False, {})"
    assert response.header("Set-Cookie")


# Headers


HEADERS = """
    def load_template_context(request, session, db):
        return {"_headers": %s}

    def action_save(request, session, db):
        return {"_status": 422, "_headers": {"Cache-Control": "no-store"}}
"""
SAVE_FORM = "<form method='post'>{{ action('save') }}</form>"


def test_headers_returned_by_components_are_added_to_the_pages_response(tmp_path):
    one = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Vary", "Accept")]
    two = {"Vary": "Accept-Language", "content-security-policy": "default-src 'self'"}
    components = {"one": ("", HEADERS % one), "two": ("", HEADERS % two)}
    response = ask(
        component_app(tmp_path, "{{ component('one') }}{{ component('two') }}", components)
    )
    assert [v for name, v in response.headers if name == "Set-Cookie"] == ["a=1", "b=2"]
    assert response.header("Vary") == "Accept, Accept-Language"
    policies = [v for name, v in response.headers if name.lower() == "content-security-policy"]
    assert policies == ["default-src 'self'"]


def test_headers_returned_by_an_action_are_added_to_its_response(tmp_path):
    app = component_app(
        tmp_path, "{{ component('c') }}", {"c": (SAVE_FORM, HEADERS % {"X-Load": "1"})}
    )
    visitor = Visitor(app)
    response = visitor.post("/", visitor.get("/").tickets[0])
    assert response.status == 422
    assert response.header("X-Load") == "1"
    assert "no-store" in response.header("Cache-Control")


def test_headers_of_a_page_that_fails_are_dropped(tmp_path):
    page = "{{ component('c') }}{{ 1 // 0 }}"
    files = {"error.html": "{{ status }}"}
    source = HEADERS % {"Cache-Control": "public, max-age=60"}
    response = ask(
        component_app(tmp_path, page, {"c": ("", source)}, files, errors={"5xx": "error.html"})
    )
    assert (response.status, response.header("Cache-Control")) == (500, None)


def test_headers_are_sent_once_when_a_page_is_rendered_again_in_order_to_write(tmp_path):
    source = (
        USER_LOGIC.partition("def action")[0]
        + """
    def action_save(request, session, db):
        return {}
    """
    )
    source = source.replace(
        "return {", "db.add(User(name='x')); db.flush(); db.rollback(); return {"
    )
    source = source.replace('return {"user"', 'return {"_headers": {"X-Once": "1"}, "user"')
    app = component_app(
        tmp_path, "{{ component('c') }}", {"c": (SAVE_FORM, source)},
        models=[users_module()],
    )  # fmt: skip
    app.registry.metadata.create_all(app.database.engine)
    visitor = Visitor(app)
    assert visitor.post("/", visitor.get("/").tickets[0]).header("X-Once") == "1"


@pytest.mark.parametrize(("headers", "message"), [
    ("'text'", "returned _headers 'text'; expected a mapping or (name, value) pairs"),
    ("[('X', 'a', 'b')]", "expected a mapping or (name, value) pairs"),
    ("{'X Y': 'a'}", "has a name that HTTP does not allow"),
    ("{'X': 1}", "'X' is 1; expected a string"),
    ("{'content-length': '3'}", "'content-length' in _headers; Noventa sets that header"),
])  # fmt: skip
def test_invalid_headers_are_an_error_that_names_the_problem(tmp_path, caplog, headers, message):
    app = component_app(tmp_path, "{{ component('c') }}", {"c": ("", HEADERS % headers)})
    assert message in failure_of(app, caplog)


def test_a_header_with_a_line_break_is_rejected(tmp_path):
    source = "def load_template_context(request, session, db):\n return {'_headers': {'X': %s}}"
    source %= "request.args['q']"
    app = component_app(tmp_path, "{{ component('c') }}", {"c": ("", source)})
    assert ask(app, query="q=a%0aSet-Cookie:x").status == 400


def test_the_error_names_a_handler_that_forgot_its_return(tmp_path, caplog):
    source = "def load_template_context(request, session, db): user = {}"
    app = component_app(tmp_path, "{{ component('c') }}", {"c": ("{{ user.name.first }}", source)})
    message = failure_of(app, caplog)
    assert "load_template_context" in message
    assert "returned None; its template needs a dict: 'user' is undefined" in message


def test_a_components_template_is_in_its_folder_unless_another_is_named(tmp_path):
    files = {
        "page.html": "{{ component('user') }}{{ component('forms/user') }}{{ component('x') }}",
        "components/user/user_template.html": "user ",
        "components/forms/user/user_template.html": "form ",
        "x.html": "x",
    }
    components = [Component("user"), Component("forms/user"), Component("x", template="x.html")]
    app = make_app(tmp_path, files, components=components, routes=[Page("/", "page.html")])
    assert ask(app).text == "user form x"


def test_jinja_extensions_can_be_used(tmp_path):
    known = {"gettext": {"hello": "hallo"}.get, "ngettext": None}
    page = "{% trans %}hello{% endtrans %} {{ _('hello') }}"
    app = component_app(tmp_path, page, extensions=[InternationalizationExtension], globals=known)
    assert ask(app).text == "hallo hallo"


@pytest.mark.parametrize("extension", ["jinja2.ext.i18n", str, InternationalizationExtension])
def test_an_invalid_extension_is_an_error(tmp_path, extension):
    given = extension if extension in ("jinja2.ext.i18n", str) else [extension]
    with pytest.raises(RegistryError, match=r"extensions (has|is) .*(list the class|a list)"):
        component_app(tmp_path, "", extensions=[given])


def test_a_component_without_logic_has_access_to_its_props(tmp_path):
    app = component_app(tmp_path, "{{ component('c', a='x') }}", {"c": ("{{ a }}", None)})
    assert ask(app).text == "x"


def test_a_handler_may_return_none(tmp_path):
    source = "def load_template_context(request, session, db): pass"
    assert ask(component_app(tmp_path, "{{ component('c') }}", {"c": ("ok", source)})).text == "ok"


@pytest.mark.parametrize("name", ["page.html", "page.txt", "page.svg", "page.j2"])
def test_every_template_is_autoescaped(tmp_path, name):
    files = {name: "{{ place }}{{ component('c', a=place) }}"}
    routes = [Page("/{place}", name)]
    app = component_app(tmp_path, "", {"c": ("<i>{{ a }}</i>", None)}, files, routes=routes)
    assert ask(app, path="/<b>").text == "&lt;b&gt;<i>&lt;b&gt;</i>"


def test_the_registrys_filters_are_added_to_jinjas(tmp_path):
    app = component_app(
        tmp_path, "{{ 'a' | twice | upper }}", filters={"twice": lambda text: text * 2}
    )
    assert ask(app).text == "AA"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("{{ component('c') }}", "[]"),
        ("{% call component('c') %}<b>{{ place }}</b>{% endcall %}", "[<b>home</b>]"),
        ("{% call component('c') %}{{ '<' }}{{ component('d') }}{% endcall %}", "[&lt;d]"),
        (
            "{% call component('c') %}1{% call component('c') %}2{% endcall %}{% endcall %}",
            "[1[2]]",
        ),
    ],
)
def test_children_is_the_content_of_the_call_block(tmp_path, call, expected):
    app = component_app(tmp_path, call, {"c": ("[{{ children }}]", None), "d": ("d", None)})
    assert ask(app, path="/at/home").text == expected


def test_missing_errors_and_values_are_empty_even_with_strict_undefined(tmp_path):
    template = "[{{ errors.name }}{{ values['name'] }}{{ children }}{{ errors | length }}]"
    app = component_app(tmp_path, "{{ component('c') }}", {"c": (template, None)})
    app.jinja.undefined = StrictUndefined
    assert ask(app).text == "[0]"


def test_strict_undefined_reports_a_misspelt_name(tmp_path, caplog):
    app = component_app(tmp_path, "{{ component('c') }}", {"c": ("{{ nmae }}", None)})
    app.jinja.undefined = StrictUndefined
    assert failure_of(app, caplog) == "'nmae' is undefined"


@pytest.mark.parametrize("name", ["errors", "values"])
def test_the_error_for_errors_or_values_of_a_wrong_type_names_the_component(tmp_path, caplog, name):
    app = component_app(
        tmp_path, f"{{{{ component('c', {name}=['Too long']) }}}}", {"c": ("", None)}
    )
    assert failure_of(app, caplog) == f"component 'c': {name} is a list; expected a dict."


@pytest.mark.parametrize("source", ["return [1]", "return 'text'"])
def test_the_error_names_a_handler_that_returns_no_dict(tmp_path, caplog, source):
    source = f"\ndef load_template_context(request, session, db): {source}"
    failure = failure_of(
        component_app(tmp_path, "{{ component('c') }}", {"c": ("", source)}), caplog
    )
    assert failure.startswith("c/c_logic.py:2: load_template_context returned a ")
    assert failure.endswith("; expected a dict.")


# Props

DECLARED = "def load_template_context(request, session, db, *, id, mode='view'): return {'m': mode}"


@pytest.mark.parametrize(
    ("call", "expected"),
    [("component('c', id=1)", "1 view"), ("component('c', id=2, mode='x')", "2 x")],
)  # fmt: skip
def test_props_can_be_declared(tmp_path, call, expected):
    app = component_app(tmp_path, "{{ " + call + " }}", {"c": ("{{ id }} {{ m }}", DECLARED)})
    assert ask(app).text == expected


WRONG_PROPS = [
    ("component('c')", "component 'c' requires the prop 'id'; pass it: component('c', id=…)."),
    ("component('c', id=1, moed=2)", "component 'c' has no prop 'moed'; did you"),
    ("component('c', id=1, x=2)", "component 'c' has no prop 'x'; known: id, mode"),
    ("component('c', ide=1)", "component 'c' requires the prop 'id'"),
    ("component('free', url='/')", "component 'free': the prop 'url' is reserved"),
    ("component('free', db=1)", "component 'free': the prop 'db' is reserved"),
]
WRONG_NAME = "component 'cx' is not in the registry; did you mean 'c'?"


@pytest.mark.parametrize(("call", "problem"), [*WRONG_PROPS, ("component('c' ~ 'x')", WRONG_NAME)])
def test_the_error_for_a_wrong_prop_names_the_component_and_the_calling_line(
    tmp_path, caplog, call, problem
):
    components = {"c": ("", DECLARED), "free": ("", None)}
    late = call.removesuffix(")") + ", **{})"  # the arguments are known only when it is called
    app = component_app(tmp_path, "<p>\n{% if 1 %}\n{{ " + late + " }}{% endif %}", components)
    assert failure_of(app, caplog).startswith(f"page.html:3: {problem}")


@pytest.mark.parametrize(("call", "problem"), WRONG_PROPS)
@pytest.mark.parametrize("block", ["{{{{ {} }}}}", "{{% call {} %}}{{% endcall %}}"])
def test_a_wrong_literal_prop_is_an_error_at_startup(tmp_path, call, problem, block):
    components = {"c": ("", DECLARED), "free": ("", None)}
    with pytest.raises(RegistryError) as caught:
        component_app(tmp_path, "{% if 0 %}\n" + block.format(call) + "{% endif %}", components)
    assert str(caught.value.faults[0]).startswith(f"page.html:2: {problem}")


def test_the_error_for_a_wrong_prop_names_the_line_in_the_calling_component(tmp_path, caplog):
    components = {"outer": ("\n{{ component('c', **{}) }}", None), "c": ("", DECLARED)}
    app = component_app(tmp_path, "{{ component('outer') }}", components)
    assert failure_of(app, caplog).startswith("outer.html:2: component 'c' requires the prop 'id'")


@pytest.mark.parametrize("name", ["name", "self", "parent", "compiled", "place", "template"])
def test_a_prop_may_have_any_other_name(tmp_path, name):
    source = "def load_template_context(request, session, db, **props): return {'p': props}"
    app = component_app(tmp_path, f"{{{{ component('c', {name}=1) }}}}", {"c": ("{{ p }}", source)})
    assert ask(app).text == f"{{&#39;{name}&#39;: 1}}"


@pytest.mark.parametrize("name", ["children", "url", "component"])
def test_a_result_with_the_name_of_a_template_function_is_an_error(tmp_path, caplog, name):
    source = f"def load_template_context(request, session, db): return {{{name!r}: 1}}"
    app = component_app(tmp_path, "{{ component('c') }}", {"c": ("", source)})
    assert failure_of(app, caplog).startswith(f"component 'c': a handler returned {name!r}, a")


def test_a_component_that_renders_itself_is_an_error(tmp_path, caplog):
    app = component_app(tmp_path, "{{ component('c') }}", {"c": ("{{ component('c') }}", None)})
    assert failure_of(app, caplog) == "components are nested more than 50 deep: c > c > c."


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("action('sa' ~ 've')", "c.html:2: component 'c' has no action 'save'; did you mean 'sve"),
        ("action('sve')", "c.html:2: component 'c': action 'sve' has no prop 'id'"),
        ("action_ticket('sve')", "c.html:2: component 'c': action 'sve' has no prop 'id'"),
        ("action('add')", "c.html:2: component 'c': action 'add' requires the prop 'count'"),
    ],
)  # fmt: skip
def test_an_action_that_cannot_be_called_is_an_error_when_it_is_rendered(
    tmp_path, caplog, call, problem
):
    source = """
        def action_sve(request, session, db): ...
        def action_add(request, session, db, *, count, **props): ...
    """
    app = component_app(
        tmp_path, "{{ component('c', id=1) }}", {"c": ("\n{{ " + call + " }}", source)}
    )
    assert failure_of(app, caplog).startswith(problem)


def test_an_unknown_action_of_a_page_is_an_error(tmp_path, caplog):
    app = component_app(tmp_path, "{{ action('sa' ~ 've') }}")
    assert failure_of(app, caplog) == "page.html:1: page '/' has no action 'save'; none is known"


# Instances

SAVING = """
    def load_template_context(request, session, db, **props):
        return {"message": "-", "said": "loaded"}

    def action_save(request, session, db, **props):
        return {"message": request.form["text"], "errors": {"text": "odd"}, "values": request.form}
"""
FORM = "[{{ message }} {{ said }} {{ errors.text }} {{ values.text }}{% if 0 %}{% endif %}]"
WITH_ACTION = FORM + "<form method=post>{{ action('save') }}</form>"


@pytest.mark.parametrize(
    "calls",
    [
        ["component('c', id=1)", "component('c', id=2)", "component('c', id=3)"],
        ["component('c', key='a')", "component('c', key='b')", "component('c', key=3)"],
        ["component('c')", "component('c')", "component('c')"],
        ["component('c')", "component('box', key=1)", "component('box', key=2)"],
        ["component('c', key=1)", "component('c', key=1)", "component('c', key='1#2')"],
        ["component('c', key='x/c=1')", "component('x', key='x')", "component('c', key=1)"],
        ["component('c', id=1)", "component('c', id=True)", "component('c', id='1')"],
    ],
)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_actions_dict_reaches_only_the_posted_instance(tmp_path, calls, number):
    page = "".join(f"{{{{ {call} }}}}" for call in calls)
    components = {"box": ("{{ component('c') }}", None), "x": ("{{ component('c') }}", None)}
    app = component_app(tmp_path, page, components | {"c": (WITH_ACTION, SAVING)})
    visitor = Visitor(app)
    response = visitor.post("/", visitor.get().tickets[number], {"text": "hey"})
    parts = [part.split("]")[0] for part in response.text.split("[")[1:]]
    expected = ["- loaded  "] * 3
    expected[number] = "hey loaded odd hey"
    assert (response.status, parts) == (200, expected)


@pytest.mark.parametrize(
    "inner",
    [
        "{{ component('c') }}",
        "{% set name = 'c' %}{{ component(name) }}",
        "{% set show = component %}{{ show('c') }}",
        "{% set file = 'part.html' %}{% include file %}",
    ],
)
@pytest.mark.parametrize("call", ["component('box', key=id)", "component('box', id=id)"])
def test_an_instance_is_still_found_after_earlier_ones_are_removed(tmp_path, call, inner):
    source = """
        def load_template_context(request, session, db): return {"ids": session.get("ids", "123")}
    """
    saving = """
        def action_save(request, session, db):
            session["ids"] = "23"
            return {"message": "saved"}
    """
    components = {
        "list": ("{% for id in ids %}{{ id }}{{ " + call + " }}{% endfor %}", source),
        "box": (inner, None),
        "c": ("{{ message }},<form>{{ action('save') }}</form>", saving),
    }
    part = {"part.html": "{{ component('c') }}"}
    visitor = Visitor(component_app(tmp_path, "{{ component('list') }}", components, part))
    text = visitor.post("/", visitor.get().tickets[1]).text
    assert re.sub("<form>.*?</form>", "", text) == "2saved,3,"


def test_props_may_be_of_any_type(tmp_path):
    page = "{{ component('c', a={1: 2, 'x': 3}) }}{{ component('c', a={(1, 2): [range(3)]}) }}"
    source = "def action_save(request, session, db, **props): ..."
    assert ask(component_app(tmp_path, page, {"c": ("{{ a | length }}", source)})).text == "21"


def test_every_component_is_loaded_after_the_action(tmp_path):
    models = users_module()
    user = ("[{{ user.name }} {{ message }}]<form>{{ action('rename') }}</form>", USER_LOGIC)
    page = "{{ component('user', id=1) }}{{ component('user', id=2) }}{{ component('user') }}"
    app = component_app(tmp_path, page, {"user": user}, models=[models])
    with app.database.session() as db:
        db.add_all([models.User(name="Ada"), models.User(name="Bob")])
        db.commit()
    visitor = Visitor(app)
    first, *_ = visitor.get().tickets
    response = visitor.post("/", first, {"name": "Ada L."})
    parts = [part.split("]")[0] for part in response.text.split("[")[1:]]
    assert parts == ["Ada L. saved", "Bob ", "Ada L. "]


def test_props_come_from_the_ticket_and_fields_from_the_form(tmp_path):
    source = """
        def action_save(request, session, db, *, id):
            return {"message": f"{id} {request.form['id']} {sorted(request.form)}"}
    """
    template = "{{ message }}|{{ action('save') }}"
    visitor = Visitor(
        component_app(tmp_path, "{{ component('c', id=7) }}", {"c": (template, source)})
    )
    response = visitor.post("/", visitor.get().tickets[0], {"id": "8"})
    assert response.text.startswith("7 8 [&#39;id&#39;]|")


def test_each_button_has_its_own_ticket(tmp_path):
    source = """
        def action_up(request, session, db): return {"said": "up"}
        def action_down(request, session, db): return {"said": "down"}
    """
    template = (
        "{{ said }}|<form>"
        '<button name="_ticket" value="{{ action_ticket("up") }}">'
        '<button name="_ticket" value="{{ action_ticket("down") }}"></form>'
    )
    visitor = Visitor(component_app(tmp_path, "{{ component('c') }}", {"c": (template, source)}))
    up, down = visitor.get().tickets
    assert visitor.post("/", down).text.startswith("down|")
    assert visitor.post("/", up).text.startswith("up|")


# Guards of components

GUARDED = """
    import webob
    import webob.exc

    def guard(request, session, db, *, id=None):
        if request.args.get("as") != "owner":
            return {"redirect": {"_redirect": "/in"}, "status": {"_status": 403, "message": "Not yours"},
                    "response": webob.Response("as it is", status=402)}[id]
        return None

    def action_save(request, session, db, **props):
        return {"said": "saved"}
"""  # noqa: E501


@pytest.mark.parametrize(
    ("id", "status", "text"),
    [("redirect", 303, ""), ("status", 403, "Not yours"), ("response", 402, "as it is")],
)
def test_a_components_guard_runs_when_it_is_rendered_and_before_its_actions(
    tmp_path, id, status, text
):
    logic = make_module("c.c_logic", GUARDED)
    component = Component("c", "c.html", logic=logic, guard=logic.guard)
    page = f"before {{{{ component('c', id={id!r}, more=1) }}}}"
    files = {"page.html": page, "c.html": "{{ said }}{{ action('save') }}"}
    visitor = Visitor(
        make_app(tmp_path, files, components=[component], routes=[Page("/", "page.html")])
    )
    ticket = visitor.get(query="as=owner").tickets[0]
    assert visitor.post("/", ticket, query="as=owner").text.startswith("before saved")
    for response in (visitor.get(), visitor.post("/", ticket)):
        assert response.status == status
        assert text in response.text
        assert "before" not in response.text


@pytest.mark.parametrize("where", ["load_template_context", "guard"])
def test_a_forgotten_commit_is_logged_with_the_component_path(tmp_path, caplog, where):
    models = users_module()
    source = f"""
        from user.user_models import User

        def {where}(request, session, db):
            db.add(User(name="Eve"))
    """
    logic = make_module("c.c_logic", source)
    files = {
        "page.html": "{{ component('box') }}",
        "box.html": "{{ component('c') }}",
        "c.html": "",
    }
    components = [
        Component("box", "box.html"),
        Component("c", "c.html", logic=logic, guard=getattr(logic, "guard", None)),
    ]
    routes = [Page("/", "page.html")]
    app = make_app(tmp_path, files, components=components, models=[models], routes=routes)
    assert ask(app).status == 200
    assert caplog.messages == [
        f"page.html > box > c > {where} changed rows without db.commit(); rolled back: new User"
    ]


# Functions of every template


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("/users/7", "/users/7"),
        ("/", "/"),
        ("/a b/é", "/a%20b/%C3%A9"),
        ("/a%20b", "/a%20b"),
        ("/search?q=a&b=c#d", "/search?q=a&amp;b=c#d"),
        ("/\\evil.example", "/%5Cevil.example"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/m", "/caf\xc3\xa9"])
def test_url_adds_the_mount_prefix_and_percent_encodes(tmp_path, path, url, prefix):
    source = f"def load_template_context(request, session, db): return {{'path': {path!r}}}"
    app = component_app(tmp_path, "{{ component('c') }}", {"c": ("{{ url(path) }}", source)})
    encoded_prefix = {"": "", "/m": "/m", "/caf\xc3\xa9": "/caf%C3%A9"}[prefix]
    assert ask(app, SCRIPT_NAME=prefix).text == encoded_prefix + url


@pytest.mark.parametrize("path", ["users", "//evil.example", "https://evil.example", ""])
def test_url_rejects_non_local_paths(tmp_path, caplog, path):
    app = component_app(tmp_path, f"\n{{{{ url({path!r}) }}}}")
    assert failure_of(app, caplog) == (
        f"page.html:2: url({path!r}) is not a local path; expected one like '/x'."
    )


def test_static_returns_a_url_that_changes_with_the_file(tmp_path):
    def app_with(css, debug=False):
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / "my site.css").write_text(css)
        routes = [Page("/", "page.html"), Static("/files/", "files")]
        page = "{{ static('my site.css') }}"
        return component_app(tmp_path, page, routes=routes, config={"debug": debug})

    first, second = ask(app_with("a"), SCRIPT_NAME="/m").text, ask(app_with("b")).text
    assert first.startswith("/m/files/my%20site.css?v=")
    assert first.removeprefix("/m") != second
    app = app_with("a", debug=True)
    assert ask(app).text == first.removeprefix("/m")
    (tmp_path / "files" / "my site.css").write_text("b")
    assert ask(app).text == second


def test_the_error_for_a_missing_file_names_the_line_and_a_similar_file(tmp_path, caplog):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "site.css").write_text("a")
    routes = [Page("/", "page.html"), Static("/files", "files")]
    app = component_app(tmp_path, "\n{{ static('sit' ~ '.css') }}", routes=routes)
    failure = failure_of(app, caplog)
    assert (
        failure == "page.html:2: static('sit.css'): no such file in files; did you mean 'site.css'?"
    )


def test_the_error_for_static_without_a_static_route_names_the_line(tmp_path, caplog):
    failure = failure_of(component_app(tmp_path, "\n{{ static('no' ~ '.css') }}"), caplog)
    assert failure.startswith("page.html:2: static('no.css'): the registry has no Static route;")


@pytest.mark.parametrize("where", ["page", "component"])
def test_flashes_are_shown_once(tmp_path, where):
    template = "{% for flash in flashes() %}{{ flash.kind }}: {{ flash.text }}{% endfor %}"
    source = """
        def load_template_context(request, session, db):
            if request.args.get("say"):
                session.flash("<saved>", "good")
    """
    page = "{{ component('c') }}" + (template if where == "page" else "")
    component = template if where == "component" else ""
    visitor = Visitor(component_app(tmp_path, page, {"c": (component, source)}))
    assert visitor.get(query="say=1").text == "good: &lt;saved&gt;"
    assert visitor.get().text == ""


# Templates and their files


def test_in_debug_mode_a_changed_template_is_reloaded(tmp_path):
    files = {"base.html": "<{% block b %}{% endblock %}>"}
    page = "{% extends 'base.html' %}{% block b %}{{ component('c') }}{% endblock %}"
    app = component_app(tmp_path, page, {"c": ("one", None)}, files, {"debug": True})
    assert ask(app).text == "<one>"
    for name, text in {"c.html": "three", "base.html": "[{% block b %}{% endblock %}]"}.items():
        (tmp_path / name).write_text(text)
    assert ask(app).text == "[three]"


def test_in_debug_mode_a_broken_template_is_an_error_until_it_is_fixed(tmp_path):
    app = component_app(
        tmp_path, "{{ component('c') }}", {"c": ("one", None)}, config={"debug": True}
    )
    (tmp_path / "c.html").write_text("\n{% if %}")
    response = ask(app)
    assert (response.status, "c.html:2" in response.text) == (500, True)
    (tmp_path / "c.html").write_text("mended")
    assert ask(app).text == "mended"


def test_in_production_rendering_a_page_reads_no_files(tmp_path):
    files = {
        "base.html": "{% block b %}{% endblock %}{% include 'part.html' %}",
        "part.html": "{% import 'macros.html' as macros %}{{ macros.bold('part') }}",
        "macros.html": "{% macro bold(text) %}<b>{{ text }}</b>{% endmacro %}",
    }
    page = "{% extends 'base.html' %}{% block b %}{{ component('c') }}{% endblock %}"
    app = component_app(tmp_path / "project", page, {"c": ("{{ url('/') }}", None)}, files)
    shutil.rmtree(tmp_path / "project")
    response = ask(app)
    assert (response.status, response.text) == (200, "/<b>part</b>")


@pytest.mark.parametrize("name", ["../outside.html", ".hidden.html", "link.html"])
def test_a_template_outside_the_project_cannot_be_included(tmp_path, caplog, name):
    root = tmp_path / "project"
    app = component_app(root, "{% include place %}", routes=[Page("/{place:path}", "page.html")])
    (tmp_path / "outside.html").write_text("secret")
    (root / ".hidden.html").write_text("secret")
    (root / "link.html").symlink_to(tmp_path / "outside.html")
    assert failure_of(app, caplog, f"/{name}") == name


def test_check_props_raises_a_props_error_outside_a_template(tmp_path):
    app = component_app(tmp_path, "", {"c": ("", DECLARED)})
    with pytest.raises(
        PropsError, match="outside a template: component 'c' requires the prop 'id'"
    ):
        app.components.find("c").check_props({})


def test_a_template_has_access_to_the_default_of_a_declared_prop(tmp_path):
    logic = make_module(
        "default_props",
        "def load_template_context(request, session, db, *, mode='view'):\n    return {}\n",
    )
    app = make_app(
        tmp_path,
        {
            "page.html": "{{ component('a') }} {{ component('a', mode='edit') }}",
            "a.html": "{{ mode }}",
        },
        components=[Component("a", "a.html", logic=logic)],
        routes=[Page("/", "page.html")],
    )
    assert ask(app).text == "view edit"


PANEL = {
    "panel.html": "<div>{{ body }}{{ children }}</div>",
    "row.html": "<i>{{ action('save') }}</i>",
}


def panel_app(root, page):
    logic = make_module("row_logic", "def action_save(request, session, db): return {}")
    components = [Component("panel", "panel.html"), Component("row", "row.html", logic=logic)]
    routes = [Page("/", "page.html")]
    return make_app(root, {**PANEL, "page.html": page}, components=components, routes=routes)


@pytest.mark.parametrize("inner", ["component('row')", "component(name) | upper"])
def test_a_component_call_as_a_prop_of_another_is_an_error_at_startup(tmp_path, inner):
    with pytest.raises(RegistryError, match=r"page.html:2: .* {% call component"):
        panel_app(tmp_path, "\n{{ component('panel', body=" + inner + ") }}")


def test_a_rendered_component_as_a_prop_of_another_is_an_error(tmp_path, caplog):
    page = "{% set row = component('row') %}\n{{ component('panel', body=row) }}"
    assert ask(panel_app(tmp_path, page)).status == 500
    assert "page.html:2: the prop 'body' of component 'panel' is a component" in caplog.text


def test_a_component_inside_the_call_block_of_another_is_rendered(tmp_path):
    page = "{% call component('panel') %}{{ component('row') }}{% endcall %}"
    assert 'name="_ticket"' in ask(panel_app(tmp_path, page)).text
