"""App: from request to response, and what actions, guards and endpoints may return."""

import datetime
import decimal
import enum
import functools
import gc
import io
import json
import logging
import re
import subprocess
import sys
import threading
import uuid
from html import unescape
from inspect import isfunction

import pytest
import sqlalchemy as sa
import webob
import webob.exc
from support import SECRET, make_app, make_module, users_module
from visitors import FORM, Visitor, ask, post

from noventa import (
    App,
    Component,
    Config,
    Endpoint,
    Mount,
    Page,
    Registry,
    RegistryError,
    Static,
    redirect,
)

SAME_ORIGIN = {"HTTP_SEC_FETCH_SITE": "same-origin"}


circular = []
circular.append(circular)


def routes_app(root, *routes, files=None, config=None, **registry):
    return make_app(root, files or {"page.html": "page"}, config, routes=routes, **registry)


def endpoint_app(root, result, path="/", **options):
    """Create an application with one endpoint that returns `result` (called if a function)."""

    def handler(request, session, db, **view_args):
        return result(request, session, db) if isfunction(result) else result

    return routes_app(root, Endpoint(path, handler, **options))


def form_app(root, source, config=None, **options):
    """Create an application whose page shows a component `c` with a user's name.

    `source` is the body of the component's action_save.
    """
    models = users_module("c.c_models")
    logic = make_module(
        "c.c_logic",
        "import webob\nimport webob.exc\nfrom noventa import redirect\n"
        "from c.c_models import User\n\n"
        "def load_template_context(request, session, db):\n"
        "    return {'user': db.get(User, 1)}\n\n"
        f"def action_save(request, session, db):\n    {source}\n",
    )
    template = "[{{ user.name }}|{{ said }}|{{ errors.name }}]{{ action('save') }}"
    component = Component("c", "c.html", logic=logic, models=[models], **options)
    files = {"page.html": "<body>{{ component('c') }}</body>", "c.html": template}
    app = make_app(root, files, config, components=[component], routes=[Page("/", "page.html")])
    with app.database.session() as db:
        db.add(models.User(name="Ada"))
        db.commit()
    return app


def save(app, fields=(), **environ):
    visitor = Visitor(app, **environ)
    return visitor.post("/", visitor.get().tickets[0], dict(fields))


def log_lines(caplog):
    return [f"{record.levelname} {record.getMessage()}" for record in caplog.records]


# Pages and methods


@pytest.mark.parametrize("host", ["localhost", "10.0.0.7:8000", "no host at all"])
def test_the_health_check_ignores_the_host(tmp_path, host):
    config = {"server": {"hosts": ["example.com"], "health": "/up"}}
    app = routes_app(tmp_path, config=config)
    for method in ("GET", "HEAD"):
        assert ask(app, method, "/up", HTTP_HOST=host).status == 200
    assert ask(app, "GET", "/", HTTP_HOST=host).status == 400


def test_the_health_check_reports_an_unreachable_database(tmp_path):
    database = "postgresql+psycopg://postgres@127.0.0.1:1/none"
    settings = {"database": database, "secret_keys": [SECRET], "server": {"health": "/up"}}
    app = App(Registry(), Config.from_mapping(settings, tmp_path))
    response = ask(app, "GET", "/up")
    assert (response.status, response.header("Retry-After")) == (503, "5")


def test_a_page_is_html_with_a_content_length(tmp_path):
    response = ask(routes_app(tmp_path, Page("/", "page.html")))
    assert (response.status, response.text) == (200, "page")
    assert response.header("Content-Type") == "text/html; charset=UTF-8"
    assert response.header("Content-Length") == "4"


@pytest.mark.parametrize("path", ["/users/ada", "/", "/none", "/users/ada/", "/boom", "/e"])
def test_head_responds_like_get_without_a_body(tmp_path, path):
    def boom(request, session, db):
        raise RuntimeError

    routes = [
        Page("/", "page.html"),
        Page("/users/{name}", "page.html"),
        Endpoint("/boom", boom),
        Endpoint("/e", lambda request, session, db: {"a": 1}),
    ]
    app = routes_app(tmp_path, *routes)
    get, head = ask(app, "GET", path), ask(app, "HEAD", path)
    assert (head.status, head.headers, head.body) == (get.status, get.headers, b"")


ROUTES = [
    ("/page", "GET, HEAD, OPTIONS, POST"),
    ("/get", "GET, HEAD, OPTIONS"),
    ("/put", "DELETE, OPTIONS, PUT"),
    ("/files/a", "GET, HEAD, OPTIONS"),
]


@pytest.fixture
def methods_app(tmp_path):
    (tmp_path / "files").mkdir()

    def handler(request, session, db):
        return {"method": request.method}

    source = "def load_template_context(request, session, db): raise AssertionError"
    unused = make_module("page_logic", source)
    return routes_app(
        tmp_path,
        Page("/page", "page.html", logic=unused),
        Endpoint("/get", handler),
        Endpoint("/put", handler, methods=["put", "DELETE"]),
        Endpoint("/own", handler, methods=["OPTIONS"], cross_origin=True),
        Static("/files", "files"),
    )


@pytest.mark.parametrize(("path", "allow"), ROUTES)
def test_options_lists_the_methods_and_runs_no_handler(methods_app, path, allow):
    response = ask(methods_app, "OPTIONS", path)
    assert (response.status, response.header("Allow"), response.body) == (204, allow, b"")


