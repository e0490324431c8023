"""Properties of every response: headers, caching, errors, the debug page, hosts and cookies."""

import logging
from inspect import isfunction

import pytest
import webob
from conftest import leave
from processes import KEY, serving, write_project
from support import SECRET, make_app, make_module
from visitors import Visitor, ask, post

from noventa import (
    App,
    Component,
    Config,
    ConfigError,
    Endpoint,
    Page,
    Registry,
    SessionError,
    redirect,
)

DEFAULTS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Content-Security-Policy": "frame-ancestors 'self'",
    "Cross-Origin-Opener-Policy": "same-origin",
}
PASSWORD = "p@ss/word of the database"
DATABASE = {
    "driver": "postgresql",
    "host": "127.0.0.1",
    "user": "u",
    "name": "n",
    "password": PASSWORD,
}


def endpoint(handler, path="/", **more):
    return Endpoint(path, handler, **more)


def returning(value):
    def handler(request, session, db):
        return value() if isfunction(value) else value

    return handler


def raising(make):
    def handler(request, session, db):
        raise make(request)

    return handler


def make_app_with_password(root, *routes, **config):
    """Create an application whose database has a password and is never connected to."""
    settings = {"secret_keys": [SECRET], "database": DATABASE, **config}
    return App(Registry(routes=routes), Config.from_mapping(settings, root))


# ---- Headers ----


@pytest.mark.parametrize(("path", "method", "status"), [
    ("/", "GET", 200), ("/no", "GET", 404), ("/", "PUT", 405), ("/break", "GET", 500),
    ("/\xff", "GET", 400),
    ("/go", "GET", 303), ("/empty", "GET", 204), ("/", "OPTIONS", 204),
])  # fmt: skip
def test_every_response_has_the_default_headers(tmp_path, path, method, status):
    routes = [
        endpoint(returning({"a": 1})), endpoint(raising(lambda request: RuntimeError()), "/break"),
        endpoint(returning(lambda: redirect("/")), "/go"),
        endpoint(returning(lambda: webob.Response(status=204)), "/empty"),
    ]  # fmt: skip
    response = ask(make_app(tmp_path, routes=routes), method, path)
    assert response.status == status
    sent = {name: response.header(name) for name in DEFAULTS}
    own, _, default = sent["Content-Security-Policy"].rpartition("; ")
    assert {**sent, "Content-Security-Policy": default} == DEFAULTS
    assert (own == "") is ("<style>" not in response.text)


def test_the_config_sets_and_removes_headers_and_handlers_override_them(tmp_path):
    config = {
        "headers": {
            "referrer-policy": None,
            "Strict-Transport-Security": "max-age=9",
            "X-A": "config",
        }
    }
    routes = [
        endpoint(
            returning(
                lambda: webob.Response(b"", headerlist=[("Content-Type", "a/b"), ("x-a", "own")])
            )
        )
    ]
    response = ask(make_app(tmp_path, config=config, routes=routes))
    assert response.header("Referrer-Policy") is None
    assert response.header("Strict-Transport-Security") == "max-age=9"
    assert response.header("X-A") == "own"


@pytest.mark.parametrize(("status", "length"), [(204, None), (205, "0"), (304, None)])
@pytest.mark.parametrize("by", ["guard", "action"])
def test_a_response_whose_status_allows_no_body_has_none(tmp_path, by, status, length):
    def guard(request, session, db):
        return {"_status": status} if by == "guard" else None

    logic = make_module(
        "nobody.nobody_logic",
        f"def action_go(request, session, db): return {{'_status': {status}}}",
    )
    files = {"page.html": "{{ component('nobody') }}", "nobody.html": "{{ action('go') }}"}
    components = [Component("nobody", "nobody.html", logic=logic)]
    routes = [Page("/", "page.html"), Page("/guarded", "page.html", guards=[guard])]
    visitor = Visitor(make_app(tmp_path, files, components=components, routes=routes))
    if by == "guard":
        response = visitor.get("/guarded")
    else:
        response = visitor.post(ticket=visitor.get().tickets[0])
    assert (response.status, response.body) == (status, b"")
    assert response.header("Content-Length") == length
    assert response.header("X-Content-Type-Options") == "nosniff"


