"""Components: templates with a logic module, shown in pages, each instance for itself."""

import re
import shutil

import pytest
from jinja2 import StrictUndefined
from jinja2.ext import InternationalizationExtension
from support import make_app, make_module, users_module
from visitors import Visitor, ask

from noventa import Component, Page, PropsError, RegistryError, Static


def shown(root, page, components=(), files=(), config=None, **registry):
    """An application with one page at / and components given as name=(template, source)."""
    made, written = [], {"page.html": page, **dict(files)}
    for name, (template, source) in dict(components).items():
        logic = make_module(f"{name}.{name}_logic", source) if source else None
        written[f"{name}.html"] = template
        made.append(Component(name, f"{name}.html", logic=logic))
    registry.setdefault("routes", [Page("/", "page.html"), Page("/at/{place}", "page.html")])
    return make_app(root, written, config, components=made, **registry)


def failure_of(app, caplog, path="/"):
    """What a request that is answered with 500 raised."""
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


# What a template sees


@pytest.mark.parametrize("name", ["url", "children", "key", "caller"])
@pytest.mark.parametrize("default", ["", "=None"])
def test_a_prop_that_is_declared_with_a_name_of_ours_is_a_fault(tmp_path, name, default):
    source = f"def load_template_context(request, session, db, *, {name}{default}): return {{}}"
    with pytest.raises(RegistryError, match=r"prop '\w+' of component 'c' is reserved"):
        shown(tmp_path, "{{ component('c') }}", {"c": ("", source)})


@pytest.mark.parametrize("page", [
    "{% for n in range(2) %}{% set text = n ~ '!' %}{{ component('c', text=text) }}{% endfor %}",
    ("{% block main %}{% set text = '0!' %}{{ component('c', text=text) }}"
    "{{ component('c', text='1!') }}{% endblock %}"),
    ("{% set text = '0!' %}{{ component('c', text=text) }}"
    "{% call component('c', text='1!') %}ignored{% endcall %}"),
    ("{% macro twice(one) %}{{ component('c', text=one) }}{% endmacro %}"
    "{{ twice('0!') }}{{ twice('1!') }}"),
    "{% from 'macros.html' import one with context %}{{ one('0!') }}{{ one('1!') }}",
    "{% include 'part.html' %}{% set show = component %}{{ show('c', text='1!') }}",
])  # fmt: skip
def test_a_component_is_shown_wherever_jinja_allows_a_call(tmp_path, page):
    files = {
        "macros.html": "{% macro one(text) %}{{ component('c', text=text) }}{% endmacro %}",
        "part.html": "{{ component('c', text='0!') }}",
    }
    source = "def load_template_context(request, session, db, *, text): return {}"
    app = shown(tmp_path, page, {"c": ("[{{ text }}]", source)}, files)
    assert ask(app).text.strip() == "[0!][1!]"


def test_a_component_sees_its_props_and_what_its_handler_returned(tmp_path):
    source = (
        "def load_template_context(request, session, db, **props): return {'b': props['a'] * 2}"
    )
    app = shown(tmp_path, "{{ component('c', a=2) }}", {"c": ("{{ a }} {{ b }}", source)})
    assert ask(app).text == "2 4"


def test_a_component_sees_nothing_of_the_page_or_of_the_component_around_it(tmp_path):
    components = {
        "outer": ("{{ place }}{% set x = 1 %}{{ component('inner') }}", None),
        "inner": ("[{{ place }}{{ x }}{{ mine }}{{ request }}]", None),
    }
    page = "{% set x = 2 %}{{ place }}: {{ component('outer', mine=3) }}"
    assert ask(shown(tmp_path, page, components), path="/at/home").text == "home: []"


def test_the_handler_of_a_component_gets_request_session_and_db(tmp_path):
    source = """
        def load_template_context(request, session, db, **props):
            session["seen"] = True
            return {"found": (request.args.get("q"), db.connection().closed, props)}
    """
    app = shown(tmp_path, "{{ component('c') }}", {"c": ("{{ found }}", source)})
    answer = ask(app, query="q=x")
    assert answer.text == "(&#39;x&#39;, False, {})"
    assert answer.header("Set-Cookie")


