"""Hostile requests: nothing leaks, no response is a 5xx and no resources are left behind.

The cases are rows of tables: a name, the request and the expected statuses.
"""

import gc
import json
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import tracemalloc
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import sqlalchemy as sa
import webob
from processes import environment, free_port, listens, stop, wait_for
from support import NOTES, SECRET, make_app, make_module
from visitors import FORM, ask, multipart

from noventa import Component, Endpoint, Mount, Page, Static, redirect

LIMITS = {"body": 1_000_000, "memory": 10_000, "fields": 200, "files": 20}
SOURCE = (
    NOTES
    + """
    def load_template_context(request, session, db, **props):
        session["seen"] = True
        return {"count": db.query(Note).count()}

    def action_add(request, session, db, **props):
        db.add(Note(text=request.form.get("text", "")))
        db.flush()
        session.flash(request.form.get("text", "")[:40])
        return {"_status": 422, "values": request.form, "names": sorted(request.files)}
"""
)
TEMPLATE = """
    <form method="post" enctype="multipart/form-data">{{ action("add") }}
    <input name="text" value="{{ values.text }}">{{ errors.text }} {{ count }}</form>
    {% for text, kind in flashes() %}<p>{{ text }}</p>{% endfor %}
"""


def echo(request, session, db, **view_args):
    """Access everything that a request offers."""
    headers = (request.accept, request.accept_language, request.range, request.if_range)
    dates = (request.date, request.if_modified_since, request.if_unmodified_since)
    names = (request.url, request.host, request.path, repr(request), request.client_addr)
    read = (request.GET, request.cookies, request.referer, request.params, request.max_forwards)
    session["count"] = session.get("count", 0) + 1
    text = repr((headers, dates, names, read, request.content_length))
    return {"text": len(text), "args": dict(request.args), "view_args": view_args}


def read_json(request, session, db):
    return {"json": request.json, "again": json.loads(json.dumps(request.json))}


def read_form(request, session, db):
    files = [(name, file.filename, file.content_type) for name, file in request.files.items()]
    return {"form": dict(request.form), "files": files}


def read_body(request, session, db):
    return {"bytes": len(request.body)}


def go(request, session, db):
    return redirect(request.args.get("to", "/"), external="out" in request.args)


def raw_location(request, session, db):
    return webob.Response(status=302, headerlist=[("Location", request.args.get("to", "/"))])


def header(request, session, db):
    return webob.Response(b"x", headerlist=[("Content-Type", "a/b"), ("X-Echo", request.args["v"])])


def cookie(request, session, db):
    response = webob.Response("x")
    with warnings.catch_warnings():  # WebOb warns of what it has to quote
        warnings.simplefilter("ignore", RuntimeWarning)
        response.set_cookie("echo", request.args["v"], max_age=9)
    return response


def download(request, session, db):
    response = webob.Response("x")
    response.headers["Content-Disposition"] = f'attachment; filename="{request.args["v"]}"'
    return response


def fail(request, session, db):
    raise RuntimeError(f"about {request.args['v']}")