def test_the_config_cannot_set_the_content_type_or_length(tmp_path):
    config = {"headers": {"content-type": "a/b", "Content-Length": "1"}}
    files = {"page.html": "page"}
    response = ask(make_app(tmp_path, files, config, routes=[Page("/", "page.html")]))
    assert [value for name, value in response.headers if name == "Content-Length"] == ["4"]
    types = [value for name, value in response.headers if name == "Content-Type"]
    assert types == ["text/html; charset=UTF-8"]


@pytest.mark.parametrize("headers", [{"X A": "b"}, {"X-A": "a\r\nX-B: c"}, {"X-A": "€"}])
def test_an_invalid_header_in_the_config_is_an_error(tmp_path, headers):
    with pytest.raises(ConfigError, match="characters invalid in HTTP"):
        Config.from_mapping({"headers": headers}, tmp_path)


@pytest.mark.parametrize("name", ["X A", "X:A", "X-A\r\nX-B", "", "X-Ä"])
def test_an_invalid_header_name_is_never_sent(tmp_path, name):
    original = webob.Response(b"", headerlist=[("Content-Type", "a/b"), (name, "value")])
    assert ask(make_app(tmp_path, routes=[endpoint(returning(original))])).status == 500


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0b", "a\x7f", "€"])
def test_an_invalid_header_value_is_rejected_and_its_header_is_named(tmp_path, value):
    original = webob.Response(b"", headerlist=[("Content-Type", "a/b"), ("X-A", value)])
    response = ask(make_app(tmp_path, routes=[endpoint(returning(original))]))
    assert (response.status, response.refused, response.header("X-Evil")) == (
        400,
        "value-of-X-A",
        None,
    )


def test_an_invalid_status_line_is_never_sent(tmp_path):
    original = webob.Response(b"")
    original.status = "200 OK\r\nX-Evil: 1"
    response = ask(make_app(tmp_path, routes=[endpoint(returning(original))]))
    assert (response.status, response.header("X-Evil")) == (500, None)


def test_a_shared_response_is_not_changed(tmp_path):
    shared = webob.Response(
        b"x", headerlist=[("Content-Type", "a/b"), ("Location", "/a b")], status=302
    )

    def handler(request, session, db):
        session["n"] = session.get("n", 0) + 1
        return shared

    app = make_app(tmp_path, routes=[endpoint(handler)])
    first, second = ask(app), ask(app, SCRIPT_NAME="/m", HTTP_HOST="evil.example")
    assert first.header("Set-Cookie")
    assert first.header("Location") == second.header("Location") == "/a%20b"
    assert [name for name, _ in shared.headerlist] == ["Content-Type", "Location", "Content-Length"]
    assert shared.location == "/a b"


@pytest.mark.parametrize(("location", "expected"), [
    ("/a", "/a"), ("a/b", "a/b"), ("?next=http://x", "?next=http://x"), ("#a:b", "#a:b"),
    ("../x", "../x"),
    ("https://site.example/ä", "https://site.example/%C3%A4"), ("//evil.example", None),
    ("javascript:x", None),
    ("\\\\evil", None), ("/\\evil", None), ("a\r\nb", None), ("http:evil", None),
])  # fmt: skip
def test_the_location_of_any_response_is_checked_and_never_built_from_the_host(
    tmp_path, location, expected
):
    headers = [("Content-Type", "a/b"), ("Location", location)]
    original = webob.Response(status=302, headerlist=headers)
    response = ask(
        make_app(tmp_path, routes=[endpoint(returning(original))]), HTTP_HOST="evil.example"
    )
    assert response.header("Location") == expected
    assert response.status == (302 if expected else 400)


@pytest.mark.parametrize(("original", "expected"), [
    (redirect("/a"), "/m/a"), (webob.exc.HTTPFound(location="/a"), "/a"),
    (webob.Response(status=201, location="a/b"), "a/b"),
    (webob.Response(b"x", location="?next=/a", etag="x", conditional_response=True), "?next=/a"),
])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("condition", [{}, {"HTTP_IF_NONE_MATCH": '"x"'}])
def test_a_conditional_response_keeps_its_location(tmp_path, original, expected, method, condition):
    original.conditional_response = True
    app = make_app(tmp_path, routes=[endpoint(returning(original))])
    for host in ("evil.example", "other.example"):  # both requests share the response
        response = ask(app, method, SCRIPT_NAME="/m", HTTP_HOST=host, **condition)
        assert response.header("Location") == expected