# Headers


HEADERS = """
    def load_template_context(request, session, db):
        return {"_headers": %s}

    def action_save(request, session, db):
        return {"_status": 422, "_headers": {"Cache-Control": "no-store"}}
"""
FORM_OF_C = "<form method='post'>{{ action('save') }}</form>"


def test_headers_of_components_are_added_to_the_answer_of_their_page(tmp_path):
    one = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Vary", "Accept")]
    two = {"Vary": "Accept-Language", "content-security-policy": "default-src 'self'"}
    components = {"one": ("", HEADERS % one), "two": ("", HEADERS % two)}
    answer = ask(shown(tmp_path, "{{ component('one') }}{{ component('two') }}", components))
    assert [v for name, v in answer.headers if name == "Set-Cookie"] == ["a=1", "b=2"]
    assert answer.header("Vary") == "Accept, Accept-Language"
    policies = [v for name, v in answer.headers if name.lower() == "content-security-policy"]
    assert policies == ["default-src 'self'"]


def test_headers_of_an_action_are_added_to_its_answer(tmp_path):
    app = shown(tmp_path, "{{ component('c') }}", {"c": (FORM_OF_C, HEADERS % {"X-Load": "1"})})
    visitor = Visitor(app)
    answer = visitor.post("/", visitor.get("/").tickets[0])
    assert answer.status == 422
    assert answer.header("X-Load") == "1"
    assert "no-store" in answer.header("Cache-Control")


def test_headers_of_a_page_that_is_not_sent_are_dropped(tmp_path):
    page = "{{ component('c') }}{{ 1 // 0 }}"
    files = {"error.html": "{{ status }}"}
    source = HEADERS % {"Cache-Control": "public, max-age=60"}
    answer = ask(shown(tmp_path, page, {"c": ("", source)}, files, errors={"5xx": "error.html"}))
    assert (answer.status, answer.header("Cache-Control")) == (500, None)