def mounted(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [repr((environ["SCRIPT_NAME"], environ["PATH_INFO"])).encode()]


def make_hostile_app(root):
    """Create an application that uses requests in all the usual ways."""
    logic = make_module("hostile_logic", SOURCE)
    (root / "files").mkdir(exist_ok=True)
    (root / "files" / "site.css").write_text("body { color: red }\n")
    (root / "files" / ".env").write_text("SECRET=1")
    (root / "secret.txt").write_text("outside")
    return make_app(
        root,
        {"page.html": '{{ component("note") }}', "note.html": TEMPLATE, "user.html": "{{ name }}"},
        {"limits": LIMITS},
        components=[Component("note", "note.html", logic=logic, models=[logic])],
        routes=[
            Page("/", "page.html"),
            Page("/users/{name}", "user.html"),
            Endpoint("/numbers/{number:int}", echo),
            Endpoint("/any/{rest:path}", echo),
            Endpoint("/echo", echo, methods=["GET", "POST"], cross_origin=True),
            Endpoint("/same", read_form, methods=["POST"]),
            Endpoint("/json", read_json, methods=["POST"], cross_origin=True),
            Endpoint("/form", read_form, methods=["POST"], cross_origin=True),
            Endpoint("/body", read_body, methods=["GET", "POST"], cross_origin=True),
            Endpoint("/go", go),
            Endpoint("/raw-location", raw_location),
            Endpoint("/header", header),
            Endpoint("/cookie", cookie),
            Endpoint("/raise", fail),
            Endpoint("/download", download),
            Mount("/m", mounted),
            Static("/files", "files"),
        ],
    )


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    return make_hostile_app(tmp_path_factory.mktemp("hostile"))


class Case(NamedTuple):
    """A request, as keyword arguments of `ask`, and its expected statuses."""

    group: str
    name: str
    request: dict
    expected: set


CASES = []


def add(group, expected, rows):
    """Add cases from `rows`, pairs of a name and keyword arguments of `ask`."""
    statuses = {expected} if isinstance(expected, int) else set(expected)
    for number, (name, request) in enumerate(rows):
        CASES.append(Case(group, f"{group}-{number}-{name}", request, statuses))


def at(path, **more):
    return {"path": path, **more}


# ---- Paths and queries ----

BAD_BYTES = (
    "\xff",
    "\xfe\xff",
    "\xc3",
    "\xc0\xaf",
    "\xed\xa0\x80",
    "\xf8\x88\x80\x80\x80",
    "a\x80b",
)
PREFIXES = ("/", "/users/", "/any/", "/files/", "/m/", "/numbers/", "/echo")
add(
    "undecodable-path", 400,
    [(f"{p}{b!a}", at(p + b)) for p in PREFIXES for b in BAD_BYTES],
)  # fmt: skip
add("nul-in-path", 400, [(p, at(f"{p}a\0b")) for p in PREFIXES])
add("undecodable-script", 400, [("", at("/", SCRIPT_NAME="/\xff"))])
add("beyond-latin-1", 400, [("path", at("/\u20ac")), ("query", at("/echo", query="a=\u20ac"))])
add(
    "odd-path", {200, 308, 404},
    [
        (repr(path)[:40], at(path))
        for path in (
            "", "//", "///", "/./", "/../", "/..", "/users/..", "/users/%2e", "/users/a\r\nb",
            "/users/" + "a" * 60_000, "/" + "a/" * 20_000, "/any/" + "/" * 20_000, "/m", "/m/../x",
            "/mm", "/echo/", "//evil.example/", "//evil.example", "/;a=b", "/users/\u00c3\u00a9",
            "/users/\xe2\x80\xae", "/numbers/" + "9" * 4_000, "/numbers/-1", "/numbers/1_0",
            "/numbers/ 1",
            "/numbers/\u00d9\u00a1", "/\\evil.example", "/users/{name}", "/{{7*7}}",
        )
    ],
)  # fmt: skip
add(
    "bad-query", 400,
    [(repr(q), at("/echo", query=q)) for q in
     ("a=%ff", "%ff=a", "a=\xff", "a=%00", "%00", "a\0b", "a=%c0%af", "a=%ed%a0%80", "a=%C3",
      "x=1&y=%80")],
)  # fmt: skip
add(
    "bad-query-that-is-never-read",
    400,
    [(p, at(p, query="a=%ff")) for p in ("/", "/users/a", "/files/site.css", "/m/x", "/no")],
)
add(
    "odd-query", 200,
    [(q[:20], at("/echo", query=q)) for q in
     ("&&&&", "=", "=&=&", "a", "a=1&a=2", "%", "%zz", "a=%", "a=%2", "+", "a;b", "#",
      "a" * 100_000,
      "a=" + "%41" * 30_000, "a[b][c]=d", "__proto__=1", "a=%0d%0a", "a=%E2%80%AE", "?" * 1000)],
)  # fmt: skip
add(
    "query-with-too-many-fields",
    414,
    [(str(n), at("/echo", query="a=1&" * n)) for n in (201, 5_000, 100_000)],
)

# ---- Methods ----

add(
    "method", 405,
    [(f"{m} {p}", at(p, method=m)) for m in ("PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "get",
     "post",
     "PROPFIND", "X" * 5_000, "G\xcbT", "") for p in ("/", "/echo", "/files/site.css")],
)  # fmt: skip
add(
    "unknown-method-on-unknown-path",
    404,
    [(m, at("/no", method=m)) for m in ("PUT", "BREW", "TRACE")],
)
add("post-to-a-file", 405, [("", at("/files/site.css", method="POST"))])
add("options", 204, [(p, at(p, method="OPTIONS")) for p in ("/", "/echo", "/files/site.css")])

# ---- Lengths ----

BAD_LENGTHS = (
    "-1",
    "+5",
    "1_0",
    "0x10",
    "1e3",
    "5.0",
    " 5",
    "5 ",
    "5,5",
    "abc",
    "\u0665",
    "\xb2",
    "5;",
    "--5",
)
TYPES = {"/form": FORM, "/json": "application/json", "/": FORM, "/body": "text/plain"}
add(
    "bad-length", 400,
    [(f"{p} {n!a}", at(p, method="POST", body=b"a=b=c", CONTENT_TYPE=TYPES[p], CONTENT_LENGTH=n))
     for p in TYPES for n in BAD_LENGTHS],
)  # fmt: skip
add(
    "length-over-the-limit", 413,
    [(f"{p} {n[:12]}", at(p, method="POST", body=b"a", CONTENT_TYPE=TYPES[p], CONTENT_LENGTH=n))
     for p in TYPES for n in ("1000001", "9" * 18, "9" * 20, "1" + "0" * 5_000)],
)  # fmt: skip
add(
    "no-length", 411,
    [(p, at(p, method="POST", CONTENT_TYPE=TYPES[p], CONTENT_LENGTH=None)) for p in ("/form",
     "/json", "/")],
)  # fmt: skip
add(
    "short-body", 400,
    [(p, at(p, method="POST", body=b'{"a":', CONTENT_TYPE=TYPES[p],
     CONTENT_LENGTH="50")) for p in TYPES],
)  # fmt: skip
add(
    "length-of-a-get",
    {200, 400, 413},
    [
        (n[:12], at("/body", body=b"abc", CONTENT_LENGTH=n))
        for n in (*BAD_LENGTHS, "9" * 20, "3", "1000001")
    ],
)
add(
    "chunked-over-the-limit", 413,
    [(p, at(p, method="POST", body=b"a" * 1_100_000, CONTENT_TYPE=TYPES[p], CONTENT_LENGTH=None,
            **{"wsgi.input_terminated": True})) for p in TYPES if p != "/json"],
)  # fmt: skip
add(
    "chunked", 200,
    [("form", at("/form", method="POST", body=b"a=b", CONTENT_TYPE=FORM, CONTENT_LENGTH=None,
                 **{"wsgi.input_terminated": True}))],
)  # fmt: skip

# ---- Content types ----

add(
    "content-type", 415,
    [(f"{p} {t[:24]!a}", at(p, method="POST", body=b"a=b", CONTENT_TYPE=t))
     for p in ("/form", "/json", "/")
     for t in ("text/plain", "application/xml", "x", ";", "multipart/mixed; boundary=a",
               "\xff/\xfe", "application/x-www-form-urlencodedx", "a" * 20_000, "; " * 5_000,
               FORM + "; a=b" * 300)],
)  # fmt: skip
add(
    "charset", 415,
    [(c, at("/form", method="POST", body=b"a=b", CONTENT_TYPE=f"{FORM}; charset={c}"))
     for c in ("utf-16", "utf-7", "base64", "zip", "idna", "no-such")],
)  # fmt: skip
add(
    "content-type-as-the-rfc-allows", 200,
    [(t, at("/form", method="POST", body=b"a=b", CONTENT_TYPE=t)) for t in
     (FORM.upper(), f"{FORM} ; charset=UTF-8", f'{FORM};charset="utf-8"', f" {FORM} ",
      f"{FORM};;;")],
)  # fmt: skip

# ---- Urlencoded bodies ----

add(
    "bad-form", 400,
    [(repr(b), at("/form", method="POST", body=b, CONTENT_TYPE=FORM)) for b in
     (b"a=%ff", b"\xff=1", b"a=%00", b"a=\0", b"a=\xc0\xaf", b"a=\xed\xa0\x80", b"%80")],
)  # fmt: skip
add(
    "form-with-too-many-fields",
    413,
    [
        (str(n), at("/form", method="POST", body=b"a=&" * n, CONTENT_TYPE=FORM))
        for n in (201, 100_000)
    ],
)
add(
    "odd-form", 200,
    [(repr(b)[:24], at("/form", method="POST", body=b, CONTENT_TYPE=FORM)) for b in
     (b"&&&", b"=", b"a" * 499_000, b"a=1&a=2&a=3", b"%", b"a=%zz", b"_ticket=x", b"\n" * 499_000,
      b"+" * 499_000)],
)  # fmt: skip
add(
    "large-form", 413,
    [(repr(b)[:24], at("/form", method="POST", body=b, CONTENT_TYPE=FORM)) for b in
     (b"a" * 500_001, b"\n" * 500_001, b"%41" * 300_000, b"&" * 999_000)],
)  # fmt: skip

# ---- Multipart bodies ----


def upload(body, boundary="limit", path="/form", **more):
    type_ = f"multipart/form-data; boundary={boundary}"
    return at(path, method="POST", body=body, CONTENT_TYPE=type_, **more)


def part(head, content=b"x"):
    return b"--limit\r\n" + head + b"\r\n\r\n" + content + b"\r\n--limit--\r\n"


NAMED = b'Content-Disposition: form-data; name="a"'
FILE = NAMED + b'; filename="f"'
add(
    "bad-multipart", 400,
    [
        ("no-boundary", at("/form", method="POST", body=part(NAMED),
         CONTENT_TYPE="multipart/form-data")),
        ("empty-boundary", upload(part(NAMED), '""')),
        ("other-boundary", upload(part(NAMED), "other")),
        ("empty", upload(b"", CONTENT_LENGTH="0")),
        ("cut-head", upload(b"--limit\r\nContent-Dis")),
        ("cut-body", upload(part(NAMED)[:-12])),
        ("cut-file", upload(part(FILE, b"y" * 50_000)[:-12])),
        ("no-end", upload(b"--limit\r\n" + NAMED + b"\r\n\r\nx\r\n--limit\r\n")),
        ("no-disposition", upload(part(b"X-A: b"))),
        ("other-disposition", upload(part(b'Content-Disposition: attachment; name="a"'))),
        ("undecodable-head", upload(part(b'Content-Disposition: form-data; name="\xff"'))),
        ("undecodable-text", upload(part(NAMED, b"\xff\xfe"))),
        ("nul-in-text", upload(part(NAMED, b"a\0b"))),
        ("nul-in-name", upload(part(b'Content-Disposition: form-data; name="a\0b"'))),
        ("nul-in-file-name-of-field",
         upload(part(b'Content-Disposition: form-data; name="\0"; filename="f"'))),
        ("bad-part-length", upload(part(NAMED + b"\r\nContent-Length: -5"))),
        ("wrong-part-length", upload(part(NAMED + b"\r\nContent-Length: 50"))),
        ("short-part-length", upload(part(NAMED + b"\r\nContent-Length: 0"))),
        ("bare-line-feeds", upload(part(NAMED).replace(b"\r\n", b"\n"))),
        ("line-feeds-only", upload(b"\n" * 150_000)),
        ("returns-only", upload(b"\r" * 150_000)),
        ("line-ends-only", upload(b"\r\n" * 75_000)),
        ("boundaries-cut-short", upload(b"\r\n--limi" * 15_000)),
        ("bytes-after-boundary", upload(b"--limitxx\r\n" + NAMED + b"\r\n\r\nx\r\n--limit--")),
        ("continuation-first", upload(part(b" folded: x\r\n" + NAMED))),
        ("no-colon", upload(part(NAMED + b"\r\nnothing"))),
        ("cut-by-length", upload(part(NAMED), CONTENT_LENGTH="30")),
    ],
)  # fmt: skip
add(
    "multipart-over-a-limit", 413,
    [
        ("fields", upload(multipart(*[("a", b"")] * 201))),
        ("files", upload(multipart(*[("a", b"x", "f", "text/plain")] * 21))),
        ("parts", upload(multipart(*[("a", b"", "", "text/plain")] * 10_000))),
        ("head", upload(part(NAMED + b"\r\nX: " + b"a" * 9_000))),
        ("heads", upload(part(NAMED + b"\r\nX: a" * 100))),
        ("body", upload(b"x" * 1_000_001)),
        ("chunked", upload(part(FILE, b"x" * 1_100_000), CONTENT_LENGTH=None,
         **{"wsgi.input_terminated": True})),
    ],
)  # fmt: skip
add(
    "odd-multipart", 200,
    [
        ("base64", upload(part(NAMED + b"\r\nContent-Transfer-Encoding: base64", b"eA=="))),
        ("part-charset", upload(part(NAMED + b"\r\nContent-Type: text/plain; charset=utf-7",
         b"+AGE-"))),
        ("part-type", upload(part(NAMED + b"\r\nContent-Type: multipart/mixed; boundary=b",
         b"--b--"))),
        ("type-of-junk", upload(part(FILE + b"\r\nContent-Type: \x01\x7f;;=\"", b"x"))),
        ("no-name", upload(part(b"Content-Disposition: form-data"))),
        ("quotes", upload(part(b'Content-Disposition: form-data; name="a\\"b"; filename="c\\"d"'))),
        ("many-options", upload(part(b"Content-Disposition: form-data" + b"; a=b" * 700))),
        ("blanks", upload(part(b"Content-Disposition: form-data; name=a" + b" " * 3_900))),
        ("open-quote", upload(part(b'Content-Disposition: form-data; name="' + b'\\' * 3_900))),
        ("path-as-name", upload(part(NAMED + b'; filename="../../etc/passwd"'))),
        ("windows-path", upload(part(NAMED + b'; filename="C:\\\\x\\\\..\\\\y.txt"'))),
        ("name-of-dots", upload(part(NAMED + b'; filename=".."'))),
        ("name-with-line-end", upload(part(NAMED + b'; filename="a%0D%0AX: b"'))),
        ("long-name", upload(part(NAMED + b'; filename="' + b"n" * 3_900 + b'"'))),
        ("file-on-disk", upload(part(FILE, b"\n" * 190_000))),
        ("files-on-disk", upload(multipart(*[(f"f{n}", b"x" * 12_000, "f",
         "a/b") for n in range(15)]))),
        ("preamble", upload(b"junk\r\n" * 9_000 + part(NAMED))),
    ],
)  # fmt: skip

# ---- JSON ----

add(
    "bad-json", 400,
    [(repr(b)[:32], at("/json", method="POST", body=b, CONTENT_TYPE="application/json")) for b in
     (b"{", b"]", b"nul", b"NaN", b"-Infinity", b"[Infinity]", b"'a'", b"\xff", b"\xef\xbb\xbf{}",
      b"{'a':1}",
      b"[1,]", b"9" * 5_000, b"-" + b"9" * 5_000, b"[" * 100_000, b'{"a":' * 30_000,
      b'"\\ud800"', b'{"\\udfff": 1}', b'["\\ud83d"]', b"1e999", b"[-1e999]", b'{"a": 1e400}',
      b'"\0"', b'"\n"',
      b"{} {}", b"/**/1", b"0x10", b"\0", b"01", b" ")],
)  # fmt: skip
add(
    "nested-json", {200, 400},
    [(str(n), at("/json", method="POST", body=b"[" * n + b"]" * n, CONTENT_TYPE="application/json"))
     for n in (50, 200, 400, 500, 600, 700, 800, 850, 900, 925, 950, 960, 970, 980, 990, 1_000,
         1_500, 5_000, 20_000, 100_000)],  # the limit depends on the Python version
)  # fmt: skip
add(
    "odd-json", 200,
    [(repr(b)[:32], at("/json", method="POST", body=b,
     CONTENT_TYPE="Application/Problem+JSON ; x=y")) for b in
     (b"null", b"1e308", b'{"a":1,"a":2}', b'"\\u0000"', b'"\\ud83d\\ude00"', b'{"":{}}',
      b"9" * 4_000, b'"%s"' % (b"\\n" * 9_000))],
)  # fmt: skip

# ---- Headers and cookies ----

COOKIES = (
    "\xff", "a=\xff", "a=\0", "noventa_session=\xff\xfe", "noventa_session", "=", "==", ";;;;",
    "a=b;" * 3_000,
    'a="' + '\\"' * 4_000, "a={[(<>)]}; noventa_session=x.y", "noventa_session=" + "A" * 15_000,
    "$Version=1",
    "noventa_session=.", "noventa_session=..", "noventa_session=eyJ9.AAAA", "noventa_session=%00",
    '"' * 16_000,
    "noventa_session=a\tb", "a=b, c=d", "noventa_session=\u0142", "=" * 16_000, " " * 16_000,
    "a=1; a=2; A=3",
)  # fmt: skip
add(
    "cookie",
    200,
    [(f"{p} {c[:24]!a}", at(p, HTTP_COOKIE=c)) for c in COOKIES for p in ("/", "/echo")],
)
add("cookies-too-large", 431, [(p, at(p, HTTP_COOKIE="a=b;" * 4_097)) for p in ("/", "/echo")])
JUNK = (
    "\xff\xfe",
    "'" * 3_000,
    '"' * 3_001,
    ";,;=",
    "Mon, 99 Jan 99999 99:99:99 GMT",
    "9" * 5_000,
    "-1",
    "*",
    "a b",
    "[::1",
    "\x7f",
)
HEADERS = (
    "ACCEPT", "ACCEPT_LANGUAGE", "DATE", "IF_MODIFIED_SINCE", "IF_UNMODIFIED_SINCE",
    "IF_NONE_MATCH", "IF_RANGE",
    "RANGE", "MAX_FORWARDS", "HOST", "REFERER", "AUTHORIZATION", "X_FORWARDED_FOR", "USER_AGENT",
)  # fmt: skip
add(
    "header", {200, 206, 304, 416},
    [(f"{p} {h} {v[:12]!a}",
     at(p, **{f"HTTP_{h}": v})) for h in HEADERS for v in JUNK for p in ("/echo",
     "/files/site.css")],
)  # fmt: skip
add(
    "host", 403,
    [(f"{h!a} {o!a}", at("/same", method="POST", body=b"a=b", CONTENT_TYPE=FORM, HTTP_HOST=h,
     HTTP_ORIGIN=o, HTTP_X_FORWARDED_HOST="evil.example"))
     for h, o in (("", "http://"), ("", "null"), ("null", "null"),
         ("a.example", "http://a.example@evil.example"),
                  ("a.example", "http://evil.example"),
                  ("a.example", "http://a.example.evil.example"),
                  ("a.example", "http://a.example/"), ("a.example", "a.example"),
                  ("a.example:80", "http://a.example:81"),
                  ("\xff", "http://\xfe"), ("a.example", ""),
                  ("a.example", "http://a.example http://a.example"))],
)  # fmt: skip
add(
    "fetch-site", 403,
    [(s, at("/same", method="POST", body=b"a=b", CONTENT_TYPE=FORM, HTTP_SEC_FETCH_SITE=s,
     HTTP_ORIGIN="http://127.0.0.1"))
     for s in ("cross-site", "same-site", "", "SAME-ORIGIN", "same-origin, cross-site", "\xff",
         "none ")],
)  # fmt: skip

# ---- Values sent in headers ----

ENDS = ("%0d%0aX-Evil:%201", "%0aX-Evil:1", "%0d", "%01", "%7f", "a%C2%85b")
add(
    "line-end-in-location",
    400,
    [(f"{p} {e}", at(p, query=f"to=/{e}")) for e in ENDS for p in ("/go", "/raw-location")],
)
TARGETS = (
    "//evil.example", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)",
    "data:text/html,x", "http:evil.example",
    "///evil.example", "http://[::1", "HTTPS:/\\evil", "mailto:a@b", "/%09//x%0a", "vbscript:x",
)  # fmt: skip
add(
    "target",
    400,
    [
        (f"{p} {t}", at(p, query=f"to={t}{o}"))
        for t in TARGETS
        for p, o in (("/go", ""), ("/go", "&out"), ("/raw-location", ""))
    ],
)
add(
    "non-local-target",
    400,
    [
        (t, at("/go", query=f"to={t}"))
        for t in ("http://evil.example", "https://x", "evil.example", "%20//evil.example", "", "?a")
    ],
)
add(
    "line-end-in-header",
    400,
    [(f"{p} {e}", at(p, query=f"v=a{e}")) for e in ENDS[:5] for p in ("/header", "/download")],
)
add(
    "beyond-latin-1-in-header",
    400,
    [(p, at(p, query="v=%E2%82%AC")) for p in ("/header", "/download")],
)
add(
    "value-in-cookie",
    {200, 400},
    [
        (e, at("/cookie", query=f"v=a{e}"))
        for e in (*ENDS, ";%20Domain=evil", '"', "%E2%82%AC", "a" * 5_000)
    ],
)