def test_a_trailing_slash_redirect_keeps_the_query_string(tmp_path):
    app = make_app(tmp_path, {"p.html": "x"}, routes=[Page("/é/a", "p.html")])
    response = ask(app, path="/\xc3\xa9/a/", query="a=%C3%A9&b=\xc3\xa9", SCRIPT_NAME="/m")
    assert (response.status, response.header("Location")) == (308, "/m/%C3%A9/a?a=%C3%A9&b=%C3%A9")


# ---- Caching ----


def test_only_a_response_that_read_the_session_is_private(tmp_path):
    def read(request, session, db):
        return {"user": session.get("user")}

    app = make_app(tmp_path, routes=[endpoint(returning({"a": 1})), endpoint(read, "/read")])
    assert ask(app).header("Cache-Control") is None
    assert ask(app).header("Vary") is None
    response = ask(app, path="/read")
    assert response.header("Cache-Control") == "private"
    assert response.header("Vary") == "Cookie"
    assert response.header("Set-Cookie") is None


@pytest.mark.parametrize("guarded", ["registry", "route", "component"])
@pytest.mark.parametrize("path", ["/", "/fail"])
def test_a_response_behind_a_guard_is_private(tmp_path, guarded, path):
    def guard(request, session, db):
        return None

    def fail(request, session, db):
        raise webob.exc.HTTPNotFound

    guards = {name: [guard] if name == guarded else [] for name in ("registry", "route")}
    part = Component("part", "part.html", guard=guard if guarded == "component" else None)
    files = {"page.html": "{{ component('part') }}", "part.html": "part"}
    routes = [
        Page("/", "page.html", guards=guards["route"]),
        endpoint(fail, "/fail", guards=guards["route"]),
    ]
    app = make_app(tmp_path, files, components=[part], routes=routes, guards=guards["registry"])
    response = ask(app, path=path)
    guard_has_run = (guarded, path) != ("component", "/fail")
    assert response.header("Cache-Control") == ("private" if guard_has_run else None)
    assert ("Cookie" in (response.header("Vary") or "")) is guard_has_run


def test_a_page_with_a_form_is_private(tmp_path):
    logic = make_module("form_logic", "def action_x(request, session, db): pass")
    component = Component("form", "form.html", logic=logic)
    files = {"page.html": "{{ component('form') }}", "form.html": "{{ action('x') }}"}
    response = ask(
        make_app(tmp_path, files, components=[component], routes=[Page("/", "page.html")])
    )
    assert response.header("Cache-Control") == "private"
    assert "HttpOnly" in response.header("Set-Cookie")


@pytest.mark.parametrize(("given", "expected"), [
    (None, "private"), ("max-age=60", "private, max-age=60"), ("no-store", "no-store"),
    ("public, max-age=60", "public, max-age=60"),
])  # fmt: skip
def test_a_streamed_body_that_may_read_the_session_late_is_private(tmp_path, given, expected):
    def handler(request, session, db):
        headers = [("Content-Type", "a/b"), *([("Cache-Control", given)] if given else [])]
        return webob.Response(app_iter=(b"x" for _ in range(2)), headerlist=headers)

    for method in ("GET", "HEAD"):
        response = ask(make_app(tmp_path, routes=[endpoint(handler)]), method)
        assert response.header("Cache-Control") == expected
        assert response.header("Vary") == (None if given and "public" in given else "Cookie")


@pytest.mark.parametrize(("status", "condition"), [
    (200, {}), (304, {"HTTP_IF_NONE_MATCH": '"1"'}), (416, {"HTTP_RANGE": "bytes=9-"}),
])  # fmt: skip
def test_a_conditional_response_with_a_streamed_body_is_private_too(tmp_path, status, condition):
    def handler(request, session, db):
        streamed = webob.Response(app_iter=(b"x" for _ in range(2)), content_type="a/b", etag="1")
        streamed.content_length, streamed.conditional_response = 2, True
        return streamed

    response = ask(make_app(tmp_path, routes=[endpoint(handler)]), **condition)
    assert response.status == status
    assert (response.header("Cache-Control"), response.header("Vary")) == ("private", "Cookie")