@pytest.mark.parametrize(("path", "allow"), ROUTES)
@pytest.mark.parametrize("method", ["PATCH", "BREW"])
def test_an_unsupported_method_returns_405_with_allow_and_runs_no_handler(
    methods_app, path, allow, method
):
    response = ask(methods_app, method, path, **SAME_ORIGIN)
    assert (response.status, response.header("Allow")) == (405, allow)
    assert "This address does not accept that request method." in response.text


def test_method_names_are_case_sensitive(methods_app):
    assert ask(methods_app, "get", "/get", **SAME_ORIGIN).status == 405


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_an_endpoint_accepts_only_its_listed_methods(methods_app, method):
    assert json.loads(ask(methods_app, method, "/put", **SAME_ORIGIN).body) == {"method": method}
    assert ask(methods_app, "GET", "/put").status == 405


def test_an_endpoint_may_handle_options_itself(methods_app):
    assert json.loads(ask(methods_app, "OPTIONS", "/own").body) == {"method": "OPTIONS"}


# Trailing slashes


@pytest.mark.parametrize(
    ("route", "path", "query", "location"),
    [
        ("/users", "/users/", "", "/users"),
        ("/users/", "/users", "", "/users/"),
        ("/users", "/users/", "a=1&b=%20", "/users?a=1&b=%20"),
        ("/users", "/users/", "a=b\\c|d", "/users?a=b%5Cc%7Cd"),
        ("/users", "/users/", "q=caf\xc3\xa9", "/users?q=caf%C3%A9"),
        ("/caf\u00e9", "/caf\xc3\xa9/", "", "/caf%C3%A9"),
        ("/{name}", "/50%?#/", "", "/50%25%3F%23"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/m"])
def test_a_path_that_differs_in_its_trailing_slash_redirects_permanently(
    tmp_path, route, path, query, location, prefix
):
    app = routes_app(tmp_path, Page(route, "page.html"))
    response = ask(app, "GET", path, query, SCRIPT_NAME=prefix)
    assert (response.status, response.header("Location")) == (308, prefix + location)


def test_a_trailing_slash_redirect_of_a_post_keeps_the_method(tmp_path):
    response = post(routes_app(tmp_path, Page("/users", "page.html")), "/users/", {"a": "1"})
    assert (response.status, response.header("Location")) == (308, "/users")


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example/"])
def test_a_trailing_slash_redirect_never_points_to_another_host(tmp_path, path):
    app = routes_app(tmp_path, Page("/{rest:path}", "page.html"), Page("/{a}", "page.html"))
    location = ask(app, "GET", path).header("Location")
    assert location is None or re.match(r"/[^/\\]", location)


# Endpoints


@pytest.mark.parametrize(
    "result", [{"a": [1, None, True]}, [], {}, ["é\U0001f600"], {"text": "</script>"}]
)
def test_a_dict_or_a_list_is_sent_as_json(tmp_path, result):
    response = ask(endpoint_app(tmp_path, result))
    assert response.header("Content-Type") == "application/json"
    assert json.loads(response.body) == result


def test_an_endpoint_receives_its_url_parameters(tmp_path):
    def handler(request, session, db, *, id, name="x", **more):
        return [id, name, more, request.view_args]

    app = routes_app(tmp_path, Endpoint("/{id:int}/{tag}", handler))
    assert json.loads(ask(app, path="/7/b").body) == [7, "x", {"tag": "b"}, {"id": 7, "tag": "b"}]


def test_an_endpoint_receives_request_session_and_db(tmp_path):
    def handler(request, session, db):
        session["n"] = session.get("n", 0) + db.scalar(sa.text("SELECT 1"))
        return {"n": session["n"], "q": request.args.get("q", type=int)}

    visitor = Visitor(routes_app(tmp_path, Endpoint("/", handler)))
    assert json.loads(visitor.get(query="q=5").body) == {"n": 1, "q": 5}
    assert json.loads(visitor.get().body) == {"n": 2, "q": None}


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (None, "handler returned a NoneType; expected a Response, or a dict or list for JSON."),
        ("text", "handler returned a str; expected"),
        ((1, 2), "handler returned a tuple; expected"),
        ({"a": float("nan")}, "Out of range float values are not JSON compliant"),
        ({"a": object()}, "Object of type object is not JSON serializable"),
        (
            {"users": [{}, {"photo": b""}]},
            "returned a value that JSON cannot represent: users[1].photo: Object of type bytes",
        ),
        ([[1, {2}]], "[0][1]: Object of type set"),
        ({"a": {(1, 2): 3}}, "a: keys must be str, int, float, bool or None, not tuple"),
        ({"a": ["x", "\ud800"]}, "a[1]: 'utf-8' codec can't encode"),
        (circular, "it is nested too deeply or contains itself"),
    ],
)
def test_an_invalid_endpoint_result_is_a_500_that_names_the_problem(
    tmp_path, caplog, result, problem
):
    assert ask(endpoint_app(tmp_path, result)).status == 500
    assert problem in str(caplog.records[0].exc_info[1])


def test_the_debug_page_names_a_value_that_json_cannot_represent(tmp_path):
    def handler(request, session, db):
        return {"users": [{"photo": b"x"}]}

    app = routes_app(tmp_path, Endpoint("/", handler), config={"debug": True})
    assert "handler returned a value that JSON cannot represent: users[0].photo: " in ask(app).text


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime.date(2026, 5, 1), "2026-05-01"),
        (datetime.datetime(2026, 5, 1, 9, 30, tzinfo=datetime.UTC), "2026-05-01T09:30:00+00:00"),
        (datetime.time(9, 30), "09:30:00"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (decimal.Decimal("1.10"), "1.10"),
        (Colour.RED, "red"),
    ],
)
def test_json_supports_common_database_types(tmp_path, value, expected):
    assert json.loads(ask(endpoint_app(tmp_path, {"a": [value]})).body) == {"a": [expected]}


