"""App: from a request to its response; what actions, guards and endpoints may answer."""

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

SAME = {"HTTP_SEC_FETCH_SITE": "same-origin"}


looped = []
looped.append(looped)


def app_of(root, *routes, files=None, config=None, **registry):
    return make_app(root, files or {"page.html": "page"}, config, routes=routes, **registry)


def endpoint_of(root, answer, path="/", **options):
    """An application of one endpoint, which gives `answer` or what calling it gives."""

    def handler(request, session, db, **view_args):
        return answer(request, session, db) if isfunction(answer) else answer

    return app_of(root, Endpoint(path, handler, **options))


def form_app(root, source, config=None, **options):
    """A page / with a component `c`, whose action_save is `source`; it shows a user's name."""
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


def lines_of(caplog):
    return [f"{record.levelname} {record.getMessage()}" for record in caplog.records]


# Pages and methods


@pytest.mark.parametrize("host", ["localhost", "10.0.0.7:8000", "no host at all"])
def test_a_probe_is_answered_whatever_its_host(tmp_path, host):
    config = {"server": {"hosts": ["example.com"], "health": "/up"}}
    app = app_of(tmp_path, config=config)
    for method in ("GET", "HEAD"):
        assert ask(app, method, "/up", HTTP_HOST=host).status == 200
    assert ask(app, "GET", "/", HTTP_HOST=host).status == 400


def test_a_probe_is_told_that_the_database_is_away(tmp_path):
    database = "postgresql+psycopg://postgres@127.0.0.1:1/none"
    settings = {"database": database, "secret_keys": [SECRET], "server": {"health": "/up"}}
    app = App(Registry(), Config.from_mapping(settings, tmp_path))
    answer = ask(app, "GET", "/up")
    assert (answer.status, answer.header("Retry-After")) == (503, "5")


def test_a_page_is_html_of_a_known_length(tmp_path):
    answer = ask(app_of(tmp_path, Page("/", "page.html")))
    assert (answer.status, answer.text) == (200, "page")
    assert answer.header("Content-Type") == "text/html; charset=UTF-8"
    assert answer.header("Content-Length") == "4"


@pytest.mark.parametrize("path", ["/users/ada", "/", "/none", "/users/ada/", "/boom", "/e"])
def test_head_answers_as_get_without_a_body(tmp_path, path):
    def boom(request, session, db):
        raise RuntimeError

    routes = [
        Page("/", "page.html"),
        Page("/users/{name}", "page.html"),
        Endpoint("/boom", boom),
        Endpoint("/e", lambda request, session, db: {"a": 1}),
    ]
    app = app_of(tmp_path, *routes)
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
    never = make_module("page_logic", source)
    return app_of(
        tmp_path,
        Page("/page", "page.html", logic=never),
        Endpoint("/get", handler),
        Endpoint("/put", handler, methods=["put", "DELETE"]),
        Endpoint("/own", handler, methods=["OPTIONS"], cross_origin=True),
        Static("/files", "files"),
    )


@pytest.mark.parametrize(("path", "allow"), ROUTES)
def test_options_says_the_methods_and_runs_nothing(methods_app, path, allow):
    answer = ask(methods_app, "OPTIONS", path)
    assert (answer.status, answer.header("Allow"), answer.body) == (204, allow, b"")


@pytest.mark.parametrize(("path", "allow"), ROUTES)
@pytest.mark.parametrize("method", ["PATCH", "BREW"])
def test_another_method_is_405_with_the_methods_and_runs_nothing(methods_app, path, allow, method):
    answer = ask(methods_app, method, path, **SAME)
    assert (answer.status, answer.header("Allow")) == (405, allow)
    assert "This address does not accept that request method." in answer.text


def test_a_method_in_lower_case_is_another_method(methods_app):
    assert ask(methods_app, "get", "/get", **SAME).status == 405


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_an_endpoint_answers_the_methods_that_it_lists(methods_app, method):
    assert json.loads(ask(methods_app, method, "/put", **SAME).body) == {"method": method}
    assert ask(methods_app, "GET", "/put").status == 405