@pytest.mark.parametrize("early", [True, False])
def test_a_public_streamed_body_cannot_read_the_session_late(tmp_path, caplog, early):
    def handler(request, session, db):
        if early:
            session.get("user")
        chunks = (str(session.get("user")).encode() for _ in range(2))
        headers = [("Content-Type", "a/b"), ("Cache-Control", "public")]
        return webob.Response(app_iter=chunks, headerlist=headers)

    app = make_app(tmp_path, routes=[endpoint(handler)])
    if early:
        assert ask(app).header("Cache-Control") == "private"
    else:
        with pytest.raises(SessionError, match="use it before returning the response"):
            ask(app)


# ---- Errors ----


def test_an_error_page_leaks_nothing_and_the_log_has_the_details(tmp_path, caplog):
    secret = raising(lambda request: RuntimeError(f"{SECRET} {PASSWORD} {request.cookies['a']}"))
    app = make_app_with_password(tmp_path, endpoint(secret))
    response = ask(app, HTTP_COOKIE="a=cookie-value")
    assert response.status == 500
    for word in (
        SECRET,
        PASSWORD,
        "cookie-value",
        "Traceback",
        "RuntimeError",
        str(tmp_path),
        ".py",
    ):
        assert word not in response.text
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage().startswith("500 GET / in / > handler: RuntimeError")
    assert record.exc_info


ATTACK = "a\x1b[2J\r\n2026-01-01 INFO forged\x85\u2028\u202e\ud800\x7f\x00\tend"


@pytest.mark.parametrize("chained", [True, False])
@pytest.mark.parametrize("formatter", [logging.Formatter(), logging.Formatter("%(name)s")])
def test_an_exception_cannot_forge_log_lines_or_control_a_terminal(
    tmp_path, caplog, chained, formatter
):
    def handler(request, session, db):
        try:
            raise ValueError(ATTACK)
        except ValueError as error:
            raise (RuntimeError("second") if chained else error) from None if not chained else error

    ask(make_app(tmp_path, routes=[endpoint(handler)]))
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    text = formatter.format(record)
    assert r"ValueError: a\x1b[2J\r" in text
    assert r"  2026-01-01 INFO forged\x85\u2028\u202e\ud800\x7f\x00\tend" in text
    assert all(line.isprintable() for line in text.split("\n"))
    assert all(line.startswith("  ") for line in text.split("\n")[1:])
    assert record.exc_info


def test_a_message_cannot_forge_log_lines(tmp_path, caplog):
    def handler(request, session, db):
        db.connection().exec_driver_sql("CREATE TABLE t (a)")
        db.connection().exec_driver_sql(f"INSERT INTO t VALUES ('{ATTACK[:30]}')")
        return {}

    ask(make_app(tmp_path, routes=[endpoint(handler, methods=["POST"], cross_origin=True)]), "POST")
    [record] = [record for record in caplog.records if "without db.commit()" in record.getMessage()]
    assert r"a\x1b[2J" in record.getMessage()
    assert record.getMessage().isprintable()


@pytest.mark.parametrize("path", ["/no", "/raised", "/sound"])
def test_head_has_the_headers_of_get_and_no_body(tmp_path, path):
    raised = raising(lambda request: webob.exc.HTTPGone("it was here"))
    app = make_app(
        tmp_path, routes=[endpoint(raised, "/raised"), endpoint(returning({}), "/sound")]
    )
    got, head = ask(app, path=path), ask(app, "HEAD", path)
    assert (head.status, head.headers, head.body) == (got.status, got.headers, b"")
    assert got.header("Content-Length") == str(len(got.body))


@pytest.mark.parametrize("error", [
    RuntimeError, RecursionError, MemoryError, StopIteration, UnicodeEncodeError, KeyError,
    ConfigError, ExceptionGroup,
])  # fmt: skip
def test_any_exception_from_a_handler_is_a_500(tmp_path, error):
    arguments = {
        UnicodeEncodeError: ("utf-8", "\ud800", 0, 1, "x"),
        ExceptionGroup: ("x", [ValueError()]),
    }
    handler = raising(lambda request: error(*arguments.get(error, ("x",))))
    assert ask(make_app(tmp_path, routes=[endpoint(handler)])).status == 500