def test_an_invalid_result_of_a_partial_is_reported(tmp_path, caplog):
    def handler(request, session, db, result):
        return result

    app = routes_app(tmp_path, Endpoint("/", functools.partial(handler, result="text")))
    assert ask(app).status == 500
    assert "returned a str; expected a Response" in str(caplog.records[0].exc_info[1])


def test_a_response_is_sent_unchanged(tmp_path):
    original = webob.Response("tea", status="418 I'm a teapot", headers={"X-Kind": "green"})
    original.content_type = "text/plain"
    response = ask(endpoint_app(tmp_path, original))
    assert (response.status, response.text, response.header("X-Kind")) == (418, "tea", "green")
    assert response.header("Content-Type") == "text/plain; charset=UTF-8"


def test_one_response_object_can_be_shared_by_all_requests(tmp_path):
    shared = webob.Response("shared")

    def handler(request, session, db):
        session["name"] = request.args["name"]
        return shared

    app = routes_app(tmp_path, Endpoint("/", handler))
    before = list(shared.headerlist)
    responses = [ask(app, query=f"name={name}") for name in "abc"]
    assert {response.text for response in responses} == {"shared"}
    assert len({response.header("Set-Cookie") for response in responses}) == 3
    assert shared.headerlist == before


@pytest.mark.parametrize("raised", [True, False])
def test_one_exception_or_redirect_can_be_shared_by_all_requests(tmp_path, raised):
    shared = webob.exc.HTTPFound(location="/in") if raised else redirect("/in")

    def handler(request, session, db):
        session["name"] = request.args["name"]
        if raised:
            raise shared
        return shared

    app = routes_app(tmp_path, Endpoint("/", handler))
    for name, prefix in (("a", "/one"), ("b", "/two"), ("c", "")):
        response = ask(app, query=f"name={name}", SCRIPT_NAME=prefix, HTTP_HOST=f"{name}.example")
        assert response.header("Location") == ("/in" if raised else f"{prefix}/in")
        assert response.header("Set-Cookie").count("noventa_session") == 1


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (webob.exc.HTTPNotFound, "There is no page at this address."),
        (webob.exc.HTTPNotFound("No user <7>"), "No user &lt;7&gt;"),
        (webob.exc.HTTPForbidden(), "This is not allowed."),
        (webob.exc.HTTPGone(), "<h1>Gone</h1>"),
        (webob.exc.HTTPConflict("Somebody else was first"), "<p>Somebody else was first</p>"),
    ],
)
@pytest.mark.parametrize("raised", [True, False])
def test_an_http_exception_renders_an_error_page_whether_raised_or_returned(
    tmp_path, error, text, raised
):
    error = error() if isinstance(error, type) else error

    def handler(request, session, db):
        if raised:
            raise error
        return error

    response = ask(endpoint_app(tmp_path, handler), HTTP_ACCEPT="text/html")
    assert response.status == error.status_int
    assert text in response.text
    assert response.text.startswith("<!doctype html>")
    assert response.header("Content-Length") == str(len(response.body))


def test_an_http_exception_keeps_its_headers_and_body(tmp_path):
    def handler(request, session, db):
        if "body" in request.args:
            raise webob.exc.HTTPBadRequest(json={"error": "x"}, content_type="application/json")
        raise webob.exc.HTTPUnauthorized(headers={"WWW-Authenticate": "Basic"})

    app = endpoint_app(tmp_path, handler)
    for kind in ("text/html; charset=UTF-8", "application/problem+json"):
        response = ask(app, HTTP_ACCEPT=kind.partition(";")[0])
        assert (response.header("WWW-Authenticate"), response.header("Content-Type")) == (
            "Basic",
            kind,
        )
    assert json.loads(ask(app, query="body=1").body) == {"error": "x"}


def test_a_route_can_raise_the_limits(tmp_path):
    def handler(request, session, db):
        return {"length": len(request.body)}

    routes = [
        Endpoint("/small", handler, methods=["POST"], cross_origin=True),
        Endpoint("/large", handler, methods=["POST"], cross_origin=True, limits={"body": 99}),
    ]
    app = routes_app(tmp_path, *routes, config={"limits": {"body": 9}})
    assert ask(app, "POST", "/small", body=b"x" * 50).status == 413
    assert json.loads(ask(app, "POST", "/large", body=b"x" * 50).body) == {"length": 50}


def test_an_unsafe_endpoint_requires_proof_of_the_same_origin(tmp_path):
    app = endpoint_app(tmp_path, {"ok": 1}, methods=["POST"])
    assert post(app).status == 403
    assert post(app, **SAME_ORIGIN).status == 200
    assert (
        post(endpoint_app(tmp_path, {"ok": 1}, methods=["POST"], cross_origin=True)).status == 200
    )