def test_an_endpoint_may_answer_options_itself(methods_app):
    assert json.loads(ask(methods_app, "OPTIONS", "/own").body) == {"method": "OPTIONS"}


# The slash at the end


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
def test_only_the_other_slash_is_a_permanent_redirect(
    tmp_path, route, path, query, location, prefix
):
    app = app_of(tmp_path, Page(route, "page.html"))
    answer = ask(app, "GET", path, query, SCRIPT_NAME=prefix)
    assert (answer.status, answer.header("Location")) == (308, prefix + location)


def test_a_post_is_redirected_with_its_method(tmp_path):
    answer = post(app_of(tmp_path, Page("/users", "page.html")), "/users/", {"a": "1"})
    assert (answer.status, answer.header("Location")) == (308, "/users")


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example/"])
def test_no_slash_leads_to_another_host(tmp_path, path):
    app = app_of(tmp_path, Page("/{rest:path}", "page.html"), Page("/{a}", "page.html"))
    location = ask(app, "GET", path).header("Location")
    assert location is None or re.match(r"/[^/\\]", location)


# Endpoints


@pytest.mark.parametrize(
    "answer", [{"a": [1, None, True]}, [], {}, ["é\U0001f600"], {"text": "</script>"}]
)
def test_a_dict_or_a_list_is_sent_as_json(tmp_path, answer):
    sent = ask(endpoint_of(tmp_path, answer))
    assert sent.header("Content-Type") == "application/json"
    assert json.loads(sent.body) == answer


def test_an_endpoint_gets_its_url_parameters(tmp_path):
    def handler(request, session, db, *, id, name="x", **more):
        return [id, name, more, request.view_args]

    app = app_of(tmp_path, Endpoint("/{id:int}/{tag}", handler))
    assert json.loads(ask(app, path="/7/b").body) == [7, "x", {"tag": "b"}, {"id": 7, "tag": "b"}]


def test_an_endpoint_gets_request_session_and_db(tmp_path):
    def handler(request, session, db):
        session["n"] = session.get("n", 0) + db.scalar(sa.text("SELECT 1"))
        return {"n": session["n"], "q": request.args.get("q", type=int)}

    visitor = Visitor(app_of(tmp_path, Endpoint("/", handler)))
    assert json.loads(visitor.get(query="q=5").body) == {"n": 1, "q": 5}
    assert json.loads(visitor.get().body) == {"n": 2, "q": None}


@pytest.mark.parametrize(
    ("answer", "problem"),
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
        (looped, "it is nested too deeply or contains itself"),
    ],
)
def test_an_endpoint_that_answers_something_else_is_a_500_that_names_it(
    tmp_path, caplog, answer, problem
):
    assert ask(endpoint_of(tmp_path, answer)).status == 500
    assert problem in str(caplog.records[0].exc_info[1])


def test_what_json_cannot_hold_is_named_on_the_debug_page(tmp_path):
    def handler(request, session, db):
        return {"users": [{"photo": b"x"}]}

    app = app_of(tmp_path, Endpoint("/", handler), config={"debug": True})
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
def test_json_knows_the_values_of_a_database(tmp_path, value, expected):
    assert json.loads(ask(endpoint_of(tmp_path, {"a": [value]})).body) == {"a": [expected]}


def test_an_endpoint_without_a_name_is_named_all_the_same(tmp_path, caplog):
    def full(request, session, db, answer):
        return answer

    app = app_of(tmp_path, Endpoint("/", functools.partial(full, answer="text")))
    assert ask(app).status == 500
    assert "returned a str; expected a Response" in str(caplog.records[0].exc_info[1])


def test_a_response_is_sent_as_it_is(tmp_path):
    made = webob.Response("tea", status="418 I'm a teapot", headers={"X-Kind": "green"})
    made.content_type = "text/plain"
    answer = ask(endpoint_of(tmp_path, made))
    assert (answer.status, answer.text, answer.header("X-Kind")) == (418, "tea", "green")
    assert answer.header("Content-Type") == "text/plain; charset=UTF-8"


