"""Errors: the application's page, problem+json or the built-in page, as the client prefers."""

import base64
import hashlib
import json
import re

import pytest
import sqlalchemy as sa
import webob.exc
from support import make_app, make_module
from visitors import Visitor, ask, post

from noventa import App, Component, Config, Endpoint, Page, Registry, RegistryError

HTML = {"HTTP_ACCEPT": "text/html,application/xhtml+xml,*/*;q=0.8"}
ERROR = """{% extends 'layout.html' %}{% block main %}{{ status }} {{ title }}: {{ message }}
({{ reference }}) {{ url('/') }} {{ component('help') }}{% endblock %}"""
FILES = {
    "layout.html": "<title>Shop</title>{% block main %}{% endblock %}",
    "error.html": ERROR,
    "help.html": "help for {{ who }}",
    "page.html": "page",
}
HELP = """
    def load_template_context(request, session, db):
        return {"who": session.get("user", "all")}
"""


def fail(request, session, db):
    raise RuntimeError("it broke")


def read(request, session, db):
    return {"read": request.form["text"]}


def app_with(root, errors, *routes, files=(), config=None):
    routes = routes or (Page("/", "page.html"), Endpoint("/fail", fail))
    return make_app(
        root, {**FILES, **dict(files)}, config, routes=routes, errors=errors,
        components=[Component("help", "help.html", logic=make_module("help_logic", HELP))],
    )  # fmt: skip


@pytest.mark.parametrize(("key", "status"), [(404, 404), ("4xx", 404)])
def test_an_unknown_url_renders_the_error_page_of_its_status_or_class(tmp_path, key, status):
    response = ask(app_with(tmp_path, {key: "error.html"}), path="/no", SCRIPT_NAME="/m", **HTML)
    assert response.status == status
    heading = "<title>Shop</title>404 Not Found: There is no page at this address."
    assert re.fullmatch(heading + r"\n\([0-9a-f]{8}\) /m/ help for all", response.text)


def test_the_page_for_a_status_takes_precedence_over_its_class(tmp_path):
    app = app_with(tmp_path, {"4xx": "page.html", 404: "error.html"})
    assert "404 Not Found" in ask(app, path="/no", **HTML).text


@pytest.mark.parametrize(
    ("send", "status"),
    [
        (lambda app: ask(app, "DELETE", **HTML), 405),
        (lambda app: ask(app, "POST", "/read", body=b"x" * 99, **HTML), 413),
        (lambda app: ask(app, "POST", "/", body=b"x", CONTENT_TYPE="text/x", **HTML), 415),
        (lambda app: post(app, "/", **HTML), 400),
        (lambda app: ask(app, path="/%", query="a=%ff", **HTML), 400),
    ],
)
def test_every_rejected_request_renders_the_applications_error_page(tmp_path, send, status):
    routes = Page("/", "page.html"), Endpoint("/read", read, methods=["POST"], cross_origin=True)
    app = app_with(tmp_path, {"4xx": "error.html"}, *routes, config={"limits": {"body": 50}})
    response = send(app)
    assert (response.status, f"<title>Shop</title>{status} " in response.text) == (status, True)


def test_the_page_shows_the_reference_that_was_logged(tmp_path, caplog):
    response = ask(app_with(tmp_path, {"5xx": "error.html"}), path="/fail", **HTML)
    (reference,) = re.findall(r"\(([0-9a-f]{8})\)", response.text)
    assert (response.status, caplog.text.count(f"reference {reference}")) == (500, 1)
    assert "it broke" not in response.text


@pytest.mark.parametrize("path", ["/no", "/fail"])
def test_an_error_page_can_use_the_session_and_is_private(tmp_path, path):
    def enter(request, session, db):
        session["user"] = "Ada"
        return {}

    routes = Page("/", "page.html"), Endpoint("/enter", enter), Endpoint("/fail", fail)
    app = app_with(tmp_path, {404: "error.html", 500: "error.html"}, *routes)
    visitor = Visitor(app, **HTML)
    visitor.get("/enter")
    response = visitor.get(path)
    assert "help for Ada" in response.text
    assert "private" in response.header("Cache-Control")


@pytest.mark.parametrize("broken", ["{{ 1 / 0 }}", "{{ component('help', odd=1, **{}) }}"])
def test_a_failing_error_page_falls_back_to_the_built_in_one(tmp_path, broken, caplog):
    app = app_with(tmp_path, {"5xx": "error.html"}, files={"error.html": broken})
    response = ask(app, path="/fail", **HTML)
    assert (response.status, "Something went wrong" in response.text) == (500, True)
    assert ["it broke" in caplog.text, "the error page error.html failed" in caplog.text] == [
        True, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("environ", "status", "text_part"),
    [
        ({"path": "/", "HTTP_COOKIE": "a=" + "b" * 20_000}, 431, "help for all"),
        ({"path": "/\xff"}, 400, "could not be understood"),
        ({"path": "/", "query": "a=%ff"}, 400, "could not be understood"),
    ],
)
def test_an_error_page_can_read_a_rejected_request_and_one_line_is_logged(
    tmp_path, caplog, environ, status, text_part
):
    caplog.set_level("INFO")
    reading_help = HELP.replace("return", "request.args, request.path; return")
    logic = make_module("reading_logic", reading_help)
    app = make_app(
        tmp_path, FILES, routes=[Page("/", "page.html", logic=logic)],
        errors={"4xx": "error.html"}, components=[Component("help", "help.html", logic=logic)],
    )  # fmt: skip
    response = ask(app, **environ, **HTML)
    assert (response.status, text_part in response.text) == (status, True)
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is None