def test_headers_come_once_where_a_page_is_shown_again_by_a_writer(tmp_path):
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
    app = shown(
        tmp_path, "{{ component('c') }}", {"c": (FORM_OF_C, source)},
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
def test_wrong_headers_are_an_error_that_says_what_is_wrong(tmp_path, caplog, headers, message):
    app = shown(tmp_path, "{{ component('c') }}", {"c": ("", HEADERS % headers)})
    assert message in failure_of(app, caplog)


def test_a_header_that_would_be_split_is_refused(tmp_path):
    source = "def load_template_context(request, session, db):\n return {'_headers': {'X': %s}}"
    source %= "request.args['q']"
    app = shown(tmp_path, "{{ component('c') }}", {"c": ("", source)})
    assert ask(app, query="q=a%0aSet-Cookie:x").status == 400


def test_a_handler_that_forgot_its_return_is_named(tmp_path, caplog):
    source = "def load_template_context(request, session, db): user = {}"
    app = shown(tmp_path, "{{ component('c') }}", {"c": ("{{ user.name.first }}", source)})
    message = failure_of(app, caplog)
    assert "load_template_context" in message
    assert "returned None; its template needs a dict: 'user' is undefined" in message


def test_a_template_stands_beside_its_component_unless_another_is_named(tmp_path):
    files = {
        "page.html": "{{ component('user') }}{{ component('forms/user') }}{{ component('x') }}",
        "components/user/user_template.html": "user ",
        "components/forms/user/user_template.html": "form ",
        "x.html": "x",
    }
    made = [Component("user"), Component("forms/user"), Component("x", template="x.html")]
    app = make_app(tmp_path, files, components=made, routes=[Page("/", "page.html")])
    assert ask(app).text == "user form x"


def test_extensions_are_those_of_jinja(tmp_path):
    known = {"gettext": {"hello": "hallo"}.get, "ngettext": None}
    page = "{% trans %}hello{% endtrans %} {{ _('hello') }}"
    app = shown(tmp_path, page, extensions=[InternationalizationExtension], globals=known)
    assert ask(app).text == "hallo hallo"


@pytest.mark.parametrize("extension", ["jinja2.ext.i18n", str, InternationalizationExtension])
def test_an_extension_that_is_no_class_of_one_is_a_fault(tmp_path, extension):
    given = extension if extension in ("jinja2.ext.i18n", str) else [extension]
    with pytest.raises(RegistryError, match=r"extensions (has|is) .*(list the class|a list)"):
        shown(tmp_path, "", extensions=[given])


def test_a_component_without_logic_sees_its_props(tmp_path):
    app = shown(tmp_path, "{{ component('c', a='x') }}", {"c": ("{{ a }}", None)})
    assert ask(app).text == "x"


def test_a_handler_may_return_none(tmp_path):
    source = "def load_template_context(request, session, db): pass"
    assert ask(shown(tmp_path, "{{ component('c') }}", {"c": ("ok", source)})).text == "ok"


@pytest.mark.parametrize("name", ["page.html", "page.txt", "page.svg", "page.j2"])
def test_every_template_is_escaped(tmp_path, name):
    files = {name: "{{ place }}{{ component('c', a=place) }}"}
    routes = [Page("/{place}", name)]
    app = shown(tmp_path, "", {"c": ("<i>{{ a }}</i>", None)}, files, routes=routes)
    assert ask(app, path="/<b>").text == "&lt;b&gt;<i>&lt;b&gt;</i>"


def test_the_filters_of_the_registry_are_added_to_those_of_jinja(tmp_path):
    app = shown(tmp_path, "{{ 'a' | twice | upper }}", filters={"twice": lambda text: text * 2})
    assert ask(app).text == "AA"


@pytest.mark.parametrize(
    ("call", "seen"),
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
def test_children_are_what_stands_in_the_call(tmp_path, call, seen):
    app = shown(tmp_path, call, {"c": ("[{{ children }}]", None), "d": ("d", None)})
    assert ask(app, path="/at/home").text == seen


def test_errors_and_values_are_empty_text_where_missing_even_when_undefined_is_strict(tmp_path):
    template = "[{{ errors.name }}{{ values['name'] }}{{ children }}{{ errors | length }}]"
    app = shown(tmp_path, "{{ component('c') }}", {"c": (template, None)})
    app.jinja.undefined = StrictUndefined
    assert ask(app).text == "[0]"


def test_strict_undefined_reports_a_misspelt_name(tmp_path, caplog):
    app = shown(tmp_path, "{{ component('c') }}", {"c": ("{{ nmae }}", None)})
    app.jinja.undefined = StrictUndefined
    assert failure_of(app, caplog) == "'nmae' is undefined"


@pytest.mark.parametrize("name", ["errors", "values"])
def test_errors_and_values_of_a_wrong_type_name_the_component(tmp_path, caplog, name):
    app = shown(tmp_path, f"{{{{ component('c', {name}=['Too long']) }}}}", {"c": ("", None)})
    assert failure_of(app, caplog) == f"component 'c': {name} is a list; expected a dict."


@pytest.mark.parametrize("source", ["return [1]", "return 'text'"])
def test_a_handler_that_returns_something_else_is_named(tmp_path, caplog, source):
    source = f"\ndef load_template_context(request, session, db): {source}"
    failure = failure_of(shown(tmp_path, "{{ component('c') }}", {"c": ("", source)}), caplog)
    assert failure.startswith("c/c_logic.py:2: load_template_context returned a ")
    assert failure.endswith("; expected a dict.")


# Props

DECLARED = "def load_template_context(request, session, db, *, id, mode='view'): return {'m': mode}"


@pytest.mark.parametrize(
    ("call", "seen"),
    [("component('c', id=1)", "1 view"), ("component('c', id=2, mode='x')", "2 x")],
)  # fmt: skip
def test_props_may_be_declared(tmp_path, call, seen):
    app = shown(tmp_path, "{{ " + call + " }}", {"c": ("{{ id }} {{ m }}", DECLARED)})
    assert ask(app).text == seen


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
def test_a_wrong_prop_names_component_and_calling_line(tmp_path, caplog, call, problem):
    components = {"c": ("", DECLARED), "free": ("", None)}
    late = call.removesuffix(")") + ", **{})"  # what it is called with is known only then
    app = shown(tmp_path, "<p>\n{% if 1 %}\n{{ " + late + " }}{% endif %}", components)
    assert failure_of(app, caplog).startswith(f"page.html:3: {problem}")


@pytest.mark.parametrize(("call", "problem"), WRONG_PROPS)
@pytest.mark.parametrize("block", ["{{{{ {} }}}}", "{{% call {} %}}{{% endcall %}}"])
def test_a_wrong_prop_that_is_written_out_is_a_fault_at_the_start(tmp_path, call, problem, block):
    components = {"c": ("", DECLARED), "free": ("", None)}
    with pytest.raises(RegistryError) as caught:
        shown(tmp_path, "{% if 0 %}\n" + block.format(call) + "{% endif %}", components)
    assert str(caught.value.faults[0]).startswith(f"page.html:2: {problem}")


def test_a_wrong_prop_names_the_line_of_the_component_that_called(tmp_path, caplog):
    components = {"outer": ("\n{{ component('c', **{}) }}", None), "c": ("", DECLARED)}
    app = shown(tmp_path, "{{ component('outer') }}", components)
    assert failure_of(app, caplog).startswith("outer.html:2: component 'c' requires the prop 'id'")


@pytest.mark.parametrize("name", ["name", "self", "parent", "compiled", "place", "template"])
def test_a_prop_may_have_any_other_name(tmp_path, name):
    source = "def load_template_context(request, session, db, **props): return {'p': props}"
    app = shown(tmp_path, f"{{{{ component('c', {name}=1) }}}}", {"c": ("{{ p }}", source)})
    assert ask(app).text == f"{{&#39;{name}&#39;: 1}}"


@pytest.mark.parametrize("name", ["children", "url", "component"])
def test_a_result_with_the_name_of_a_template_function_is_an_error(tmp_path, caplog, name):
    source = f"def load_template_context(request, session, db): return {{{name!r}: 1}}"
    app = shown(tmp_path, "{{ component('c') }}", {"c": ("", source)})
    assert failure_of(app, caplog).startswith(f"component 'c': a handler returned {name!r}, a")


def test_a_component_that_shows_itself_is_an_error(tmp_path, caplog):
    app = shown(tmp_path, "{{ component('c') }}", {"c": ("{{ component('c') }}", None)})
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
def test_an_action_that_cannot_be_called_is_an_error_when_it_is_shown(
    tmp_path, caplog, call, problem
):
    source = """
        def action_sve(request, session, db): ...
        def action_add(request, session, db, *, count, **props): ...
    """
    app = shown(tmp_path, "{{ component('c', id=1) }}", {"c": ("\n{{ " + call + " }}", source)})
    assert failure_of(app, caplog).startswith(problem)


def test_an_action_of_a_page_is_an_error(tmp_path, caplog):
    app = shown(tmp_path, "{{ action('sa' ~ 've') }}")
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
def test_an_actions_dict_reaches_only_the_instance_that_was_posted(tmp_path, calls, number):
    page = "".join(f"{{{{ {call} }}}}" for call in calls)
    components = {"box": ("{{ component('c') }}", None), "x": ("{{ component('c') }}", None)}
    app = shown(tmp_path, page, components | {"c": (WITH_ACTION, SAVING)})
    visitor = Visitor(app)
    answer = visitor.post("/", visitor.get().tickets[number], {"text": "hey"})
    parts = [part.split("]")[0] for part in answer.text.split("[")[1:]]
    expected = ["- loaded  "] * 3
    expected[number] = "hey loaded odd hey"
    assert (answer.status, parts) == (200, expected)


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
def test_an_instance_is_found_again_when_those_before_it_are_gone(tmp_path, call, inner):
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
    visitor = Visitor(shown(tmp_path, "{{ component('list') }}", components, part))
    text = visitor.post("/", visitor.get().tickets[1]).text
    assert re.sub("<form>.*?</form>", "", text) == "2saved,3,"


def test_props_that_are_no_scalars_tell_nothing_apart_but_may_be_anything(tmp_path):
    page = "{{ component('c', a={1: 2, 'x': 3}) }}{{ component('c', a={(1, 2): [range(3)]}) }}"
    source = "def action_save(request, session, db, **props): ..."
    assert ask(shown(tmp_path, page, {"c": ("{{ a | length }}", source)})).text == "21"


def test_every_component_is_loaded_after_the_action(tmp_path):
    models = users_module()
    user = ("[{{ user.name }} {{ message }}]<form>{{ action('rename') }}</form>", USER_LOGIC)
    page = "{{ component('user', id=1) }}{{ component('user', id=2) }}{{ component('user') }}"
    app = shown(tmp_path, page, {"user": user}, models=[models])
    with app.database.session() as db:
        db.add_all([models.User(name="Ada"), models.User(name="Bob")])
        db.commit()
    visitor = Visitor(app)
    first, *_ = visitor.get().tickets
    answer = visitor.post("/", first, {"name": "Ada L."})
    parts = [part.split("]")[0] for part in answer.text.split("[")[1:]]
    assert parts == ["Ada L. saved", "Bob ", "Ada L. "]


def test_props_come_from_the_ticket_and_fields_from_the_form(tmp_path):
    source = """
        def action_save(request, session, db, *, id):
            return {"message": f"{id} {request.form['id']} {sorted(request.form)}"}
    """
    template = "{{ message }}|{{ action('save') }}"
    visitor = Visitor(shown(tmp_path, "{{ component('c', id=7) }}", {"c": (template, source)}))
    answer = visitor.post("/", visitor.get().tickets[0], {"id": "8"})
    assert answer.text.startswith("7 8 [&#39;id&#39;]|")


def test_each_of_several_buttons_has_its_ticket(tmp_path):
    source = """
        def action_up(request, session, db): return {"said": "up"}
        def action_down(request, session, db): return {"said": "down"}
    """
    template = (
        "{{ said }}|<form>"
        '<button name="_ticket" value="{{ action_ticket("up") }}">'
        '<button name="_ticket" value="{{ action_ticket("down") }}"></form>'
    )
    visitor = Visitor(shown(tmp_path, "{{ component('c') }}", {"c": (template, source)}))
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
def test_a_components_guard_answers_when_it_is_shown_and_before_its_actions(
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
    for answer in (visitor.get(), visitor.post("/", ticket)):
        assert answer.status == status
        assert text in answer.text
        assert "before" not in answer.text


@pytest.mark.parametrize("where", ["load_template_context", "guard"])
def test_a_forgotten_commit_is_reported_with_the_component_path(tmp_path, caplog, where):
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
def test_url_adds_the_mount_prefix_and_encodes(tmp_path, path, url, prefix):
    source = f"def load_template_context(request, session, db): return {{'path': {path!r}}}"
    app = shown(tmp_path, "{{ component('c') }}", {"c": ("{{ url(path) }}", source)})
    mounted = {"": "", "/m": "/m", "/caf\xc3\xa9": "/caf%C3%A9"}[prefix]
    assert ask(app, SCRIPT_NAME=prefix).text == mounted + url


@pytest.mark.parametrize("path", ["users", "//evil.example", "https://evil.example", ""])
def test_url_refuses_what_is_no_path_of_this_application(tmp_path, caplog, path):
    app = shown(tmp_path, f"\n{{{{ url({path!r}) }}}}")
    assert failure_of(app, caplog) == (
        f"page.html:2: url({path!r}) is not a local path; expected one like '/x'."
    )


def test_static_gives_a_url_that_changes_with_the_file(tmp_path):
    def app_with(css, debug=False):
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / "my site.css").write_text(css)
        routes = [Page("/", "page.html"), Static("/files/", "files")]
        page = "{{ static('my site.css') }}"
        return shown(tmp_path, page, routes=routes, config={"debug": debug})

    first, second = ask(app_with("a"), SCRIPT_NAME="/m").text, ask(app_with("b")).text
    assert first.startswith("/m/files/my%20site.css?v=")
    assert first.removeprefix("/m") != second
    app = app_with("a", debug=True)
    assert ask(app).text == first.removeprefix("/m")
    (tmp_path / "files" / "my site.css").write_text("b")
    assert ask(app).text == second


def test_static_of_a_file_that_does_not_exist_names_the_line(tmp_path, caplog):
    failure = failure_of(shown(tmp_path, "\n{{ static('no' ~ '.css') }}"), caplog)
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
    visitor = Visitor(shown(tmp_path, page, {"c": (component, source)}))
    assert visitor.get(query="say=1").text == "good: &lt;saved&gt;"
    assert visitor.get().text == ""


# Templates and their files


def test_in_debug_a_template_is_read_again_when_it_changed(tmp_path):
    files = {"base.html": "<{% block b %}{% endblock %}>"}
    page = "{% extends 'base.html' %}{% block b %}{{ component('c') }}{% endblock %}"
    app = shown(tmp_path, page, {"c": ("one", None)}, files, {"debug": True})
    assert ask(app).text == "<one>"
    for name, text in {"c.html": "three", "base.html": "[{% block b %}{% endblock %}]"}.items():
        (tmp_path / name).write_text(text)
    assert ask(app).text == "[three]"


def test_in_debug_a_template_that_broke_is_an_error_until_it_is_mended(tmp_path):
    app = shown(tmp_path, "{{ component('c') }}", {"c": ("one", None)}, config={"debug": True})
    (tmp_path / "c.html").write_text("\n{% if %}")
    answer = ask(app)
    assert (answer.status, "c.html:2" in answer.text) == (500, True)
    (tmp_path / "c.html").write_text("mended")
    assert ask(app).text == "mended"


def test_in_production_a_page_is_made_without_looking_at_a_file(tmp_path):
    files = {
        "base.html": "{% block b %}{% endblock %}{% include 'part.html' %}",
        "part.html": "{% import 'macros.html' as macros %}{{ macros.bold('part') }}",
        "macros.html": "{% macro bold(text) %}<b>{{ text }}</b>{% endmacro %}",
    }
    page = "{% extends 'base.html' %}{% block b %}{{ component('c') }}{% endblock %}"
    app = shown(tmp_path / "project", page, {"c": ("{{ url('/') }}", None)}, files)
    shutil.rmtree(tmp_path / "project")
    answer = ask(app)
    assert (answer.status, answer.text) == (200, "/<b>part</b>")


@pytest.mark.parametrize("name", ["../outside.html", ".hidden.html", "link.html"])
def test_a_template_outside_the_project_cannot_be_included(tmp_path, caplog, name):
    root = tmp_path / "project"
    app = shown(root, "{% include place %}", routes=[Page("/{place:path}", "page.html")])
    (tmp_path / "outside.html").write_text("secret")
    (root / ".hidden.html").write_text("secret")
    (root / "link.html").symlink_to(tmp_path / "outside.html")
    assert failure_of(app, caplog, f"/{name}") == name


def test_a_props_error_is_one_that_the_user_can_mend(tmp_path):
    app = shown(tmp_path, "", {"c": ("", DECLARED)})
    with pytest.raises(
        PropsError, match="outside a template: component 'c' requires the prop 'id'"
    ):
        app.components.find("c").check_props({})


def test_the_template_sees_the_default_of_a_declared_prop(tmp_path):
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
def test_a_component_as_an_argument_of_another_is_a_fault_at_the_start(tmp_path, inner):
    with pytest.raises(RegistryError, match=r"page.html:2: .* {% call component"):
        panel_app(tmp_path, "\n{{ component('panel', body=" + inner + ") }}")


def test_a_component_that_was_shown_before_is_no_prop_of_another(tmp_path, caplog):
    page = "{% set row = component('row') %}\n{{ component('panel', body=row) }}"
    assert ask(panel_app(tmp_path, page)).status == 500
    assert "page.html:2: the prop 'body' of component 'panel' is a component" in caplog.text


def test_a_component_within_the_call_of_another_is_shown(tmp_path):
    page = "{% call component('panel') %}{{ component('row') }}{% endcall %}"
    assert 'name="_ticket"' in ask(panel_app(tmp_path, page)).text