def test_one_response_may_be_shared_by_all_requests(tmp_path):
    shared = webob.Response("shared")

    def handler(request, session, db):
        session["who"] = request.args["who"]
        return shared

    app = app_of(tmp_path, Endpoint("/", handler))
    before = list(shared.headerlist)
    answers = [ask(app, query=f"who={who}") for who in "abc"]
    assert {answer.text for answer in answers} == {"shared"}
    assert len({answer.header("Set-Cookie") for answer in answers}) == 3
    assert shared.headerlist == before


@pytest.mark.parametrize("raised", [True, False])
def test_one_exception_or_redirect_may_be_shared_by_all_requests(tmp_path, raised):
    shared = webob.exc.HTTPFound(location="/in") if raised else redirect("/in")

    def handler(request, session, db):
        session["who"] = request.args["who"]
        if raised:
            raise shared
        return shared

    app = app_of(tmp_path, Endpoint("/", handler))
    for who, prefix in (("a", "/one"), ("b", "/two"), ("c", "")):
        answer = ask(app, query=f"who={who}", SCRIPT_NAME=prefix, HTTP_HOST=f"{who}.example")
        assert answer.header("Location") == ("/in" if raised else f"{prefix}/in")
        assert answer.header("Set-Cookie").count("noventa_session") == 1


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
def test_an_http_exception_is_an_error_page_whether_raised_or_returned(
    tmp_path, error, text, raised
):
    error = error() if isinstance(error, type) else error

    def answer(request, session, db):
        if raised:
            raise error
        return error

    sent = ask(endpoint_of(tmp_path, answer), HTTP_ACCEPT="text/html")
    assert sent.status == error.status_int
    assert text in sent.text
    assert sent.text.startswith("<!doctype html>")
    assert sent.header("Content-Length") == str(len(sent.body))


def test_an_http_exception_keeps_its_headers_and_its_own_body(tmp_path):
    def answer(request, session, db):
        if "body" in request.args:
            raise webob.exc.HTTPBadRequest(json={"error": "x"}, content_type="application/json")
        raise webob.exc.HTTPUnauthorized(headers={"WWW-Authenticate": "Basic"})

    app = endpoint_of(tmp_path, answer)
    for kind in ("text/html; charset=UTF-8", "application/problem+json"):
        answer = ask(app, HTTP_ACCEPT=kind.partition(";")[0])
        assert (answer.header("WWW-Authenticate"), answer.header("Content-Type")) == ("Basic", kind)
    assert json.loads(ask(app, query="body=1").body) == {"error": "x"}


def test_a_route_may_raise_the_limits(tmp_path):
    def handler(request, session, db):
        return {"length": len(request.body)}

    routes = [
        Endpoint("/small", handler, methods=["POST"], cross_origin=True),
        Endpoint("/large", handler, methods=["POST"], cross_origin=True, limits={"body": 99}),
    ]
    app = app_of(tmp_path, *routes, config={"limits": {"body": 9}})
    assert ask(app, "POST", "/small", body=b"x" * 50).status == 413
    assert json.loads(ask(app, "POST", "/large", body=b"x" * 50).body) == {"length": 50}


def test_an_unsafe_endpoint_needs_evidence_of_the_same_origin(tmp_path):
    app = endpoint_of(tmp_path, {"ok": 1}, methods=["POST"])
    assert post(app).status == 403
    assert post(app, **SAME).status == 200
    assert post(endpoint_of(tmp_path, {"ok": 1}, methods=["POST"], cross_origin=True)).status == 200


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
def test_a_local_redirect_is_relative_to_the_application(tmp_path, target, location, prefix):
    answer = ask(endpoint_of(tmp_path, lambda *_: redirect(target)), SCRIPT_NAME=prefix)
    assert (answer.status, answer.header("Location")) == (303, prefix + location)


BAD_TARGETS = [
    "//evil.example", "https://evil.example", "javascript:alert(1)", "users", "", "/\\evil.example",
    "\\\\evil.example", "/a\r\nSet-Cookie: a=b", "/\tx", "/a\x00", "/\x85", " /a", "http:///a",
    "//[",
]  # fmt: skip


@pytest.mark.parametrize("target", BAD_TARGETS)
def test_another_target_is_answered_with_400(tmp_path, target):
    answer = ask(endpoint_of(tmp_path, lambda *_: redirect(target)))
    assert (answer.status, answer.header("Location")) == (400, None)
    assert answer.refused == "redirect-target"


