"""Pages with logic of their own: a component at a URL; what every handler may answer."""

import pytest
import sqlalchemy as sa
from support import make_app, make_module
from visitors import Visitor, ask

from noventa import Component, Endpoint, Page, RegistryError

TABLE = sa.Table("t", sa.MetaData(), sa.Column("n", sa.Integer))
LAYOUT = "<title>{{ title }}</title>{% if member %}New{% endif %}{% block main %}{% endblock %}"
PAGE = """{% extends 'layout.html' %}{% block main %}[{{ username }}|{{ said }}|{{ errors.text }}]
<form method="post">{{ action('write') }}</form>{% endblock %}"""
LOGIC = """
    def load_template_context(request, session, db, *, username):
        return {"title": f"About {username}", "member": "member" in session}

    def action_write(request, session, db, *, username):
        if not request.form["text"]:
            return {"_status": 422, "errors": {"text": "empty"}}
        return {"said": f"{username}: {request.form['text']}"}
"""


def page_app(root, source=LOGIC, page=PAGE, **more):
    logic = make_module("profile_logic", source)
    files = {"layout.html": LAYOUT, "page.html": page}
    routes = [Page("/users/{username}", "page.html", logic=logic, **more)]
    return make_app(root, files, routes=routes)


def write(app, text, to="/users/ada"):
    visitor = Visitor(app)
    return visitor.post(to, visitor.get("/users/ada").tickets[0], {"text": text})


def test_what_a_pages_logic_returns_is_seen_by_page_and_layout(tmp_path):
    text = ask(page_app(tmp_path), path="/users/ada").text
    assert text.startswith("<title>About ada</title>[ada||]")


def test_an_action_of_a_page_gets_the_urls_parameters_and_is_merged_into_the_page(tmp_path):
    answer = write(page_app(tmp_path), "hello")
    assert (answer.status, "[ada|ada: hello|]" in answer.text) == (200, True)


def test_an_action_of_a_page_that_answers_422_shows_its_errors(tmp_path):
    answer = write(page_app(tmp_path), "")
    assert (answer.status, "[ada||empty]" in answer.text) == (422, True)


def test_a_ticket_of_a_page_is_good_on_no_other_page(tmp_path):
    answer = write(page_app(tmp_path), "hello", to="/users/eve")
    assert (answer.status, answer.refused) == (403, "other-page")


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (
            "def load_template_context(request, session, db, *, name): ...",
            "load_template_context requires 'name'; add {name} to the path, or add a default",
        ),
        (
            "def action_save(request, session, db): ...",
            "action_save does not accept 'username'; add the parameter, or **view_args",
        ),
        ("def action_save(request): ...", "the first three parameters are not request, session"),
    ],
)
def test_a_pages_handler_that_its_path_does_not_fit_is_a_fault(tmp_path, source, problem):
    with pytest.raises(RegistryError) as caught:
        page_app(tmp_path, source, "")
    assert problem in str(caught.value)


# What any handler answers


def kinds(root, returned):
    """An application whose four kinds of handlers return the same, each at its own path."""
    source = f"""
        import webob, noventa

        def load_template_context(request, session, db):
            return {returned}
    """
    acting = f"""
        import webob, noventa

        def action_go(request, session, db):
            return {returned}
    """
    load, act = make_module("load_logic", source), make_module("act_logic", acting)
    files = {
        "load.html": "shown", "nested.html": "{{ component('inner') }}", "plain.html": "plain",
        "act.html": "<form method='post'>{{ action('go') }}</form>",
    }  # fmt: skip
    routes = [
        Page("/load", "load.html", logic=load),
        Page("/nested", "nested.html"),
        Page("/guard", "plain.html", guards=[load.load_template_context]),
        Page("/action", "act.html", logic=act),
        Endpoint("/endpoint", load.load_template_context),
    ]
    return make_app(root, files, components=[Component("inner", "load.html", logic=load)],
                    routes=routes)  # fmt: skip


KINDS = ["/load", "/nested", "/guard", "/action", "/endpoint"]


def answered(root, returned, kind):
    app = kinds(root, returned)
    if kind != "/action":
        return ask(app, path=kind)
    visitor = Visitor(app)
    return visitor.post(kind, visitor.get(kind).tickets[0])


@pytest.mark.parametrize("kind", KINDS)
def test_every_handler_redirects_alike(tmp_path, kind):
    answer = answered(tmp_path, {"_redirect": "/there"}, kind)
    assert (answer.status, answer.header("Location")) == (303, "/there")


@pytest.mark.parametrize("kind", KINDS)
def test_every_handler_gives_a_status_alike(tmp_path, kind):
    assert answered(tmp_path, {"_status": 404}, kind).status == 404


@pytest.mark.parametrize("kind", KINDS)
def test_every_handler_may_return_a_response(tmp_path, kind):
    answer = answered(tmp_path, "webob.Response('mine', status=202)", kind)
    assert (answer.status, answer.text) == (202, "mine")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "/endpoint"])
def test_a_misspelt_key_is_an_error_of_every_handler(tmp_path, kind, caplog):
    assert answered(tmp_path, {"_redirct": "/there"}, kind).status == 500
    assert "'_redirct'; did you mean '_redirect'?" in caplog.text