# ---- Files ----

add(
    "file", 404,
    [(repr(t)[:40], at("/files" + t)) for t in
     ("", "/", "/..", "/../secret.txt", "/../../../../etc/passwd", "/./site.css", "//site.css",
      "/site.css/", "/.env",
      "/..\\secret.txt", "/\\..\\secret.txt", "/C:/x", "/site.css:stream", "/site.css::$DATA",
      "//etc/passwd", "/con",
      "/NUL.txt", "/com1", "/a/../site.css", "/.well-known/x", "/" + "a" * 5_000,
      "/" + "a/" * 3_000, "/%2e%2e/secret.txt",
      "/..;/secret.txt", "/...", "/~root", "/site.css ", "/site.css.", "/.../.../")],
)  # fmt: skip
RANGES = (
    "bytes=0-1,2-3",
    "bytes=",
    "bytes=-",
    "bytes=a-b",
    "bytes=5-1",
    "lines=0-1",
    "bytes=0-" + "9" * 99,
    "bytes=" + "0-1," * 5_000,
    "bytes=-0",
    "bytes=99999-",
)
add("range", {200, 206, 416}, [(r[:20], at("/files/site.css", HTTP_RANGE=r)) for r in RANGES])
add(
    "query-of-a-file",
    200,
    [(v, at("/files/site.css", query=f"v={v}")) for v in ("../x", "", "0" * 64)],
)