@pytest.mark.parametrize(
    ("target", "status"),
    [("https://a.example/x y", 303), ("http://a.example", 303), ("ftp://a.example", 400),
     ("https:a.example", 400), ("javascript:alert(1)", 400), ("//a.example", 400),
     ("https://a.example\\@b.example", 400), ("https://a\r\nb", 400), ("https://[", 400)],
)  # fmt: skip
def test_an_external_redirect_is_a_whole_http_url(tmp_path, target, status):
    app = endpoint_of(tmp_path, lambda *_: redirect(target, external=True))
    answer = ask(app, SCRIPT_NAME="/m")
    assert answer.status == status
    assert answer.header("Location") == (target.replace(" ", "%20") if status == 303 else None)


# What an action answers


def test_a_dict_is_shown_in_the_page(tmp_path):
    answer = save(form_app(tmp_path, "return {'said': 'done'}"))
    assert (answer.status, answer.text[:18]) == (200, "<body>[Ada|done|]<")


def test_none_shows_the_page_too(tmp_path):
    assert "[Ada||]" in save(form_app(tmp_path, "return None")).text


def test_a_status_shows_the_page_with_it_after_a_rollback(tmp_path, caplog):
    source = (
        "db.get(User, 1).name = 'Eve'\n    db.flush()\n"
        "    return {'_status': 422, 'errors': {'name': 'taken'}}"
    )
    answer = save(form_app(tmp_path, source))
    assert (answer.status, "[Ada||taken]" in answer.text) == (422, True)
    assert lines_of(caplog) == []


@pytest.mark.parametrize("prefix", ["", "/m"])
def test_a_redirect_is_303_below_the_prefix(tmp_path, prefix):
    app = form_app(tmp_path, "return {'_redirect': '/users/7'}")
    answer = save(app, SCRIPT_NAME=prefix)
    assert (answer.status, answer.header("Location")) == (303, f"{prefix}/users/7")


@pytest.mark.parametrize("target", BAD_TARGETS)
def test_a_redirect_elsewhere_is_refused(tmp_path, target):
    answer = save(form_app(tmp_path, f"return {{'_redirect': {target!r}}}"))
    assert (answer.status, answer.header("Location")) == (400, None)


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
def test_a_response_or_an_http_exception_is_the_answer(tmp_path, source, status, text):
    answer = save(form_app(tmp_path, source))
    assert (answer.status, text in answer.text, "[Ada" in answer.text) == (status, True, False)


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
def test_an_action_that_answers_something_else_is_a_500_that_names_it(
    tmp_path, caplog, source, problem
):
    answer = save(form_app(tmp_path, source))
    (record,) = caplog.records
    assert (answer.status, problem in str(record.exc_info[1])) == (500, True)
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
def test_what_was_not_committed_is_undone_and_forgetting_is_reported(
    tmp_path, caplog, source, status
):
    app = form_app(tmp_path, f"db.get(User, 1).name = 'Eve'; db.flush()\n    {source}")
    assert save(app).status == status
    assert "[Ada|" in ask(app).text
    reports = [line for line in lines_of(caplog) if "without db.commit()" in line]
    assert len(reports) == (status < 400)
    assert all(line.startswith("WARNING page.html > c") for line in reports)


def test_what_was_committed_is_kept(tmp_path, caplog):
    app = form_app(tmp_path, "db.get(User, 1).name = 'Eve'; db.commit()")
    assert "[Eve|" in save(app).text
    assert "[Eve|" in ask(app).text
    assert lines_of(caplog) == []


@pytest.mark.parametrize("debug", [True, False])
def test_a_forgotten_commit_is_noticed_on_the_page_in_debug_only(tmp_path, debug):
    app = form_app(tmp_path, "db.get(User, 1).name = '<Eve>'", {"debug": debug})
    text = save(app).text
    assert ("<code>c › action_save</code> did not commit" in text) is debug
    assert ("&#39;&lt;Eve&gt;&#39;" in text) is debug
    assert text.endswith("</body>")