# Redirects


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/users/7", "/users/7"),
        ("/", "/"),
        ("/a b/é", "/a%20b/%C3%A9"),
        ("/a?q=1&r=%20#top", "/a?q=1&r=%20#top"),
        ("/in?next=https://a.example/x", "/in?next=https://a.example/x"),
        ("/a:b", "/a:b"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/m"])
def test_a_local_redirect_is_relative_to_the_mount_point(tmp_path, target, location, prefix):
    response = ask(endpoint_app(tmp_path, lambda *_: redirect(target)), SCRIPT_NAME=prefix)
    assert (response.status, response.header("Location")) == (303, prefix + location)


BAD_TARGETS = [
    "//evil.example", "https://evil.example", "javascript:alert(1)", "users", "", "/\\evil.example",
    "\\\\evil.example", "/a\r\nSet-Cookie: a=b", "/\tx", "/a\x00", "/\x85", " /a", "http:///a",
    "//[",
]  # fmt: skip


@pytest.mark.parametrize("target", BAD_TARGETS)
def test_an_invalid_redirect_target_returns_400(tmp_path, target):
    response = ask(endpoint_app(tmp_path, lambda *_: redirect(target)))
    assert (response.status, response.header("Location")) == (400, None)
    assert response.refused == "redirect-target"


@pytest.mark.parametrize(
    ("target", "status"),
    [("https://a.example/x y", 303), ("http://a.example", 303), ("ftp://a.example", 400),
     ("https:a.example", 400), ("javascript:alert(1)", 400), ("//a.example", 400),
     ("https://a.example\\@b.example", 400), ("https://a\r\nb", 400), ("https://[", 400)],
)  # fmt: skip
def test_an_external_redirect_requires_an_absolute_http_url(tmp_path, target, status):
    app = endpoint_app(tmp_path, lambda *_: redirect(target, external=True))
    response = ask(app, SCRIPT_NAME="/m")
    assert response.status == status
    assert response.header("Location") == (target.replace(" ", "%20") if status == 303 else None)


# Results of actions


def test_an_actions_dict_is_rendered_in_the_page(tmp_path):
    response = save(form_app(tmp_path, "return {'said': 'done'}"))
    assert (response.status, response.text[:18]) == (200, "<body>[Ada|done|]<")


def test_an_action_that_returns_none_renders_the_page(tmp_path):
    assert "[Ada||]" in save(form_app(tmp_path, "return None")).text


def test_an_actions_status_is_sent_with_the_page_after_a_rollback(tmp_path, caplog):
    source = (
        "db.get(User, 1).name = 'Eve'\n    db.flush()\n"
        "    return {'_status': 422, 'errors': {'name': 'taken'}}"
    )
    response = save(form_app(tmp_path, source))
    assert (response.status, "[Ada||taken]" in response.text) == (422, True)
    assert log_lines(caplog) == []


@pytest.mark.parametrize("prefix", ["", "/m"])
def test_an_actions_redirect_is_a_303_below_the_mount_prefix(tmp_path, prefix):
    app = form_app(tmp_path, "return {'_redirect': '/users/7'}")
    response = save(app, SCRIPT_NAME=prefix)
    assert (response.status, response.header("Location")) == (303, f"{prefix}/users/7")


@pytest.mark.parametrize("target", BAD_TARGETS)
def test_an_actions_redirect_to_an_invalid_target_is_rejected(tmp_path, target):
    response = save(form_app(tmp_path, f"return {{'_redirect': {target!r}}}"))
    assert (response.status, response.header("Location")) == (400, None)


@pytest.mark.parametrize(
    ("source", "status", "text"),
    [
        ("return webob.Response('as it is', status=202)", 202, "as it is"),
        ("return redirect('/in')", 303, ""),
        ("raise webob.exc.HTTPNotFound()", 404, "There is no page at this address."),
        ("return webob.exc.HTTPNotFound()", 404, "There is no page at this address."),
        ("raise webob.exc.HTTPSeeOther(location='/in')", 303, ""),
    ],
)
def test_an_actions_response_or_http_exception_is_sent(tmp_path, source, status, text):
    response = save(form_app(tmp_path, source))
    assert (response.status, text in response.text, "[Ada" in response.text) == (
        status,
        True,
        False,
    )


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (
            "return {'_sttus': 1}",
            "c/c_logic.py:9: action_save returned '_sttus'; did you mean '_status'?",
        ),
        (
            "return {'_status': '422'}",
            "c/c_logic.py:9: action_save returned _status '422'; expected a number",
        ),
        ("return {'_status': 99}", "c/c_logic.py:9: action_save returned _status 99; expected"),
        ("return 'text'", "c/c_logic.py:9: action_save returned a str; expected a dict."),
        ("1 / 0", "division by zero"),
    ],
)
def test_an_invalid_action_result_is_a_500_that_names_the_problem(
    tmp_path, caplog, source, problem
):
    response = save(form_app(tmp_path, source))
    (record,) = caplog.records
    assert (response.status, problem in str(record.exc_info[1])) == (500, True)
    assert "in page.html > c" in record.getMessage()


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("1 / 0", 500),
        ("return {'_status': 422}", 422),
        ("return webob.Response(status=400)", 400),
        ("raise webob.exc.HTTPConflict()", 409),
        ("return {}", 200),
        ("return {'_redirect': '/'}", 303),
        ("raise webob.exc.HTTPSeeOther(location='/')", 303),
    ],
)
def test_uncommitted_changes_are_rolled_back_and_a_forgotten_commit_is_logged(
    tmp_path, caplog, source, status
):
    app = form_app(tmp_path, f"db.get(User, 1).name = 'Eve'; db.flush()\n    {source}")
    assert save(app).status == status
    assert "[Ada|" in ask(app).text
    reports = [line for line in log_lines(caplog) if "without db.commit()" in line]
    assert len(reports) == (status < 400)
    assert all(line.startswith("WARNING page.html > c") for line in reports)