def test_an_unreachable_database_renders_the_built_in_page_at_once(tmp_path):
    def ask_database(request, session, db):
        return {"n": db.execute(sa.text("SELECT 1")).scalar()}

    for name, text in FILES.items():
        (tmp_path / name).write_text(text, "utf-8")
    registry = Registry(routes=[Endpoint("/", ask_database)], errors={"5xx": "page.html"})
    away = {"database": "postgresql+psycopg://127.0.0.1:1/none"}
    response = ask(App(registry, Config.from_mapping(away, tmp_path)), **HTML)
    assert (response.status, "temporarily unavailable" in response.text) == (503, True)


def test_writes_before_an_error_are_rolled_back_when_an_error_page_renders(tmp_path):
    table = sa.Table("t", sa.MetaData(), sa.Column("n", sa.Integer))

    def write(request, session, db):
        db.execute(table.insert().values(n=1))
        raise RuntimeError("after the write")

    app = make_app(
        tmp_path, FILES, routes=[Endpoint("/", write)], models=[table],
        errors={500: "error.html"},
        components=[Component("help", "help.html", logic=make_module("help_logic", HELP))],
    )  # fmt: skip
    assert "help for all" in ask(app, **HTML).text
    with app.database.session() as db:
        assert db.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 0


def test_the_built_in_page_shows_the_sites_name_a_home_link_and_the_reference(tmp_path, caplog):
    app = app_with(tmp_path, {}, config={"name": "The <Shop>"})
    response = ask(app, path="/fail", SCRIPT_NAME="/m", **HTML)
    (reference,) = re.findall(r"the reference <code>(\w+)</code>", response.text)
    assert f"reference {reference}" in caplog.text
    assert '<a href="/m/">The &lt;Shop&gt;</a>' in response.text
    assert "<title>500 Internal Server Error · The &lt;Shop&gt;</title>" in response.text


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize("path", ["/no", "/fail"])
def test_built_in_error_pages_ignore_the_configured_content_security_policy(tmp_path, path, debug):
    headers = {"Content-Security-Policy": "script-src https://cdn.example"}
    app = app_with(tmp_path, {}, config={"debug": debug, "headers": headers})
    response = ask(app, path=path, **HTML)
    policy = response.header("Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", response.text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert f"style-src 'sha256-{digest}';" in policy
    assert "style=" not in response.text


@pytest.mark.parametrize("script_name", ["/\xff", "//evil.example"])
def test_a_bad_prefix_renders_an_error_page_without_links_to_other_hosts(tmp_path, script_name):
    app = app_with(tmp_path, {}, config={"debug": True})
    response = ask(app, path="/\xff", SCRIPT_NAME=script_name, **HTML)
    assert response.status == 400
    assert 'href="//' not in response.text


# JSON clients


def test_an_endpoints_problem_json_includes_exception_and_line_only_in_debug(tmp_path):
    def fail(request, session, db):
        raise LookupError("no row")

    config = {"debug": True}
    app = make_app(tmp_path, config=config, routes=[Endpoint("/", fail)])
    problem = json.loads(ask(app).body)
    assert (problem["exception"], problem["status"]) == ("LookupError: no row", 500)
    line = fail.__code__.co_firstlineno + 1
    assert problem["where"].endswith(f"test_errors.py:{line}")
    assert "<!doctype html>" in ask(app, HTTP_ACCEPT="text/html").text
    bare = make_app(tmp_path, routes=[Endpoint("/", fail)])
    assert "exception" not in json.loads(ask(bare).body)


@pytest.mark.parametrize(
    "accept", ["application/json", "application/problem+json, text/html;q=0.5"]
)
@pytest.mark.parametrize("path", ["/no", "/fail"])
def test_clients_that_prefer_json_get_problem_json(tmp_path, accept, path):
    app = app_with(tmp_path, {"4xx": "error.html", "5xx": "error.html"})
    response = ask(app, path=path, HTTP_ACCEPT=accept)
    problem = json.loads(response.text)
    assert response.header("Content-Type") == "application/problem+json"
    assert problem["status"] == response.status
    assert problem["title"] == {404: "Not Found", 500: "Internal Server Error"}[response.status]
    assert "Accept" in response.header("Vary")


@pytest.mark.parametrize("accept", [None, "*/*", "nonsense;;q=x"])
def test_an_endpoint_defaults_to_problem_json_without_a_preference(tmp_path, accept):
    def missing(request, session, db):
        raise webob.exc.HTTPNotFound("No user 7")

    app = app_with(tmp_path, {404: "error.html"}, Endpoint("/", missing))
    response = ask(app, HTTP_ACCEPT=accept)
    assert json.loads(response.text)["detail"] == "No user 7"


def test_a_browser_gets_an_html_page_from_an_endpoint_too(tmp_path):
    response = ask(app_with(tmp_path, {"5xx": "error.html"}), path="/fail", **HTML)
    assert response.text.startswith("<title>Shop</title>500")


# Registry checks


@pytest.mark.parametrize(
    ("errors", "problem"),
    [
        ({200: "error.html"}, "errors has the key 200; expected a number from 400 to 599"),
        ({"404": "error.html"}, "errors has the key '404'; expected a number"),
        ({404: "eror.html"}, "template 'eror.html' does not exist; did you mean 'error.html'?"),
        ([404], "errors is \\[404\\]; expected a mapping of statuses to templates"),
    ],
)
def test_an_invalid_error_page_is_a_problem(tmp_path, errors, problem):
    with pytest.raises(RegistryError, match=problem):
        app_with(tmp_path, errors)