def test_a_form_without_a_ticket_is_400_and_nothing_is_run(tmp_path):
    app = form_app(tmp_path, "db.get(User, 1).name = 'Eve'; db.commit()")
    answer = post(app, "/", {"name": "x"})
    assert (answer.status, answer.refused) == (400, "no-ticket")
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
    return app_of(root, *routes, **options)


def test_headers_of_a_guard_and_of_an_endpoint_are_added(tmp_path):
    def guard(request, session, db):
        if "in" in request.args:
            return None
        return {"_redirect": "/in", "_headers": {"X-Guard": "1"}}

    def endpoint(request, session, db):
        return {"a": 1, "_headers": [("Cache-Control", "max-age=60")]}

    app = app_of(tmp_path, Endpoint("/", endpoint, guards=[guard]))
    assert ask(app).header("X-Guard") == "1"
    answer = ask(app, query="in")
    assert (answer.text, answer.header("Cache-Control")) == ('{"a":1}', "private, max-age=60")


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        ({"_redirect": "/in"}, 303, ""),
        ({"_status": 403}, 403, "This is not allowed."),
        ({"_status": 403, "message": "<Ask>"}, 403, "&lt;Ask&gt;"),
        (webob.Response("as it is", status=401), 401, "as it is"),
        (webob.exc.HTTPNotFound(), 404, "There is no page at this address."),
        (webob.exc.HTTPNotFound, 404, "There is no page at this address."),
    ],
)
def test_a_guard_answers_for_every_route_and_method(tmp_path, answer, status, text):
    def guard(request, session, db):
        if isinstance(answer, type):
            raise answer
        return answer

    app = guard_app(tmp_path, guard)
    for path in ("/", "/e", "/m/x", "/files/page.html"):
        for method in ("GET", "POST"):
            sent = ask(app, method, path, HTTP_ACCEPT="text/html", **SAME)
            assert sent.status == status, (method, path)
            assert text in sent.text, (method, path)
            assert status != 303 or sent.header("Location") == "/in", (method, path)


@pytest.mark.parametrize(("method", "path"), [
    ("GET", "/nothing"), ("POST", "/nothing"), ("GET", "/e/"), ("PATCH", "/e"), ("OPTIONS", "/e"),
    ("POST", "/e"), ("GET", "/m/x"), ("GET", "/e"),
])  # fmt: skip
def test_the_registrys_guards_answer_before_anything_is_said_of_the_url(tmp_path, method, path):
    def sign_in(request, session, db):
        return {"_redirect": "/in"}

    def let_pass(request, session, db):
        return None

    app = guard_app(tmp_path, let_pass, guards=[sign_in])
    answer = ask(app, method, path)
    assert (answer.status, answer.header("Location")) == (303, "/in")
    assert answer.header("Allow") is None


def test_files_have_guards_of_their_own_only(tmp_path):
    def nobody(request, session, db):
        return {"_status": 403}

    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.css").write_text("")
    routes = [Static("/files", "files", guards=[]), Static("/own", "files", guards=[nobody])]
    app = app_of(tmp_path, *routes, guards=[nobody])
    assert ask(app, path="/files/a.css").status == 200
    assert ask(app, path="/own/a.css").status == ask(app, path="/").status == 403


def test_files_without_guards_are_a_fault_where_the_registry_has_some(tmp_path):
    def guard(request, session, db):
        return None

    (tmp_path / "files").mkdir()
    with pytest.raises(RegistryError, match=r"'/files' has no guards.*guards=\[\] if they are pub"):
        app_of(tmp_path, Static("/files", "files"), guards=[guard])
    app_of(tmp_path, Static("/files", "files"))


def test_what_a_guard_chose_shows_on_a_404_too(tmp_path):
    def language(request, session, db):
        session["language"] = "de" if "de" in request.args else "en"

    source = "def load_template_context(request, session, db): return {**session}"
    (tmp_path / "error.html").write_text("{{ component('which') }}")
    (tmp_path / "which.html").write_text("{{ language }}")
    which = Component("which", "which.html", logic=make_module("which_logic", source))
    app = app_of(tmp_path, guards=[language], components=[which], errors={"4xx": "error.html"})
    assert [ask(app, path="/no", query=q).text for q in ("de", "en")] == ["de", "en"]