# ---- Tickets without a session; see test_forms.py for tickets with one ----

add(
    "ticket", {400, 403},
    [(f"{t[:24]!a}", at("/", method="POST", body=b"_ticket=" + t.encode(),
     CONTENT_TYPE=FORM)) for t in
     ("", "a", ".", "..", "a.b", "a.b.c", "%2e", "A" * 3_000, "eyJ9." + "A" * 43, "=.=",
      "%E2%82%AC.%E2%82%AC", "W10." + "A" * 43)],
)  # fmt: skip
add(
    "no-ticket",
    400,
    [
        ("no-body", at("/", method="POST")),
        ("other-field", at("/", method="POST", body=b"a=b", CONTENT_TYPE=FORM)),
    ],
)


@pytest.mark.parametrize("group", sorted({case.group for case in CASES}))
def test_a_hostile_request_gets_the_expected_status(app, group):
    cases = [case for case in CASES if case.group == group]
    wrong = []
    for case in cases:
        response = ask(app, **case.request)
        leaked = b"outside" in response.body or SECRET.encode() in response.body
        if response.status not in case.expected or leaked or response.header("X-Evil") is not None:
            wrong.append((case.name, case.expected, response))
    assert wrong == []


def test_there_are_at_least_three_hundred_distinct_cases():
    assert len({case.name for case in CASES}) == len(CASES) >= 300