def test_no_repr_contains_a_password(tmp_path):
    app = make_app_with_password(tmp_path)
    text = repr((app, app.database, app.config, app.config.database_url))
    assert PASSWORD not in text
    assert "p%40ss" not in text
    assert SECRET not in text


# ---- The debug page ----


def test_the_debug_page_hides_keys_cookies_and_passwords(tmp_path):
    def handler(request, session, db):
        values = (SECRET, PASSWORD, "p%40ss%2Fword%20of%20the%20database", request.cookies["a"])
        raise RuntimeError(f"seen: {values} {request.form['new_password']} {request.form['name']}")

    route = endpoint(handler, methods=["POST"], cross_origin=True)
    app = make_app_with_password(tmp_path, route, debug=True)
    response = post(
        app,
        fields={"new_password": "hunter2 & co", "name": "ann"},
        HTTP_COOKIE='a="cookie-value"; b=x; t=dark',
    )
    assert response.status == 500
    assert "seen: " in response.text
    assert "ann" in response.text
    for secret in (SECRET, PASSWORD, "p%40ss", "cookie-value", "hunter2"):
        assert secret not in response.text


def test_the_debug_page_hides_a_secret_in_the_source_too(tmp_path):
    handler = make_module(
        "with_password", "def handler(request, session, db): raise RuntimeError  # hunter22"
    )
    (tmp_path / "with_password.py").write_text(
        "def handler(request, session, db): raise RuntimeError  # hunter22"
    )
    code = compile(
        (tmp_path / "with_password.py").read_text(), str(tmp_path / "with_password.py"), "exec"
    )
    exec(code, handler.__dict__)
    database = {**DATABASE, "password": "hunter22"}
    app = make_app_with_password(tmp_path, endpoint(handler.handler), database=database, debug=True)
    response = ask(app, HTTP_ACCEPT="text/html")
    assert "raise RuntimeError" in response.text
    assert "hunter22" not in response.text


def test_a_short_cookie_does_not_garble_the_debug_page(tmp_path):
    routes = [endpoint(raising(lambda request: RuntimeError("kept")))]
    app = make_app(tmp_path, config={"debug": True}, routes=routes)
    response = ask(app, HTTP_ACCEPT="text/html", HTTP_COOKIE="a=e; b=<; c=html; d=; e")
    assert "<!doctype html>" in response.text
    assert "RuntimeError: kept" in response.text


@pytest.mark.parametrize(("address", "status"), [
    ("127.0.0.1", 200), ("::1", 200), ("", 200), ("192.0.2.1", 403), ("10.0.0.1", 403),
    ("fe80::1%eth0", 403), ("junk", 403),
])  # fmt: skip
def test_debug_mode_rejects_remote_clients(tmp_path, address, status):
    app = make_app(tmp_path, config={"debug": True}, routes=[endpoint(returning({}))])
    response = ask(app, REMOTE_ADDR=address)
    assert response.status == status
    assert response.refused == (None if status == 200 else "debug-from-afar")


@pytest.mark.parametrize(("address", "host", "more", "refused"), [
    ("172.17.0.1", "localhost:8000", {}, None),
    ("::ffff:172.17.0.1", "app.example", {}, None),
    ("127.0.0.1", "localhost", {}, None),
    ("172.32.0.1", "localhost", {}, "debug-from-afar"),
    ("junk", "localhost", {}, "debug-from-afar"),
    ("172.17.0.1", "evil.example", {}, "debug-host"),
    ("172.17.0.1", "localhost", {"HTTP_X_FORWARDED_FOR": "127.0.0.1"}, "debug-by-proxy"),
])  # fmt: skip
def test_debug_mode_accepts_clients_from_debug_from_networks(
    tmp_path, caplog, address, host, more, refused
):
    config = {"debug": True, "debug_from": ["172.16.0.0/12"], "server": {"hosts": ["app.example"]}}
    app = make_app(tmp_path, config=config, routes=[endpoint(returning({}))])
    assert "every client in 172.16.0.0/12 can see source code" in caplog.text
    response = ask(app, REMOTE_ADDR=address, HTTP_HOST=host, **more)
    assert (response.status, response.refused) == (403 if refused else 200, refused)