def test_guards_that_give_none_let_pass_the_registrys_first(tmp_path):
    ran = []

    def first(request, session, db):
        ran.append(("first", request.view_args, request.method))

    def second(request, session, db):
        ran.append("second")

    page = Page("/{id:int}", "page.html", guards=[second])
    assert ask(app_of(tmp_path, page, guards=[first]), path="/7").text == "page"
    assert ran == [("first", {"id": 7}, "GET"), "second"]


@pytest.mark.parametrize("how", ["input", "body", "guard"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_chunked_body_is_within_the_limit_whoever_reads_it(tmp_path, how, method):
    def read(request, session, db):
        source = {"input": request.environ["wsgi.input"].read, "body": lambda: request.body}
        return {"bytes": len(source[how]())}

    def guard(request, session, db):
        return None if how != "guard" else {"_status": 200 + len(request.body) * 0}

    route = Endpoint("/", read, methods=["GET", "POST"], guards=[guard], cross_origin=True)
    app = app_of(tmp_path, route, config={"limits": {"body": 1_000}})
    chunked = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    answer = ask(app, method, body=b"x" * 1_001, CONTENT_LENGTH=None, **chunked)
    assert (answer.status, answer.refused) == (413, "body-too-large")
    assert ask(app, method, body=b"x" * 1_000, CONTENT_LENGTH=None, **chunked).status == 200


def test_a_guard_runs_before_the_body_is_read(tmp_path):
    def guard(request, session, db):
        return {"_status": 403}

    body = {"CONTENT_TYPE": "nonsense", "CONTENT_LENGTH": "99999999999"}
    assert ask(guard_app(tmp_path, guard), "POST", "/e", **body, **SAME).status == 403
    let_pass = guard_app(tmp_path, lambda request, session, db: None)
    assert ask(let_pass, "POST", "/e", **body, **SAME).status == 413


@pytest.mark.parametrize("answer", [True, False, "no", {}, {"status": 403}, 403])
def test_a_guard_that_answers_something_else_lets_nobody_pass(tmp_path, caplog, answer):
    sent = ask(guard_app(tmp_path, lambda request, session, db: answer))
    assert sent.status == 500
    assert "expected" in str(caplog.records[0].exc_info[1])


def test_a_guard_that_forgot_to_commit_is_reported(tmp_path, caplog):
    models = users_module("g.g_models")

    def count(request, session, db):
        db.add(models.User(name="visit"))

    app = guard_app(tmp_path, count, models=[models])
    assert ask(app).status == 200
    assert lines_of(caplog) == [
        "WARNING page.html > count changed rows without db.commit(); rolled back: new User"
    ]


# Errors


def failing(root, config=None):
    """An application whose page fails in a component inside a component."""
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
def test_a_failing_handler_or_template_is_500_which_leaks_nothing(tmp_path, path):
    answer = ask(failing(tmp_path), path=path, query="q=tea")
    assert answer.status == 500
    assert "The site could not handle this request. The error has been logged." in answer.text
    for leak in ["secret", "tea", "Error:", ".py", "Traceback", "user", "noventa", str(tmp_path)]:
        assert leak not in answer.text


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/", "ERROR 500 GET / in pages/index.html > box > user: RuntimeError"),
        ("/broken", "ERROR 500 GET /broken in pages/broken.html: ZeroDivisionError"),
    ],
)
@pytest.mark.parametrize("debug", [True, False])
def test_a_failure_is_one_log_line_with_the_component_path(tmp_path, caplog, path, line, debug):
    ask(failing(tmp_path, {"debug": debug}), path=path)
    (logged,) = lines_of(caplog)
    page = ", http://127.0.0.1/_noventa/requests/1" if debug else ""
    assert re.fullmatch(re.escape(line) + f", reference [0-9a-f]{{8}}{page}", logged)
    assert caplog.records[0].exc_info