def test_committed_changes_are_kept(tmp_path, caplog):
    app = form_app(tmp_path, "db.get(User, 1).name = 'Eve'; db.commit()")
    assert "[Eve|" in save(app).text
    assert "[Eve|" in ask(app).text
    assert log_lines(caplog) == []


@pytest.mark.parametrize("debug", [True, False])
def test_a_forgotten_commit_is_shown_on_the_page_in_debug_only(tmp_path, debug):
    app = form_app(tmp_path, "db.get(User, 1).name = '<Eve>'", {"debug": debug})
    text = save(app).text
    assert ("<code>c › action_save</code> did not commit" in text) is debug
    assert ("&#39;&lt;Eve&gt;&#39;" in text) is debug
    assert text.endswith("</body>")


def test_a_form_without_a_ticket_returns_400_and_runs_no_action(tmp_path):
    app = form_app(tmp_path, "db.get(User, 1).name = 'Eve'; db.commit()")
    response = post(app, "/", {"name": "x"})
    assert (response.status, response.refused) == (400, "no-ticket")
    assert "[Ada|" in ask(app).text


# Guards


def guard_app(root, guard, **options):
    def endpoint(request, session, db):
        return {"form": dict(request.form)}

    routes = [
        Page("/", "page.html", guards=[guard]),
        Endpoint("/e", endpoint, methods=["GET", "POST"], guards=[guard]),
        Mount("/m", webob.Response("mounted"), guards=[guard]),
        Static("/files", "files", guards=[guard]),
    ]
    (root / "files").mkdir(exist_ok=True)
    return routes_app(root, *routes, **options)


def test_headers_returned_by_a_guard_or_an_endpoint_are_sent(tmp_path):
    def guard(request, session, db):
        if "in" in request.args:
            return None
        return {"_redirect": "/in", "_headers": {"X-Guard": "1"}}

    def endpoint(request, session, db):
        return {"a": 1, "_headers": [("Cache-Control", "max-age=60")]}

    app = routes_app(tmp_path, Endpoint("/", endpoint, guards=[guard]))
    assert ask(app).header("X-Guard") == "1"
    response = ask(app, query="in")
    assert (response.text, response.header("Cache-Control")) == ('{"a":1}', "private, max-age=60")


@pytest.mark.parametrize(
    ("result", "status", "text"),
    [
        ({"_redirect": "/in"}, 303, ""),
        ({"_status": 403}, 403, "This is not allowed."),
        ({"_status": 403, "message": "<Ask>"}, 403, "&lt;Ask&gt;"),
        (webob.Response("as it is", status=401), 401, "as it is"),
        (webob.exc.HTTPNotFound(), 404, "There is no page at this address."),
        (webob.exc.HTTPNotFound, 404, "There is no page at this address."),
    ],
)
def test_a_guard_can_respond_for_every_kind_of_route_and_method(tmp_path, result, status, text):
    def guard(request, session, db):
        if isinstance(result, type):
            raise result
        return result

    app = guard_app(tmp_path, guard)
    for path in ("/", "/e", "/m/x", "/files/page.html"):
        for method in ("GET", "POST"):
            response = ask(app, method, path, HTTP_ACCEPT="text/html", **SAME_ORIGIN)
            assert response.status == status, (method, path)
            assert text in response.text, (method, path)
            assert status != 303 or response.header("Location") == "/in", (method, path)


@pytest.mark.parametrize(("method", "path"), [
    ("GET", "/nothing"), ("POST", "/nothing"), ("GET", "/e/"), ("PATCH", "/e"), ("OPTIONS", "/e"),
    ("POST", "/e"), ("GET", "/m/x"), ("GET", "/e"),
])  # fmt: skip
def test_the_registrys_guards_respond_before_anything_about_the_url_is_revealed(
    tmp_path, method, path
):
    def sign_in(request, session, db):
        return {"_redirect": "/in"}

    def allow_all(request, session, db):
        return None

    app = guard_app(tmp_path, allow_all, guards=[sign_in])
    response = ask(app, method, path)
    assert (response.status, response.header("Location")) == (303, "/in")
    assert response.header("Allow") is None


def test_static_files_run_only_their_own_guards(tmp_path):
    def deny(request, session, db):
        return {"_status": 403}

    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.css").write_text("")
    routes = [Static("/files", "files", guards=[]), Static("/own", "files", guards=[deny])]
    app = routes_app(tmp_path, *routes, guards=[deny])
    assert ask(app, path="/files/a.css").status == 200
    assert ask(app, path="/own/a.css").status == ask(app, path="/").status == 403