def test_a_rejection_logs_one_ascii_line_with_its_reason(app, caplog):
    for case in CASES:
        caplog.clear()
        response = ask(app, **case.request)
        lines = [record.getMessage() for record in caplog.records if record.name == "noventa"]
        assert all(line.isascii() and line.isprintable() for line in lines)
        assert len([line for line in lines if "refused" in line]) == (1 if response.refused else 0)
        if response.refused:
            assert f": {response.refused} ({response.status})" in lines[-1]


@pytest.mark.slow
def test_hostile_requests_leave_no_rows_files_or_memory_behind(app, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ask(app, **CASES[0].request)
    gc.collect()
    before, rss = open_descriptors(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    for case in CASES:
        ask(app, **case.request)
    gc.collect()
    remaining, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert open_descriptors() == before
    assert list(tmp_path.iterdir()) == []
    assert remaining < 2_000_000
    assert peak < 20_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rss < 200_000  # kB
    with app.database.session() as db:
        assert db.execute(sa.text("SELECT count(*) FROM notes")).scalar() == 0


def open_descriptors(pid="self"):
    """Return the open files of a process, except sockets and the database (its pool may grow)."""
    links = {str(link): os.path.realpath(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
    return {
        (link, target)
        for link, target in links.items()
        if not re.search(r"test\.db|socket:|/proc/\d+/fd", target)
    }


# ---- Over real sockets ----

WSGI = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {root!r}]
from test_hostile import make_hostile_app
application = make_hostile_app(Path(__file__).parent)
if __name__ == "__main__":
    import waitress
    waitress.serve(application, listen="127.0.0.1:" + sys.argv[1], threads=2, ident=None)
"""
SERVERS = {
    "waitress": [sys.executable, "wsgi.py", "{port}"],
    "gunicorn": [
        sys.executable,
        "-m",
        "gunicorn",
        "-b",
        "127.0.0.1:{port}",
        "--threads",
        "2",
        "wsgi",
    ],
}


def raw(line, *headers, body=b""):
    head = [line, b"Host: x", b"Connection: close", *headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def posted(body, *headers, path=b"/form", type_=b"application/x-www-form-urlencoded"):
    length = b"Content-Length: %d" % len(body)
    return raw(
        b"POST " + path + b" HTTP/1.1", length, b"Content-Type: " + type_, *headers, body=body
    )


CHUNKED = (b"Transfer-Encoding: chunked", b"Content-Type: " + FORM.encode())
RAW = {
    "valid": (raw(b"GET /echo HTTP/1.1"), {200}),
    "bad-path": (raw(b"GET /users/%ff HTTP/1.1"), {400}),
    "raw-bytes-in-path": (raw(b"GET /users/\xff HTTP/1.1"), {400}),
    "nul-in-path": (raw(b"GET /users/%00 HTTP/1.1"), {400}),
    "bad-query": (raw(b"GET /echo?a=%ff HTTP/1.1"), {400}),
    "line-end-in-target": (raw(b"GET /go?to=/%0d%0aX-Evil:1 HTTP/1.1"), {400}),
    "line-end-in-header": (raw(b"GET /header?v=%0d%0aX-Evil:1 HTTP/1.1"), {400}),
    "traversal": (raw(b"GET /files/%2e%2e/secret.txt HTTP/1.1"), {404}),
    "traversal-raw": (raw(b"GET /files/../secret.txt HTTP/1.1"), {400, 404}),
    "absolute-target": (raw(b"GET http://evil.example/go HTTP/1.1"), {200, 303, 400}),
    "slashes": (raw(b"GET //evil.example/%2f.. HTTP/1.1"), {400, 404}),
    "method": (raw(b"BREW / HTTP/1.1"), {405}),
    "trace": (raw(b"TRACE / HTTP/1.1"), {405}),
    "bad-cookie": (raw(b"GET / HTTP/1.1", b"Cookie: noventa_session=\xff; a={"), {200}),
    "large-cookie": (raw(b"GET / HTTP/1.1", *[b"Cookie: " + b"a=b;" * 1_500] * 3), {400, 431}),
    "bad-date": (raw(b"GET /files/site.css HTTP/1.1",
    b"If-Modified-Since: Mon, 99 Jan 99999 99:99:99 GMT"), {200}),
    "bad-range": (raw(b"GET /files/site.css HTTP/1.1", b"Range: bytes=0-1,2-3"), {200}),
    "form": (posted(b"a=1&b=2"), {200}),
    "bad-form": (posted(b"a=%ff"), {400}),
    "many-fields": (posted(b"a=&" * 300), {413}),
    "large-body": (posted(b"a" * 1_000_001), {413}),
    "json": (posted(b"[" * 50_000, path=b"/json", type_=b"application/json"), {400}),
    "type": (posted(b"a", type_=b"text/plain"), {415}),
    "negative-length": (raw(b"POST /form HTTP/1.1", b"Content-Length: -1"), {400}),
    "signed-length": (raw(b"POST /form HTTP/1.1", b"Content-Length: +5", body=b"a=b=c"), {400}),
    "two-lengths": (raw(b"POST /form HTTP/1.1", b"Content-Length: 1", b"Content-Length: 2",
    body=b"ab"), {400}),
    "chunked": (raw(b"POST /form HTTP/1.1", *CHUNKED, body=b"3\r\na=b\r\n0\r\n\r\n"), {200}),
    "bad-chunk": (raw(b"POST /form HTTP/1.1", *CHUNKED, body=b"zz\r\na=b\r\n0\r\n\r\n"), {400}),
    "large-chunk": (raw(b"POST /form HTTP/1.1", *CHUNKED,
    body=b"f4241\r\n" + b"a" * 1_000_001 + b"\r\n0\r\n\r\n"), {413}),
    "cut-body": (raw(b"POST /form HTTP/1.1", b"Content-Length: 50",
    b"Content-Type: " + FORM.encode(), body=b"a=b"), {400, None}),
    "cut-upload": (posted(part(FILE, b"y" * 50_000)[:-12],
    type_=b"multipart/form-data; boundary=limit"), {400}),
    "many-parts": (posted(multipart(*[("a", b"")] * 300),
    type_=b"multipart/form-data; boundary=limit"), {413}),
    "upload": (posted(part(FILE, b"y" * 50_000), type_=b"multipart/form-data; boundary=limit"),
    {200}),
    "no-type-no-length": (raw(b"POST / HTTP/1.1"), {400}),
    "other-origin": (posted(b"a=b", b"Origin: http://evil.example", path=b"/same"), {403}),
    "forwarded-host": (posted(b"a=b", b"Origin: http://evil.example",
    b"X-Forwarded-Host: evil.example", path=b"/same"), {403}),
    "same-origin": (posted(b"a=b", b"Origin: http://x", path=b"/same"), {200}),
    "not-http": (b"\x16\x03\x01\x00\xa5\x01\x00\x00\r\n\r\n", {400, None}),
}  # fmt: skip


@contextmanager
def running(name, root):
    """Run the hostile application behind a real server; yield its port, process and log file."""
    root.joinpath("wsgi.py").write_text(
        WSGI.format(tests=str(Path(__file__).parent), root=str(Path(__file__).parents[1]))
    )
    port = free_port()
    command = [word.format(port=port) for word in SERVERS[name]]
    log = root / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=root, env=environment(), stderr=output, stdout=subprocess.PIPE
        )
    try:
        wait_for(lambda: listens(port) or process.poll() is not None, 30)
        assert process.poll() is None
        yield port, process, log
    finally:
        stop(process)


def exchange(port, data):
    """Send raw bytes. Return the status, or None if there was no response, and the response."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # rejected before all of it was read
        received = b""
        try:
            while block := connection.recv(65_536):
                received += block
        except ConnectionResetError:
            pass  # a server need not read the rest after responding
    return (int(received.split()[1]) if received.startswith(b"HTTP/") else None), received


def worker_pid(process):
    """Return the PID of the server's newest child, or its own if it has none."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return children[-1] if children else str(process.pid)


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVERS)
def test_hostile_bytes_over_a_socket_get_the_expected_status(name, tmp_path):
    with running(name, tmp_path) as (port, process, log):
        exchange(port, RAW["valid"][0])
        before = open_descriptors(worker_pid(process))
        wrong = {}
        for case, (data, expected) in RAW.items():
            status, response = exchange(port, data)
            if status not in expected or b"X-Evil" in response or b"outside" in response:
                wrong[case] = response[:300]
        assert wrong == {}
        assert exchange(port, RAW["valid"][0])[0] == 200
        assert open_descriptors(worker_pid(process)) == before
        assert "Traceback" not in log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVERS)
def test_an_exception_message_cannot_forge_a_line_of_a_servers_log(name, tmp_path):
    target = b"GET /raise?v=%0d%0aFORGED%20line%1b[2J%C2%85 HTTP/1.1"
    with running(name, tmp_path) as (port, _, log):
        assert exchange(port, raw(target))[0] == 500
        text = log.read_bytes().decode()
    assert "about \\r\n  FORGED line\\x1b[2J\\x85" in text
    assert not [line for line in text.split("\n") if line.startswith("FORGED")]
    assert text.replace("\n", "").isprintable()