def test_the_debug_page_shows_exception_source_path_and_template_line(tmp_path):
    answer = ask(failing(tmp_path, {"debug": True}), query="q=tea")
    text = re.sub(r"<[^>]*>", "", answer.text)
    assert answer.status == 500
    assert "RuntimeError: the &lt;secret&gt; of tea" in text
    assert re.search(r"pages/index.html\s+box\s+user", text)
    assert re.search(r"called by top-level template code box.html:3", text)
    assert "{{ component(&#39;user&#39;) }}" in text
    assert "GET /" in text
    assert "load_template_context" in text


def test_the_debug_page_shows_a_failing_template_at_its_line(tmp_path):
    text = ask(failing(tmp_path, {"debug": True}), path="/broken").text
    assert "ZeroDivisionError" in text
    assert "pages/broken.html:3" in text
    assert "{{ 1 // 0 }}" in text


@pytest.mark.parametrize("name", ["page.jinja", "page.xml"])
def test_the_debug_page_knows_templates_of_any_name(tmp_path, name):
    def boom():
        raise RuntimeError

    files = {name: "\n{{ x | boom }}"}
    page, filters = Page("/", name), {"boom": lambda value: boom()}
    app = app_of(tmp_path, page, files=files, config={"debug": True}, filters=filters)
    assert f'<code class="file">{name}:2</code>' in ask(app).text


def test_the_debug_page_shows_the_source_as_it_is_now(tmp_path):
    app = app_of(tmp_path, Page("/", "page.html"), files={"page.html": "\n{{ 1 // 0 }}"},
                 config={"debug": True})  # fmt: skip
    assert "{{ 1 // 0 }}" in ask(app).text
    logging.getLogger("noventa").disabled = True  # formatting a traceback would read it again
    try:
        (tmp_path / "page.html").write_text("\n{{ 100 // 0 }} or more")
        assert "{{ 100 // 0 }} or more" in ask(app).text
    finally:
        logging.getLogger("noventa").disabled = False


def test_debug_answers_nobody_from_afar(tmp_path):
    app = failing(tmp_path, {"debug": True})
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
def test_a_bad_request_is_a_small_plain_page(tmp_path, status, environ, debug):
    answer = ask(app_of(tmp_path, Page("/", "page.html"), config={"debug": debug}), **environ)
    assert (answer.status, f"<title>{status} " in answer.text) == (status, True)
    assert answer.header("Content-Type") == "text/html; charset=UTF-8"
    assert len(answer.body) < (10_000 if debug else 1_500)
    assert "Traceback" not in answer.text


def test_an_unknown_status_has_a_page_too(tmp_path):
    app = app_of(
        tmp_path, Page("/", "page.html"), guards=[lambda request, session, db: {"_status": 499}]
    )
    answer = ask(app)
    assert (answer.status, "<h1>Error</h1>" in answer.text) == (499, True)


def test_one_failure_does_not_reach_the_next_request(tmp_path):
    app = form_app(tmp_path, "db.get(User, 1).name = None; db.flush()")
    assert save(app).status == 500
    assert ask(app).status == 200
    assert app.database.engine.pool.checkedout() == 0


def test_a_system_exit_in_a_servers_thread_is_an_answer(tmp_path, caplog):
    def leave(request, session, db):
        raise SystemExit(3)

    app, answers = app_of(tmp_path, Endpoint("/", leave)), []
    thread = threading.Thread(target=lambda: answers.append(ask(app)))
    thread.start()
    thread.join()
    assert answers[0].status == 500
    with pytest.raises(SystemExit):
        ask(app)


@pytest.mark.parametrize("environ", [{}, {"debug": True}])
def test_a_missing_secret_key_is_said_when_a_session_is_used(tmp_path, caplog, environ):
    def handler(request, session, db):
        session["a"] = 1
        return {}

    app = app_of(tmp_path, Endpoint("/", handler), config={"secret_keys": [], **environ})
    assert ask(app).status == 500
    assert "config.yaml: secret_keys is empty" in str(caplog.records[0].exc_info[1])