def test_a_static_route_must_declare_its_guards_if_the_registry_has_guards(tmp_path):
    def guard(request, session, db):
        return None

    (tmp_path / "files").mkdir()
    with pytest.raises(RegistryError, match=r"'/files' has no guards.*guards=\[\] if they are pub"):
        routes_app(tmp_path, Static("/files", "files"), guards=[guard])
    routes_app(tmp_path, Static("/files", "files"))


def test_a_guards_changes_to_the_session_apply_to_a_404_page_too(tmp_path):
    def language(request, session, db):
        session["language"] = "de" if "de" in request.args else "en"

    source = "def load_template_context(request, session, db): return {**session}"
    (tmp_path / "error.html").write_text("{{ component('which') }}")
    (tmp_path / "which.html").write_text("{{ language }}")
    which = Component("which", "which.html", logic=make_module("which_logic", source))
    app = routes_app(tmp_path, guards=[language], components=[which], errors={"4xx": "error.html"})
    assert [ask(app, path="/no", query=q).text for q in ("de", "en")] == ["de", "en"]


def test_guards_pass_by_returning_none_and_the_registrys_run_first(tmp_path):
    calls = []

    def first(request, session, db):
        calls.append(("first", request.view_args, request.method))

    def second(request, session, db):
        calls.append("second")

    page = Page("/{id:int}", "page.html", guards=[second])
    assert ask(routes_app(tmp_path, page, guards=[first]), path="/7").text == "page"
    assert calls == [("first", {"id": 7}, "GET"), "second"]


@pytest.mark.parametrize("how", ["input", "body", "guard"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_chunked_body_is_limited_wherever_it_is_read(tmp_path, how, method):
    def read(request, session, db):
        source = {"input": request.environ["wsgi.input"].read, "body": lambda: request.body}
        return {"bytes": len(source[how]())}

    def guard(request, session, db):
        return None if how != "guard" else {"_status": 200 + len(request.body) * 0}

    route = Endpoint("/", read, methods=["GET", "POST"], guards=[guard], cross_origin=True)
    app = routes_app(tmp_path, route, config={"limits": {"body": 1_000}})
    chunked = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    response = ask(app, method, body=b"x" * 1_001, CONTENT_LENGTH=None, **chunked)
    assert (response.status, response.refused) == (413, "body-too-large")
    assert ask(app, method, body=b"x" * 1_000, CONTENT_LENGTH=None, **chunked).status == 200


def test_a_guard_runs_before_the_body_is_read(tmp_path):
    def guard(request, session, db):
        return {"_status": 403}

    body = {"CONTENT_TYPE": "nonsense", "CONTENT_LENGTH": "99999999999"}
    assert ask(guard_app(tmp_path, guard), "POST", "/e", **body, **SAME_ORIGIN).status == 403
    open_app = guard_app(tmp_path, lambda request, session, db: None)
    assert ask(open_app, "POST", "/e", **body, **SAME_ORIGIN).status == 413


@pytest.mark.parametrize("result", [True, False, "no", {}, {"status": 403}, 403])
def test_an_invalid_guard_result_is_a_500(tmp_path, caplog, result):
    response = ask(guard_app(tmp_path, lambda request, session, db: result))
    assert response.status == 500
    assert "expected" in str(caplog.records[0].exc_info[1])


def test_a_guard_that_forgets_to_commit_is_logged(tmp_path, caplog):
    models = users_module("g.g_models")

    def count(request, session, db):
        db.add(models.User(name="visit"))

    app = guard_app(tmp_path, count, models=[models])
    assert ask(app).status == 200
    assert log_lines(caplog) == [
        "WARNING page.html > count changed rows without db.commit(); rolled back: new User"
    ]


# Errors


def failing_app(root, config=None):
    """Create an application whose page fails in a nested component."""
    logic = make_module("user.user_logic", """
        def load_template_context(request, session, db):
            password = "hunter2"
            raise RuntimeError("the <secret> of " + str(request.args.get("q")))
    """)  # fmt: skip
    files = {
        "pages/index.html": "<p>\n{{ component('box') }}",
        "box.html": "\n\n{{ component('user') }}",
        "user.html": "",
        "pages/broken.html": "\n\n{{ 1 // 0 }}",
    }
    components = [Component("box", "box.html"), Component("user", "user.html", logic=logic)]
    routes = [Page("/", "pages/index.html"), Page("/broken", "pages/broken.html")]
    return make_app(root, files, config, components=components, routes=routes)


@pytest.mark.parametrize("path", ["/", "/broken"])
def test_a_failing_handler_or_template_is_a_500_that_leaks_nothing(tmp_path, path):
    response = ask(failing_app(tmp_path), path=path, query="q=tea")
    assert response.status == 500
    assert "The site could not handle this request. The error has been logged." in response.text
    for leak in ["secret", "tea", "Error:", ".py", "Traceback", "user", "noventa", str(tmp_path)]:
        assert leak not in response.text


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/", "ERROR 500 GET / in pages/index.html > box > user: RuntimeError"),
        ("/broken", "ERROR 500 GET /broken in pages/broken.html: ZeroDivisionError"),
    ],
)
@pytest.mark.parametrize("debug", [True, False])
def test_a_failure_is_logged_on_one_line_with_the_component_path(
    tmp_path, caplog, path, line, debug
):
    ask(failing_app(tmp_path, {"debug": debug}), path=path)
    (message,) = log_lines(caplog)
    page = ", http://127.0.0.1/_noventa/requests/1" if debug else ""
    assert re.fullmatch(re.escape(line) + f", reference [0-9a-f]{{8}}{page}", message)
    assert caplog.records[0].exc_info


