"""Pages with their own logic, and the results that every kind of handler may return."""

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


def test_the_result_of_a_pages_logic_is_visible_to_page_and_layout(tmp_path):
    text = ask(page_app(tmp_path), path="/users/ada").text
    assert text.startswith("<title>About ada</title>[ada||]")


def test_a_pages_action_receives_the_url_parameters_and_its_result_is_rendered(tmp_path):
    response = write(page_app(tmp_path), "hello")
    assert (response.status, "[ada|ada: hello|]" in response.text) == (200, True)


def test_a_pages_action_that_returns_422_shows_its_errors(tmp_path):
    response = write(page_app(tmp_path), "")
    assert (response.status, "[ada||empty]" in response.text) == (422, True)


def test_a_pages_ticket_is_rejected_on_another_page(tmp_path):
    response = write(page_app(tmp_path), "hello", to="/users/eve")
    assert (response.status, response.refused) == (403, "other-page")


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
def test_a_handler_that_does_not_match_its_pages_path_is_an_error(tmp_path, source, problem):
    with pytest.raises(RegistryError) as caught:
        page_app(tmp_path, source, "")
    assert problem in str(caught.value)


# Results of every kind of handler


def handlers_app(root, returned):
    """Create an application where every kind of handler returns `returned` at its own path."""
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


def response_of(root, returned, kind):
    app = handlers_app(root, returned)
    if kind != "/action":
        return ask(app, path=kind)
    visitor = Visitor(app)
    return visitor.post(kind, visitor.get(kind).tickets[0])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_handler_can_redirect(tmp_path, kind):
    response = response_of(tmp_path, {"_redirect": "/there"}, kind)
    assert (response.status, response.header("Location")) == (303, "/there")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_handler_can_set_a_status(tmp_path, kind):
    assert response_of(tmp_path, {"_status": 404}, kind).status == 404


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_handler_can_return_a_response(tmp_path, kind):
    response = response_of(tmp_path, "webob.Response('mine', status=202)", kind)
    assert (response.status, response.text) == (202, "mine")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "/endpoint"])
def test_a_misspelt_key_is_an_error_in_every_kind_of_handler(tmp_path, kind, caplog):
    assert response_of(tmp_path, {"_redirct": "/there"}, kind).status == 500
    assert "'_redirct'; did you mean '_redirect'?" in caplog.text


def test_an_endpoints_other_keys_with_an_underscore_are_data(tmp_path):
    response = response_of(tmp_path, {"_status": 201, "_id": 7}, "/endpoint")
    assert (response.status, response.text) == (201, '{"_id":7}')


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("returned", ["{'_redirect': '//evil'}", "noventa.redirect('//evil')"])
def test_a_redirect_to_another_host_is_rejected_and_logged_with_its_handler(
    tmp_path, kind, returned, caplog
):
    response = response_of(tmp_path, returned, kind)
    assert (response.status, response.refused) == (400, "redirect-target")
    assert "_logic.py:" in caplog.text
    assert "redirect to '//evil'; expected a local path" in caplog.text


def test_a_404_from_a_nested_component_rolls_back(tmp_path):
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
    response = ask(app)
    assert (response.status, "No such row." in response.text, "<p></p>" in response.text) == (
        404, True, False,
    )  # fmt: skip
    with app.database.session() as db:
        assert db.execute(sa.text("SELECT count(*) FROM t")).scalar() == 0


# Settings, globals and macros


def test_a_handler_has_access_to_the_app_and_its_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("MAIL_FROM", "ada@example.com")
    settings = {"app": {"mail": {"from": ["${MAIL_FROM}", "${OTHER:-none}"]}, "pages": 20}}

    def show(request, session, db):
        app = request.app
        return {**app.config.app, "same": app.database is created.database}

    created = make_app(tmp_path, config=settings, routes=[Endpoint("/", show)])
    expected = '{"mail":{"from":["ada@example.com","none"]},"pages":20,"same":true}'
    assert ask(created).text == expected


def test_globals_are_available_in_every_template(tmp_path):
    files = {"page.html": "{{ site }} {{ component('c') }}", "c.html": "{{ shout('x') }}"}
    app = make_app(
        tmp_path, files, components=[Component("c", "c.html")], routes=[Page("/", "page.html")],
        globals={"site": "Noventa", "shout": str.upper},
    )  # fmt: skip
    assert ask(app).text == "Noventa X"


def test_a_global_with_the_name_of_a_template_function_is_an_error(tmp_path):
    with pytest.raises(RegistryError, match="globals has 'url', a reserved name"):
        make_app(tmp_path, globals={"url": str})


def test_an_imported_macro_can_use_the_template_functions(tmp_path):
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


# Several routes with the same path


def read_item(request, session, db, *, id):
    return {"read": id}


def write_item(request, session, db, *, key):
    return {"written": key}


def test_a_path_can_have_one_endpoint_per_set_of_methods(tmp_path):
    routes = [
        Endpoint("/a/{id}", read_item),
        Endpoint("/a/{key}", write_item, methods=["PUT", "POST"], cross_origin=True),
    ]
    app = make_app(tmp_path, routes=routes)
    assert [ask(app, method, "/a/7").text for method in ("GET", "PUT", "POST")] == [
        '{"read":"7"}', '{"written":"7"}', '{"written":"7"}',
    ]  # fmt: skip
    response = ask(app, "DELETE", "/a/7")
    assert (response.status, response.header("Allow")) == (405, "GET, HEAD, OPTIONS, POST, PUT")


def test_endpoints_at_one_path_have_separate_guards_and_cross_origin_settings(tmp_path):
    def deny(request, session, db):
        return {"_status": 403}

    routes = [
        Endpoint("/a/{id}", read_item),
        Endpoint("/a/{id}", read_item, methods=["PUT"], guards=[deny], cross_origin=True),
        Endpoint("/a/{id}", read_item, methods=["POST"]),
    ]
    app = make_app(tmp_path, routes=routes)
    responses = [ask(app, method, "/a/7") for method in ("GET", "PUT", "POST")]
    assert [(a.status, a.refused) for a in responses] == [
        (200, None), (403, None), (403, "no-origin"),
    ]  # fmt: skip


def test_two_endpoints_with_the_same_path_and_method_are_an_error(tmp_path):
    routes = [
        Endpoint("/a/{id}", read_item),
        Endpoint("/a/{key}", write_item, methods=["GET", "PUT"]),
    ]
    with pytest.raises(RegistryError, match=r"duplicates '/a/\{id\}' at .*, and both accept GET"):
        make_app(tmp_path, routes=routes)


def test_a_page_and_an_endpoint_with_other_methods_can_share_a_path(tmp_path):
    routes = [Page("/a/{id}", "page.html"), Endpoint("/a/{id}", read_item, methods=["DELETE"],
                                                     cross_origin=True)]  # fmt: skip
    app = make_app(tmp_path, {"page.html": "page {{ id }}"}, routes=routes)
    assert [ask(app, method, "/a/7").text for method in ("GET", "DELETE")] == [
        "page 7", '{"read":"7"}',
    ]  # fmt: skip