@pytest.mark.parametrize("source", ["form", "args", "cookies", "files"])
@pytest.mark.parametrize("debug", [True, False])
def test_a_missing_field_is_a_400_that_names_it_to_us_alone(tmp_path, caplog, source, debug):
    def handler(request, session, db):
        return {"value": getattr(request, source)["topic\n" + "x" * 99]}

    route = Endpoint("/", handler, methods=["POST"])
    app = app_of(tmp_path, route, config={"debug": debug})
    answer = post(app, fields={"a": "1"}, HTTP_ACCEPT="text/html", **SAME)
    assert (answer.status, answer.refused) == (400, "missing-field")
    named = f"in / > handler: there is no request.{source}['topic\\n" + "x" * 41 + "...']."
    assert lines_of(caplog) == [f"WARNING refused POST /: missing-field (400), {named}"]
    assert (named in unescape(answer.text)) is debug
    assert ("topic" in answer.text) is debug


@pytest.mark.parametrize("debug", [True, False])
def test_an_applications_own_key_error_stays_a_500(tmp_path, debug):
    def handler(request, session, db):
        return {"value": request.view_args["no"]}

    assert ask(app_of(tmp_path, Endpoint("/", handler), config={"debug": debug})).status == 500


def test_a_handler_may_catch_a_missing_field_as_a_key_error(tmp_path):
    def handler(request, session, db):
        try:
            return {"value": request.form["title"]}
        except KeyError:
            return {"value": None}

    answer = post(app_of(tmp_path, Endpoint("/", handler, methods=["POST"])), **SAME)
    assert json.loads(answer.body) == {"value": None}


# Headers


def test_default_headers_may_be_added_changed_and_removed(tmp_path):
    headers = {
        "x-frame-options": "DENY",
        "Referrer-Policy": "no-referrer",
        "x-content-type-options": None,
    }
    app = app_of(tmp_path, Page("/", "page.html"), config={"headers": headers})
    for path in ("/", "/nothing"):
        answer = ask(app, path=path)
        assert answer.header("X-Frame-Options") == "DENY"
        assert answer.header("Referrer-Policy") == "no-referrer"
        assert answer.header("X-Content-Type-Options") is None


def test_a_handlers_own_header_wins_over_the_default(tmp_path):
    made = webob.Response("x")
    made.headers["Referrer-Policy"] = "origin"
    assert ask(endpoint_of(tmp_path, made)).header("Referrer-Policy") == "origin"


def test_an_answer_without_content_has_no_type_and_no_length(tmp_path):
    made = webob.Response("gone", content_type="text/plain")
    made.status = 204
    answer = ask(endpoint_of(tmp_path, made))
    assert (answer.status, answer.header("Content-Type"), answer.body) == (204, None, b"")


# The application itself


def test_its_repr_tells_two_apart_and_hides_the_password(tmp_path):
    config = Config.from_mapping(
        {"database": "postgresql://u:hunter2@h/n?password=hunter2", "secret_keys": [SECRET]},
        tmp_path,
    )
    shown = repr(App(Registry(), config))
    assert "hunter2" not in shown
    assert shown == f"<App {tmp_path.name}, <Database postgresql+psycopg://u:***@h/n>>"


def test_two_applications_in_one_process_share_nothing(tmp_path):
    one = form_app(tmp_path / "one", "return {}")
    two = form_app(tmp_path / "two", "return {}")
    visitor = Visitor(one)
    ticket = visitor.get().tickets[0]
    with two.database.session() as db:
        db.execute(sa.text("UPDATE users SET name = 'Eve'"))
        db.commit()
    assert "[Ada|" in visitor.post("/", ticket).text


@pytest.mark.slow
def test_a_request_opens_compiles_lists_and_imports_nothing(tmp_path):
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
ask(app, path="/nothing")  # the validator around it imports something at its first use
watched, seen = ("open", "compile", "exec", "import", "os.listdir", "os.scandir"), []
sys.addaudithook(lambda event, args: event in watched and seen.append((event, args)))
answers = [ask(app), ask(app, path="/e", query="q=1"), ask(app, path="/no"), ask(app, "PUT")]
assert [answer.status for answer in answers] == [200, 200, 404, 405], answers
assert not seen, seen
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=60)


@pytest.mark.slow
def test_a_request_leaves_nothing_for_the_garbage_collector(tmp_path):
    """Circular references of every request cost each of them time, and hold what it loaded."""
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
    assert garbage[len(requests) :] == [0, 0, 0, 0]  # the first ones fill caches