def test_the_debug_page_shows_exception_source_path_and_template_line(tmp_path):
    response = ask(failing_app(tmp_path, {"debug": True}), query="q=tea")
    text = re.sub(r"<[^>]*>", "", response.text)
    assert response.status == 500
    assert "RuntimeError: the &lt;secret&gt; of tea" in text
    assert re.search(r"pages/index.html\s+box\s+user", text)
    assert re.search(r"called by top-level template code box.html:3", text)
    assert "{{ component(&#39;user&#39;) }}" in text
    assert "GET /" in text
    assert "load_template_context" in text


def test_the_debug_page_shows_the_failing_line_of_a_template(tmp_path):
    text = ask(failing_app(tmp_path, {"debug": True}), path="/broken").text
    assert "ZeroDivisionError" in text
    assert "pages/broken.html:3" in text
    assert "{{ 1 // 0 }}" in text


@pytest.mark.parametrize("name", ["page.jinja", "page.xml"])
def test_the_debug_page_shows_templates_with_any_file_name(tmp_path, name):
    def boom():
        raise RuntimeError

    files = {name: "\n{{ x | boom }}"}
    page, filters = Page("/", name), {"boom": lambda value: boom()}
    app = routes_app(tmp_path, page, files=files, config={"debug": True}, filters=filters)
    assert f'<code class="file">{name}:2</code>' in ask(app).text


def test_the_debug_page_shows_the_current_source(tmp_path):
    app = routes_app(tmp_path, Page("/", "page.html"), files={"page.html": "\n{{ 1 // 0 }}"},
                 config={"debug": True})  # fmt: skip
    assert "{{ 1 // 0 }}" in ask(app).text
    logging.getLogger("noventa").disabled = True  # formatting a traceback would reload the file
    try:
        (tmp_path / "page.html").write_text("\n{{ 100 // 0 }} or more")
        assert "{{ 100 // 0 }} or more" in ask(app).text
    finally:
        logging.getLogger("noventa").disabled = False


def test_debug_mode_rejects_remote_clients(tmp_path):
    app = failing_app(tmp_path, {"debug": True})
    assert ask(app, REMOTE_ADDR="192.0.2.1").status == 403
    assert ask(app, REMOTE_ADDR="::1").status == 500


@pytest.mark.parametrize(
    ("status", "environ"),
    [
        (404, {"path": "/nothing"}),
        (400, {"path": "/\xff"}),
        (400, {"path": "/\xc3("}),
        (400, {"path": "/", "query": "q=\xff"}),
        (400, {"path": "/", "query": "q=%ff"}),
        (405, {"path": "/", "method": "PUT"}),
        (400, {"path": "/", "method": "POST", "CONTENT_TYPE": FORM, "CONTENT_LENGTH": "x"}),
    ],
)
@pytest.mark.parametrize("debug", [True, False])
def test_a_client_error_renders_a_small_page_without_a_traceback(tmp_path, status, environ, debug):
    response = ask(routes_app(tmp_path, Page("/", "page.html"), config={"debug": debug}), **environ)
    assert (response.status, f"<title>{status} " in response.text) == (status, True)
    assert response.header("Content-Type") == "text/html; charset=UTF-8"
    assert len(response.body) < (10_000 if debug else 1_500)
    assert "Traceback" not in response.text


def test_an_unknown_status_has_an_error_page_too(tmp_path):
    app = routes_app(
        tmp_path, Page("/", "page.html"), guards=[lambda request, session, db: {"_status": 499}]
    )
    response = ask(app)
    assert (response.status, "<h1>Error</h1>" in response.text) == (499, True)


def test_a_failure_does_not_affect_the_next_request(tmp_path):
    app = form_app(tmp_path, "db.get(User, 1).name = None; db.flush()")
    assert save(app).status == 500
    assert ask(app).status == 200
    assert app.database.engine.pool.checkedout() == 0


def test_a_system_exit_in_a_server_thread_is_a_500(tmp_path, caplog):
    def leave(request, session, db):
        raise SystemExit(3)

    app, responses = routes_app(tmp_path, Endpoint("/", leave)), []
    thread = threading.Thread(target=lambda: responses.append(ask(app)))
    thread.start()
    thread.join()
    assert responses[0].status == 500
    with pytest.raises(SystemExit):
        ask(app)


@pytest.mark.parametrize("settings", [{}, {"debug": True}])
def test_a_missing_secret_key_is_reported_when_a_session_is_used(tmp_path, caplog, settings):
    def handler(request, session, db):
        session["a"] = 1
        return {}

    app = routes_app(tmp_path, Endpoint("/", handler), config={"secret_keys": [], **settings})
    assert ask(app).status == 500
    assert "config.yaml: secret_keys is empty" in str(caplog.records[0].exc_info[1])