def test_other_keys_with_an_underscore_are_data_of_an_endpoint(tmp_path):
    answer = answered(tmp_path, {"_status": 201, "_id": 7}, "/endpoint")
    assert (answer.status, answer.text) == (201, '{"_id":7}')


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("returned", ["{'_redirect': '//evil'}", "noventa.redirect('//evil')"])
def test_a_redirect_that_leads_elsewhere_is_told_with_its_handler(tmp_path, kind, returned, caplog):
    answer = answered(tmp_path, returned, kind)
    assert (answer.status, answer.refused) == (400, "redirect-target")
    assert "_logic.py:" in caplog.text
    assert "redirect to '//evil'; expected a local path" in caplog.text


def test_a_404_of_a_nested_component_undoes_what_was_written(tmp_path):
    source = """
        import sqlalchemy as sa

        def load_template_context(request, session, db):
            db.execute(sa.text("INSERT INTO t VALUES (1)"))
            return {"_status": 404, "message": "No such row."}
    """
    files = {"page.html": "<p>{{ component('c') }}", "c.html": ""}
    component = Component("c", "c.html", logic=make_module("c_logic", source))
    table = {"models": [TABLE]}
    app = make_app(
        tmp_path, files, components=[component], routes=[Page("/", "page.html")], **table
    )
    answer = ask(app)
    assert (answer.status, "No such row." in answer.text, "<p></p>" in answer.text) == (
        404, True, False,
    )  # fmt: skip
    with app.database.session() as db:
        assert db.execute(sa.text("SELECT count(*) FROM t")).scalar() == 0


# What else an application is made of


def test_a_handler_reaches_the_app_and_its_section_of_the_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("MAIL_FROM", "ada@example.com")
    settings = {"app": {"mail": {"from": ["${MAIL_FROM}", "${OTHER:-none}"]}, "pages": 20}}

    def show(request, session, db):
        app = request.app
        return {**app.config.app, "same": app.database is made.database}

    made = make_app(tmp_path, config=settings, routes=[Endpoint("/", show)])
    sent = '{"mail":{"from":["ada@example.com","none"]},"pages":20,"same":true}'
    assert ask(made).text == sent


def test_globals_are_seen_by_every_template(tmp_path):
    files = {"page.html": "{{ site }} {{ component('c') }}", "c.html": "{{ shout('x') }}"}
    app = make_app(
        tmp_path, files, components=[Component("c", "c.html")], routes=[Page("/", "page.html")],
        globals={"site": "Noventa", "shout": str.upper},
    )  # fmt: skip
    assert ask(app).text == "Noventa X"


def test_a_global_with_the_name_of_a_template_function_is_a_fault(tmp_path):
    with pytest.raises(RegistryError, match="globals has 'url', a reserved name"):
        make_app(tmp_path, globals={"url": str})


def test_a_macro_that_is_imported_sees_what_templates_see(tmp_path):
    files = {
        "macros.html": "{% macro link(to) %}<a href='{{ url(to) }}'>{{ component('c') }}</a>"
        "{% endmacro %}",
        "page.html": "{% from 'macros.html' import link %}{{ link('/x') }}",
        "c.html": "shown",
    }
    app = make_app(
        tmp_path, files, components=[Component("c", "c.html")], routes=[Page("/", "page.html")]
    )
    assert ask(app, SCRIPT_NAME="/m").text == "<a href='/m/x'>shown</a>"


# One path, an endpoint for each set of methods


def listed(request, session, db, *, id):
    return {"read": id}


def kept(request, session, db, *, key):
    return {"written": key}


def test_a_path_may_have_an_endpoint_for_each_set_of_methods(tmp_path):
    routes = [
        Endpoint("/a/{id}", listed),
        Endpoint("/a/{key}", kept, methods=["PUT", "POST"], cross_origin=True),
    ]
    app = make_app(tmp_path, routes=routes)
    assert [ask(app, method, "/a/7").text for method in ("GET", "PUT", "POST")] == [
        '{"read":"7"}', '{"written":"7"}', '{"written":"7"}',
    ]  # fmt: skip
    refused = ask(app, "DELETE", "/a/7")
    assert (refused.status, refused.header("Allow")) == (405, "GET, HEAD, OPTIONS, POST, PUT")


def test_each_endpoint_of_a_path_has_guards_and_cross_origin_of_its_own(tmp_path):
    def nobody(request, session, db):
        return {"_status": 403}

    routes = [
        Endpoint("/a/{id}", listed),
        Endpoint("/a/{id}", listed, methods=["PUT"], guards=[nobody], cross_origin=True),
        Endpoint("/a/{id}", listed, methods=["POST"]),
    ]
    app = make_app(tmp_path, routes=routes)
    answers = [ask(app, method, "/a/7") for method in ("GET", "PUT", "POST")]
    assert [(a.status, a.refused) for a in answers] == [
        (200, None), (403, None), (403, "no-origin"),
    ]  # fmt: skip


def test_two_endpoints_of_one_path_and_one_method_are_a_fault(tmp_path):
    routes = [Endpoint("/a/{id}", listed), Endpoint("/a/{key}", kept, methods=["GET", "PUT"])]
    with pytest.raises(RegistryError, match=r"duplicates '/a/\{id\}' at .*, and both accept GET"):
        make_app(tmp_path, routes=routes)


def test_a_page_and_an_endpoint_of_other_methods_share_a_path(tmp_path):
    routes = [Page("/a/{id}", "page.html"), Endpoint("/a/{id}", listed, methods=["DELETE"],
                                                     cross_origin=True)]  # fmt: skip
    app = make_app(tmp_path, {"page.html": "page {{ id }}"}, routes=routes)
    assert [ask(app, method, "/a/7").text for method in ("GET", "DELETE")] == [
        "page 7", '{"read":"7"}',
    ]  # fmt: skip