@pytest.mark.parametrize("network", ["172.16.0.1/12", "everybody", "172.16.0.0/33"])
def test_an_invalid_network_in_debug_from_is_an_error(tmp_path, network):
    with pytest.raises(ConfigError, match="expected a network like 172"):
        make_app(tmp_path, config={"debug": True, "debug_from": [network]})


LOCAL_HOSTS = (
    "localhost", "LOCALHOST:8000", "localhost.", "my.app.localhost:1", "127.0.0.1:8000",
    "127.9.9.9", "[::1]", "[::1]:8000", "[0:0:0:0:0:0:0:1]", None,
)  # fmt: skip
FOREIGN_HOSTS = (
    "evil.example", "evil.example:8000", "localhost.evil.example", "evillocalhost", "",
    "127.0.0.1.evil.example", "192.0.2.1", "[::2]", "0.0.0.0", "localhost evil", "[::1",
    "::1", "localhost@evil.example", "evil.example#.localhost", "\xff.localhost",
    "localhost, evil.example", "evil.example\0.localhost", "localhost:80:80",
)  # fmt: skip


@pytest.mark.parametrize("hosts", [[], [".example"]])
def test_debug_mode_accepts_only_local_host_names(tmp_path, hosts):
    config = {"debug": True, "server": {"hosts": hosts}}
    app = make_app(tmp_path, config=config, routes=[endpoint(returning({}))])
    for host in LOCAL_HOSTS:
        response = ask(app, HTTP_HOST=host)
        assert (response.status, response.refused) == (200, None), host
    for host in FOREIGN_HOSTS:
        response = ask(app, HTTP_HOST=host)
        assert (response.status, response.refused) == (403, "debug-host"), host
        assert "Open http://localhost" in response.text, host


def test_debug_mode_rejects_requests_through_a_proxy(tmp_path):
    app = make_app(tmp_path, config={"debug": True}, routes=[endpoint(returning({}))])
    for header in (
        "X_FORWARDED_FOR", "X_FORWARDED_HOST", "X_FORWARDED_PROTO", "X_FORWARDED", "FORWARDED",
        "VIA", "X_REAL_IP", "X_CLIENT_IP", "TRUE_CLIENT_IP", "CF_CONNECTING_IP",
    ):  # fmt: skip
        response = ask(app, HTTP_HOST="localhost", **{f"HTTP_{header}": "127.0.0.1"})
        assert (response.status, response.refused) == (403, "debug-by-proxy"), header
        assert header.replace("_", "-").title() in response.text


def test_without_debug_mode_remote_clients_are_accepted(tmp_path):
    app = make_app(tmp_path, routes=[endpoint(returning({}))])
    assert ask(app, REMOTE_ADDR="192.0.2.1").status == 200


# ---- Hosts ----

HOSTS = ["Example.com", ".sub.example.org", "[::1]", "10.0.0.1"]


LISTED_HOSTS = (
    "example.com", "EXAMPLE.com:8000", "example.com.", "example.com.:80", "[::1]:8000",
    "10.0.0.1", "sub.example.org", "a.b.SUB.example.org",
)  # fmt: skip
UNLISTED_HOSTS = (
    "www.example.com", "example.org", "xsub.example.org", "example.com.evil.example",
    "evil.example", "", ".", ".sub.example.org", "example.com@evil.example",
    "example.com/x", "example.com:x", "example.com evil.example",
    "evil.example, example.com", "\xffexample.com", "localhost", "127.0.0.1",
    "::1",
)  # fmt: skip


def test_an_unlisted_host_is_rejected_before_anything_runs(tmp_path, caplog):
    def guard(request, session, db):
        hosts.append(request.host)

    hosts, config = [], {"server": {"hosts": HOSTS}}
    routes = [endpoint(returning({}))]
    app = make_app(tmp_path, config=config, routes=routes, guards=[guard])
    for host in LISTED_HOSTS:
        response = ask(app, HTTP_HOST=host)
        assert (response.status, response.refused) == (200, None), host
    assert hosts == list(LISTED_HOSTS)
    for host in UNLISTED_HOSTS:
        response = ask(app, HTTP_HOST=host)
        assert (response.status, response.refused) == (400, "unknown-host"), host
        assert f"unknown-host (400), Host is {host!a}; if it is yours, " in caplog.messages[-1]
        assert "server.hosts" not in response.text
    assert hosts == list(LISTED_HOSTS)