@pytest.mark.parametrize("source", ["form", "args", "cookies", "files"])
@pytest.mark.parametrize("debug", [True, False])
def test_a_missing_field_is_a_400_and_is_named_only_in_the_log_and_in_debug(
    tmp_path, caplog, source, debug
):
    def handler(request, session, db):
        return {"value": getattr(request, source)["topic\n" + "x" * 99]}

    route = Endpoint("/", handler, methods=["POST"])
    app = routes_app(tmp_path, route, config={"debug": debug})
    response = post(app, fields={"a": "1"}, HTTP_ACCEPT="text/html", **SAME_ORIGIN)
    assert (response.status, response.refused) == (400, "missing-field")
    message = f"in / > handler: there is no request.{source}['topic\\n" + "x" * 41 + "...']."
    assert log_lines(caplog) == [f"WARNING refused POST /: missing-field (400), {message}"]
    assert (message in unescape(response.text)) is debug
    assert ("topic" in response.text) is debug


@pytest.mark.parametrize("debug", [True, False])
def test_a_key_error_of_the_application_is_a_500(tmp_path, debug):
    def handler(request, session, db):
        return {"value": request.view_args["no"]}

    assert ask(routes_app(tmp_path, Endpoint("/", handler), config={"debug": debug})).status == 500


def test_a_handler_can_catch_a_missing_field_as_a_key_error(tmp_path):
    def handler(request, session, db):
        try:
            return {"value": request.form["title"]}
        except KeyError:
            return {"value": None}

    response = post(routes_app(tmp_path, Endpoint("/", handler, methods=["POST"])), **SAME_ORIGIN)
    assert json.loads(response.body) == {"value": None}


# Headers


def test_default_headers_can_be_added_changed_and_removed(tmp_path):
    headers = {
        "x-frame-options": "DENY",
        "Referrer-Policy": "no-referrer",
        "x-content-type-options": None,
    }
    app = routes_app(tmp_path, Page("/", "page.html"), config={"headers": headers})
    for path in ("/", "/nothing"):
        response = ask(app, path=path)
        assert response.header("X-Frame-Options") == "DENY"
        assert response.header("Referrer-Policy") == "no-referrer"
        assert response.header("X-Content-Type-Options") is None


def test_a_handlers_header_overrides_the_default(tmp_path):
    response = webob.Response("x")
    response.headers["Referrer-Policy"] = "origin"
    assert ask(endpoint_app(tmp_path, response)).header("Referrer-Policy") == "origin"


def test_a_204_response_has_no_content_type_and_no_body(tmp_path):
    original = webob.Response("gone", content_type="text/plain")
    original.status = 204
    response = ask(endpoint_app(tmp_path, original))
    assert (response.status, response.header("Content-Type"), response.body) == (204, None, b"")


# The application itself


def test_an_apps_repr_names_its_folder_and_database_but_no_password(tmp_path):
    config = Config.from_mapping(
        {"database": "postgresql://u:hunter2@h/n?password=hunter2", "secret_keys": [SECRET]},
        tmp_path,
    )
    text = repr(App(Registry(), config))
    assert "hunter2" not in text
    assert text == f"<App {tmp_path.name}, <Database postgresql+psycopg://u:***@h/n>>"


def test_two_applications_in_one_process_share_no_state(tmp_path):
    first = form_app(tmp_path / "first", "return {}")
    second = form_app(tmp_path / "second", "return {}")
    visitor = Visitor(first)
    ticket = visitor.get().tickets[0]
    with second.database.session() as db:
        db.execute(sa.text("UPDATE users SET name = 'Eve'"))
        db.commit()
    assert "[Ada|" in visitor.post("/", ticket).text


@pytest.mark.slow
def test_a_request_neither_opens_files_nor_compiles_nor_imports(tmp_path):
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from support import make_app
from visitors import ask
from noventa import Component, Endpoint, Page
files = {{
    "page.html": "{{% extends 'base.html' %}}{{% block b %}}{{{{ component('c') }}}}"
    "{{% endblock %}}",
    "base.html": "<{{% block b %}}{{% endblock %}}>",
    "c.html": "c",
}}
def handler(request, session, db):
    return {{"q": request.args.get("q")}}
app = make_app(Path({str(tmp_path)!r}), files, components=[Component("c", "c.html")],
               routes=[Page("/", "page.html"), Endpoint("/e", handler)])
ask(app, path="/nothing")  # the WSGI validator imports modules on first use
watched, seen = ("open", "compile", "exec", "import", "os.listdir", "os.scandir"), []
sys.addaudithook(lambda event, args: event in watched and seen.append((event, args)))
responses = [ask(app), ask(app, path="/e", query="q=1"), ask(app, path="/no"), ask(app, "PUT")]
assert [response.status for response in responses] == [200, 200, 404, 405], responses
assert not seen, seen
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=60)


@pytest.mark.slow
def test_a_request_creates_no_reference_cycles(tmp_path):
    """Reference cycles slow down every request and keep its objects alive."""
    app, html, garbage = form_app(tmp_path, "return {}"), [], []
    requests = ("GET", "/"), ("HEAD", "/"), ("GET", "/no-such-page"), ("POST", "/")
    for method, path in requests * 2:
        gc.collect()
        gc.disable()
        environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "wsgi.input": io.BytesIO()}
        html += app(environ, lambda *_: None)
        garbage.append(gc.collect())
        gc.enable()
    assert "[Ada|" in html[0].decode()
    assert garbage[len(requests) :] == [0, 0, 0, 0]  # the first round fills caches