@pytest.mark.parametrize(("environ", "status"), [
    ({"SERVER_NAME": "example.com"}, 200), ({"SERVER_NAME": "waitress.invalid"}, 400),
    ({"SERVER_NAME": None}, 400),
])  # fmt: skip
def test_without_a_host_header_the_server_name_is_checked(tmp_path, environ, status):
    app = make_app(tmp_path, config={"server": {"hosts": HOSTS}}, routes=[endpoint(returning({}))])
    assert ask(app, HTTP_HOST=None, **environ).status == status


def test_without_listed_hosts_any_host_is_accepted(tmp_path):
    app = make_app(tmp_path, routes=[endpoint(returning({}))])
    assert [ask(app, HTTP_HOST=host).status for host in ("evil.example", "", "\xff")] == [200] * 3


# ---- Cookies ----


def test_the_session_cookie_is_hidden_from_scripts_and_other_sites(tmp_path):
    def touch(request, session, db):
        session["a"] = 1
        return {}

    config = {"session": {"secure": True, "cookie_name": "__Host-id"}}
    app = make_app(tmp_path, config=config, routes=[endpoint(touch)])
    visitor = Visitor(app, SCRIPT_NAME="/m")
    header = visitor.get().header("Set-Cookie").lower()
    assert all(flag in header for flag in ("secure", "httponly", "samesite=lax", "path=/;"))
    assert visitor.get().header("Set-Cookie") is None


STRICT_PROJECT = {
    "config.yaml": f"secret_keys: ['{KEY}']\nsession: {{same_site: strict}}\n",
    "logic.py": """\
from noventa import redirect


def load_template_context(request, session, db):
    return {"user": session.get("user", "a stranger")}


def sign_in(request, session, db):
    session.rotate()
    session["user"] = "ada"
    return redirect("/")


def action_say(request, session, db):
    return {"said": request.form["text"]}
""",
    "registry.py": """\
import logic
from noventa import Component, Endpoint, Page, Registry

registry = Registry(
    components=[Component("note", "note.html", logic=logic)],
    routes=[
        Page("/", "page.html"), Page("/elsewhere", "elsewhere.html"),
        Endpoint("/sign-in", logic.sign_in),
    ],
)
""",
    "page.html": "{{ component('note') }}<a id=on href='/'>on</a>",
    "note.html": """\
<h1>{{ user }}</h1>{{ said }}{{ errors.form }}
<form method=post>{{ action('say') }}<input name=text value="{{ values.text }}">
<button>Say</button></form>
""",
    "elsewhere.html": "<a id=there href='/'>there</a>",
}


@pytest.mark.slow
def test_in_a_browser_a_link_from_another_site_does_not_sign_the_visitor_out(tmp_path, chromium):
    with serving(write_project(tmp_path, STRICT_PROJECT)) as server:
        page, site = chromium.new_page(), server.url.replace("127.0.0.1", "localhost")
        page.goto(f"{site}/sign-in")
        assert page.text_content("h1") == "ada"
        page.goto(f"{server.url}/elsewhere")
        page.evaluate("site => document.querySelector('a').href = site", f"{site}/")
        leave(page, page.locator("#there"))
        assert page.text_content("h1") == "a stranger"  # the browser withholds the cookie
        page.fill("[name=text]", "typed")
        leave(page, page.locator("button"))
        assert page.text_content("h1") == "ada"
        # the form is refilled, because the session has changed
        assert page.input_value("[name=text]") == "typed"
        leave(page, page.locator("button"))
        assert "typed" in page.text_content("body")
        leave(page, page.locator("#on"))
        assert page.text_content("h1") == "ada"


def test_a_session_without_a_secret_key_is_an_error_that_names_the_fix(tmp_path, caplog):
    def touch(request, session, db):
        session["a"] = 1
        return {}

    app = make_app(
        tmp_path,
        config={"secret_keys": []},
        routes=[endpoint(touch), endpoint(returning({}), "/plain")],
    )
    assert ask(app, path="/plain").status == 200
    assert ask(app).status == 500
    assert "openssl rand -hex 32" in caplog.text
