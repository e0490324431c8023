"""Request and Session on their own, without an application or a database."""

import contextlib
import io
import json
import tempfile
import time
from decimal import Decimal
from urllib.parse import urlencode

import pytest
import webob
from hypothesis import given
from hypothesis import strategies as st
from support import SECRET
from visitors import FORM, multipart

from noventa import Config, Rejection, Request, Session, SessionCookies, SessionError, Signer

LIMITS = {
    "body": 100_000, "form": 100_000, "json": 1_000, "memory": 1_000, "fields": 50, "files": 5
}  # fmt: skip
STRINGS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
PAIRS = st.lists(st.tuples(STRINGS, STRINGS), max_size=20)


class Drip(io.BytesIO):
    """A stream that returns one byte per read, as sockets may."""

    def read(self, size=-1):
        return super().read(min(size, 1))


def make_request(body=b"", limits=LIMITS, stream=io.BytesIO, **environ):
    defaults = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": FORM}
    request = Request({**defaults, "wsgi.input": stream(body), **environ}, limits=limits)
    request.check()
    return request


def make_upload(*parts, **more):
    return make_request(
        multipart(*parts), CONTENT_TYPE="multipart/form-data; boundary=limit", **more
    )


JSON = "application/json"


def rejection_of(call):
    with pytest.raises(Rejection) as caught:
        call()
    return caught.value.status, caught.value.reason


# ---- Request ----


@given(pairs=PAIRS)
def test_fields_survive_the_query_string(pairs):
    request = make_request(REQUEST_METHOD="GET", QUERY_STRING=urlencode(pairs))
    assert sorted(request.args.pairs()) == sorted(pairs)


@given(pairs=PAIRS)
def test_fields_survive_a_urlencoded_form(pairs):
    assert sorted(make_request(urlencode(pairs).encode()).form.pairs()) == sorted(pairs)


@given(pairs=PAIRS, files=st.lists(st.binary(max_size=3_000), max_size=5))
def test_fields_and_files_survive_a_multipart_form(pairs, files):
    parts = [(f"f{n}", value.encode()) for n, (_, value) in enumerate(pairs)]
    uploads = [(f"u{n}", content, "name", "a/b") for n, content in enumerate(files)]
    body = multipart(*parts, *uploads, boundary="limit-of-this-test")
    type_ = "multipart/form-data; boundary=limit-of-this-test"
    request = make_request(body, CONTENT_TYPE=type_)
    assert list(request.form.values()) == [value for _, value in pairs]
    assert [upload.file.read() for upload in request.files.values()] == files
    request.close_files()


def test_the_first_of_equal_names_wins_and_getlist_returns_all():
    form = make_request(b"a=1&b=x&a=2").form
    assert form["a"] == "1"
    assert form.getlist("a") == ["1", "2"]
    assert form.get("b", 7, type=int) == 7
    assert form.get("a", 7, type=int) == 1
    assert form.get("no") is None


@pytest.mark.parametrize("text", ["nan", "inf", "-Infinity", "1e999"])
@pytest.mark.parametrize("kind", [float, Decimal, json.loads])
def test_a_non_finite_number_does_not_convert(text, kind):
    assert make_request(urlencode({"n": text}).encode()).form.get("n", 7, type=kind) == 7


def test_a_field_with_too_deeply_nested_json_does_not_convert():
    args = make_request(QUERY_STRING="q=" + "[" * 50_000).args
    assert args.get("q", "default", type=json.loads) == "default"


@pytest.mark.parametrize("framing", [{}, {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}])
def test_a_json_body_over_its_limit_is_rejected(framing):
    fits, over = (b"[" + b" " * size + b"]" for size in (998, 999))
    assert make_request(fits, CONTENT_TYPE=JSON, **framing).json == []
    request = make_request(over, CONTENT_TYPE=JSON, **framing)
    assert rejection_of(lambda: request.json) == (413, "json-too-large")


def test_a_long_accept_header_is_ignored():
    short, long = ("text/html;q=0." + "1" * size for size in (1, 1_000))
    for name in ("ACCEPT", "ACCEPT_LANGUAGE", "ACCEPT_ENCODING"):
        assert f"HTTP_{name}" in make_request(**{f"HTTP_{name}": short}).environ
        assert f"HTTP_{name}" not in Request({f"HTTP_{name}": long}, limits=LIMITS).environ


def test_short_reads_are_continued_to_the_end():
    assert make_request(b"a=1&b=2", stream=Drip).form["b"] == "2"
    assert make_upload(("a", b"1"), ("b", b"2"), stream=Drip).form["b"] == "2"


def test_a_body_ends_at_its_content_length():
    assert make_request(b"a=1&b=2", CONTENT_LENGTH="3").form.getlist("b") == []


def test_a_chunked_body_is_read_to_its_end_but_not_beyond_the_limit():
    chunked = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}
    assert make_request(b"a=1", **chunked).form["a"] == "1"
    exact = make_request(b"a=" + b"x" * 99_998, **chunked)
    assert len(exact.form["a"]) == 99_998
    over = make_request(b"a=" + b"x" * 99_999, **chunked)
    assert rejection_of(lambda: over.form) == (413, "body-too-large")
    assert over.environ["wsgi.input"].raw.stream.tell() <= 100_001


def test_an_unterminated_body_without_a_length_is_not_read():
    request = make_request(b"a=1", CONTENT_LENGTH="")
    assert rejection_of(lambda: request.form) == (411, "no-length")
    assert request.environ["wsgi.input"].tell() == 0
    request.limit_body()
    assert request.environ["wsgi.input"].read() == b""  # reading on would block forever


def test_a_body_can_be_read_before_its_form():
    request = make_request(b"a=" + b"1" * 50_000)
    assert len(request.body) == 50_002
    assert len(request.form["a"]) == 50_000
    request.close_files()


@pytest.mark.parametrize("name", ["form", "files", "json", "POST", "body"])
def test_a_body_over_the_limit_is_rejected_before_a_byte_is_read(name):
    request = make_request(
        b"x", CONTENT_LENGTH="100001", CONTENT_TYPE={"json": "application/json"}.get(name, FORM)
    )

    def read():
        request.limit_body()
        return getattr(request, name)

    assert rejection_of(read) == (413, "body-too-large")
    assert request.environ["wsgi.input"].tell() == 0


@pytest.mark.parametrize("more", [{}, {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}])
@pytest.mark.parametrize("size", [1_000, 1_001])
def test_urlencoded_forms_have_a_separate_limit(size, more):
    request = make_request(b"a=" + b"x" * (size - 2), {**LIMITS, "form": 1_000}, **more)
    if size == 1_000:
        assert len(request.form["a"]) == 998
    else:
        assert rejection_of(lambda: request.form) == (413, "form-too-large")


def test_the_limit_for_urlencoded_forms_does_not_apply_to_multipart_forms():
    request = make_upload(("a", b"x" * 2_000), limits={**LIMITS, "form": 1_000})
    assert len(request.form["a"]) == 2_000
    request.close_files()


def test_a_failing_stream_raises_a_rejection():
    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise ArithmeticError("a server's own error")

    assert rejection_of(lambda: make_request(b"a=1", stream=Broken).form) == (
        400,
        "body-unreadable",
    )


@pytest.mark.parametrize(("filename", "expected"), [
    ("a.txt", "a.txt"), ("/etc/passwd", "passwd"), ("..\\..\\a.txt", "a.txt"),
    ("C:\\x\\a.txt", "a.txt"),
    ("..", "file"), ("a/", "file"), ("a%0D%0Ab", "ab"), ("a\x7fb", "ab"), ("é", "é"), (" ", "file"),
    ("bill\u202efdp.exe", "billfdp.exe"), ("\u200fa\u2069", "a"),
])  # fmt: skip
def test_an_uploads_filename_is_a_base_name_without_control_characters(filename, expected):
    request = make_upload(("a", b"x", filename, "text/\x01plain"))
    assert request.files["a"].filename == expected
    assert request.files["a"].content_type == "text/plain"
    request.close_files()


def test_a_file_input_without_a_chosen_file_is_not_an_upload():
    request = make_upload(("a", b"", "", "application/octet-stream"))
    assert len(request.files) == 0
    request.close_files()


def test_an_upload_over_the_memory_limit_is_spooled_to_disk_and_closed():
    request = make_upload(("s", b"x" * 1_000, "f", "a/b"), ("l", b"x" * 1_001, "f", "a/b"))
    small, large = request.files["s"].file, request.files["l"].file
    assert small.name is None
    assert large.name is not None  # it is spooled to disk
    request.close_files()
    assert small.closed
    assert large.closed


def test_a_broken_upload_is_closed_too(monkeypatch):
    opened = []

    class RecordedFile(tempfile.SpooledTemporaryFile):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            opened.append(self)

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", RecordedFile)
    body = multipart(("a", b"x" * 5_000, "f", "a/b"))[:-9]
    request = make_request(body, CONTENT_TYPE="multipart/form-data; boundary=limit")
    assert rejection_of(lambda: request.files) == (400, "malformed-form")
    request.close_files()
    assert [file.closed for file in opened] == [True]


@pytest.mark.parametrize(("parts", "expected"), [
    ([("a", b"")] * 50, None), ([("a", b"")] * 51, (413, "too-many-fields")),
    ([("a", b"x", "f", "a/b")] * 5, None), ([("a", b"x", "f", "a/b")] * 6,
     (413, "too-many-fields")),
    ([("a", b"", "", "a/b")] * 60, (413, "too-many-fields")),
])  # fmt: skip
def test_fields_and_files_count_towards_their_limits(parts, expected):
    request = make_upload(*parts)
    assert expected is None or rejection_of(lambda: request.form) == expected
    assert expected or len(request.form) + len(request.files) > 0
    request.close_files()


def test_json_is_parsed_once_and_cached():
    request = make_request(b'{"a": [1]}', CONTENT_TYPE="application/json")
    assert request.json is request.json is request.json_body
    assert request.json == {"a": [1]}


def test_the_first_of_equal_cookies_wins_and_only_malformed_pairs_are_dropped():
    header = 'a=1; a=2; b="x y"; bad=\xff; c; =d; e={[f]}; g=\x01; h=\xc3\xa9'
    cookies = make_request(HTTP_COOKIE=header).cookies
    assert cookies == {"a": "1", "b": "x y", "e": "{[f]}", "h": "é"}


@pytest.mark.parametrize("before", ["\xa0", "\x85", "\x1f", "\x0b", "\x0c", "\r", "\n"])
def test_only_spaces_and_tabs_are_stripped_from_cookie_names(before):
    header = f"{before}__Host-id=planted; \t __Host-id=own \t"
    assert make_request(HTTP_COOKIE=header).cookies["__Host-id"] == "own"


@pytest.mark.parametrize("blank", ["\xa0", "\x85", "\x0b"])
def test_only_spaces_and_tabs_are_stripped_from_content_types(blank):
    json_type, form_type = f"application/json{blank}", f"{FORM}{blank}; charset=utf-8"
    request = make_request(b"1", CONTENT_TYPE=json_type)
    assert rejection_of(lambda: request.json) == (415, "content-type")
    assert rejection_of(lambda: make_request(b"a=1", CONTENT_TYPE=form_type).form)[0] == 415


def test_cookies_are_parsed_in_linear_time_and_limited_in_size():
    assert len(make_request(HTTP_COOKIE='a="' + '\\"' * 8_000).cookies) == 1
    assert rejection_of(lambda: make_request(HTTP_COOKIE="a" * 16_385).cookies) == (
        431,
        "cookies-too-large",
    )


def test_the_client_address_ignores_forwarded_headers():
    request = make_request(REMOTE_ADDR="192.0.2.1", HTTP_X_FORWARDED_FOR="127.0.0.1")
    assert request.client_addr == "192.0.2.1"


def test_a_long_authorization_header_is_rejected_unless_it_is_a_bearer_token():
    assert make_request(HTTP_AUTHORIZATION="Basic dTpw").authorization == ("Basic", "dTpw")
    token = "x" * 5_000
    assert make_request(HTTP_AUTHORIZATION=f"Bearer {token}").authorization.params == token
    long = make_request(HTTP_AUTHORIZATION="Digest " + token)
    assert rejection_of(lambda: long.authorization) == (431, "authorization-too-large")


def test_reprs_show_no_values_and_no_raw_bytes():
    request = make_request(
        b"password=hunter2", PATH_INFO="/\xc3\xa9\r\n", QUERY_STRING="token=s3cret"
    )
    text = f"{request!r} {request.form!r} {request.args!r}"
    assert "%C3%A9%0D%0A" in text
    assert "hunter2" not in text
    assert "s3cret" not in text
    assert text.isascii()


def test_only_headers_that_webob_cannot_parse_are_dropped():
    invalid = make_request(
        HTTP_IF_MODIFIED_SINCE="Mon, 99 Jan 99999 99:99:99 GMT", HTTP_MAX_FORWARDS="x"
    )
    assert (invalid.if_modified_since, invalid.max_forwards) == (None, None)
    valid = make_request(
        HTTP_IF_MODIFIED_SINCE="Mon, 02 Jan 2023 03:04:05 GMT", HTTP_MAX_FORWARDS="3"
    )
    assert (valid.if_modified_since.year, valid.max_forwards) == (2023, 3)


@pytest.mark.parametrize("source", ["form", "args", "cookies", "files"])
def test_a_missing_field_raises_a_rejection_that_is_also_a_key_error(source):
    values = getattr(make_request(b"a=1", QUERY_STRING="a=1", HTTP_COOKIE="a=1"), source)
    assert rejection_of(lambda: values["no"]) == (400, "missing-field")
    with pytest.raises(KeyError):
        values["no"]
    assert ("no" in values, values.get("no"), values.get("no", 7)) == (False, None, 7)
    assert ("a" in values) is (source != "files")


ODD_VALUES = [
    "\xff\xfe", "'" * 60_000, '"' * 60_001, "," * 60_000, ";" * 60_000, " " * 60_000, "9" * 60_000,
    'a="' * 20_000, '"a",' * 15_000, "W/" * 30_000, "a/b;q=0." * 8_000, 'a/b;c="' + "\\" * 60_000,
    "bytes=" + " " * 250_000, "bytes=" + "9" * 5_000 + "-", "bytes=1-" + "9" * 5_000, "bytes=-0",
    "[" * 60_000, "[::1", "x:" + "9" * 60_000, "Basic " + "=" * 60_000, '"x"x GMT', "x GMT",
    "-1", "",
    "Mon, 99 Jan 99999 99:99:99 GMT", "Mon, 01 Jan 0001 00:00:00 GMT", "\0", "a=" + " " * 60_000,
    "text/html; charset=nope", "text/html; charset=base64", "text/html; charset=punycode",
    "text/html; charset=\xff", 'text/html; charset="', "max-age=" + "9" * 5_000,
    "charset=" * 7_500, "q=0." * 15_000, ' ,\t' * 20_000,
]  # fmt: skip
HEADERS = [
    "HTTP_ACCEPT", "HTTP_ACCEPT_CHARSET", "HTTP_ACCEPT_ENCODING", "HTTP_ACCEPT_LANGUAGE",
    "HTTP_AUTHORIZATION", "HTTP_CACHE_CONTROL", "HTTP_COOKIE", "HTTP_DATE", "HTTP_HOST",
    "HTTP_IF_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_NONE_MATCH", "HTTP_IF_RANGE",
    "HTTP_IF_UNMODIFIED_SINCE", "HTTP_MAX_FORWARDS", "HTTP_PRAGMA", "HTTP_RANGE", "HTTP_REFERER",
    "HTTP_USER_AGENT", "HTTP_X_REQUESTED_WITH", "CONTENT_TYPE", "CONTENT_LENGTH", "QUERY_STRING",
    "PATH_INFO", "SCRIPT_NAME",
]  # fmt: skip
SERVER_ENVIRON = {
    "SERVER_NAME": "s", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "PATH_INFO": "/",
    "wsgi.url_scheme": "http", "CONTENT_TYPE": "text/plain", "CONTENT_LENGTH": "3",
}  # fmt: skip
READERS = {
    "str": str, "copy": lambda request: request.copy(), "copy_get": lambda r: r.copy_get(),
    "as_text": lambda request: request.as_text(), "decode": lambda request: request.decode(),
    "if_range": lambda r: webob.Response(etag="x", last_modified=1) in r.if_range,
    "offers": lambda request: request.accept.acceptable_offers(["text/html", "a/b"]),
    "content_range": lambda request: request.range and request.range.content_range(9),
    "length": lambda request: str(request.cache_control) + str(request.if_range),
    "relative": lambda request: request.relative_url("x"),
}  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_every_webob_attribute_copes_with_any_header_value(header):
    names = [name for name in dir(Request) if not name.startswith("_")]
    names = [name for name in names if not callable(getattr(Request, name))]
    readers = [
        *READERS.values(),
        *(lambda request, name=name: getattr(request, name) for name in names),
    ]
    began = time.process_time()
    for value in ODD_VALUES:
        for read in readers:
            environ = {"REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO(b"abc"), **SERVER_ENVIRON}
            request = Request({**environ, header: value}, limits=LIMITS)
            try:
                request.check()
            except Rejection:
                break  # rejected before any attribute is read
            with contextlib.suppress(Rejection):
                repr(read(request))
    assert time.process_time() - began < 15  # a single quadratic parser takes longer


@pytest.mark.parametrize(("charset", "body", "expected"), [
    ("", b"\xc3\xa9", "é"), ("; charset=UTF8", b"\xc3\xa9", "é"), ("; charset=us-ascii", b"a", "a"),
    ("", b"\xff", (400, "undecodable-body")), ("; charset=latin-1", b"a", (415, "charset")),
    ("; charset=no-such", b"a", (415, "charset")), ("; charset=punycode", b"a", (415, "charset")),
])  # fmt: skip
def test_text_is_utf_8_or_rejected(charset, body, expected):
    request = make_request(body, CONTENT_TYPE=f"text/plain{charset}")
    result = request.text if isinstance(expected, str) else rejection_of(lambda: request.text)
    assert result == expected


@pytest.mark.parametrize("name", ["body", "text", "body_file", "body_file_seekable", "copy"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_chunked_body_is_limited_however_it_is_read(name, method):
    chunked = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True, "REQUEST_METHOD": method}
    request = make_request(b"x" * 100_001, CONTENT_TYPE="text/plain", **chunked)

    def read():
        value = getattr(request, name)
        return value.read() if "file" in name else value() if callable(value) else value

    assert rejection_of(read) == (413, "body-too-large")
    request.close_files()


def test_an_unparsable_if_range_never_matches():
    request = make_request(HTTP_RANGE="bytes=0-1", HTTP_IF_RANGE="some day GMT")
    assert "HTTP_RANGE" not in request.environ
    valid = make_request(HTTP_RANGE="bytes=0-1", HTTP_IF_RANGE="x")
    assert valid.range
    assert webob.Response(etag="y") not in valid.if_range


# ---- Session ----

SESSION = {"session": {"max_age": 1000, "lifetime": 5000}}


def make_cookies(tmp_path, *keys, **config):
    return SessionCookies(
        Config.from_mapping({"secret_keys": list(keys) or [SECRET], **SESSION, **config}, tmp_path)
    )


def save_session(cookies, session, header=""):
    """Return the Set-Cookie headers that saving the session adds, and the response."""
    response = webob.Response()
    cookies.save(session, make_request(HTTP_COOKIE=header), response)
    return response.headers.getall("Set-Cookie"), response


def sign(state, key=SECRET, purpose="session"):
    return Signer([key], purpose).sign(
        state if isinstance(state, bytes) else json.dumps(state).encode()
    )


def open_session(cookies, value):
    return cookies.open(make_request(HTTP_COOKIE=f"noventa_session={value}"))


def make_state(**changes):
    now = int(time.time())
    times = {"issued": now, "seen": now}
    return {"data": {"user": 7}, "flashes": [], "nonce": "n", **times, "prefix": "", **changes}


@given(value=st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner,
        max_size=3),
    max_leaves=8,
))  # fmt: skip
def test_json_values_survive_the_cookie(value):
    cookies = SessionCookies(Config.from_mapping({"secret_keys": [SECRET]}, "."))
    session = cookies.open(make_request())
    session["value"] = value
    [header], _ = save_session(cookies, session)
    reopened = cookies.open(make_request(HTTP_COOKIE=header.partition(";")[0]))
    assert reopened["value"] == value


def test_an_untouched_session_reads_no_cookie():
    session = Session(lambda: pytest.fail("the cookie was read"))
    assert not session.touched
    assert "not touched" in repr(session)


def test_a_session_cookie_is_sent_only_after_a_change(tmp_path):
    cookies = make_cookies(tmp_path)
    session = open_session(cookies, sign(make_state()))
    assert session["user"] == 7
    assert save_session(cookies, session)[0] == []
    session["user"] = 8
    assert len(save_session(cookies, session)[0]) == 1


def test_a_change_in_a_nested_value_is_detected(tmp_path):
    cookies = make_cookies(tmp_path)
    session = open_session(cookies, sign(make_state(data={"list": [1]})))
    session["list"].append(2)
    assert len(save_session(cookies, session)[0]) == 1


def test_a_forged_cookie_yields_an_empty_session(tmp_path):
    cookies, value = make_cookies(tmp_path), sign(make_state())
    assert dict(open_session(cookies, value)) == {"user": 7}
    for position in range(len(value)):
        for bit in range(7):
            forged = value[:position] + chr(ord(value[position]) ^ 1 << bit) + value[position + 1 :]
            assert dict(open_session(cookies, forged)) == {}


@pytest.mark.parametrize("value", [
    "", ".", "x", "x.y", sign(make_state())[:-1], sign(make_state()) + "A", "A" * 10_000,
    sign(make_state(), key="another key, just as long as the first is"),
    sign(make_state(), purpose="ticket"),
    sign(b""), sign(b"not json"), sign([]), sign(7), sign(None), sign({}),
    sign(make_state(extra=1)),
    sign(make_state(data=[])), sign(make_state(flashes={})), sign(make_state(seen="x")),
    sign(make_state(issued=None)), sign(b"\x80\x04N."), sign(b"[" * 100_00),
])  # fmt: skip
def test_a_foreign_or_damaged_cookie_yields_an_empty_session(tmp_path, value):
    assert dict(open_session(make_cookies(tmp_path), value)) == {}


def test_a_session_signed_with_an_older_key_is_read_and_signed_with_the_newest(tmp_path):
    new = "a newer key, which is just as long as the old"
    cookies = make_cookies(tmp_path, new, SECRET)
    session = open_session(cookies, sign(make_state()))
    session["more"] = 1
    [header], _ = save_session(cookies, session)
    value = header.partition(";")[0].partition("=")[2]
    assert dict(open_session(make_cookies(tmp_path, new), value)) == {"user": 7, "more": 1}
    assert dict(open_session(make_cookies(tmp_path, SECRET), value)) == {}


@pytest.mark.parametrize(("idle", "age", "alive"), [
    (0, 0, True), (990, 990, True), (1010, 1010, False), (0, 4990, True), (0, 5010, False),
    (-290, -290, True), (0, -310, False), (-310, 0, False),
])  # fmt: skip
def test_a_session_expires_if_idle_too_long_too_old_or_from_the_future(tmp_path, idle, age, alive):
    now = int(time.time())
    state = make_state(seen=now - idle, issued=now - age)
    assert bool(open_session(make_cookies(tmp_path), sign(state))) is alive


def test_an_active_session_is_renewed_after_a_tenth_of_max_age(tmp_path):
    cookies, now = make_cookies(tmp_path), int(time.time())
    for idle, count in ((50, 0), (150, 1)):
        session = open_session(cookies, sign(make_state(seen=now - idle)))
        assert session["user"] == 7
        assert len(save_session(cookies, session)[0]) == count


def test_renewal_keeps_the_time_of_issue(tmp_path):
    cookies, now = make_cookies(tmp_path), int(time.time())
    session = open_session(cookies, sign(make_state(seen=now - 150, issued=now - 4_000)))
    assert session["user"] == 7
    [header], _ = save_session(cookies, session)
    reopened = open_session(cookies, header.partition(";")[0].partition("=")[2])
    assert reopened.state["issued"] == now - 4_000
    assert reopened.state["seen"] >= now


def test_rotation_keeps_the_data_and_changes_the_nonce(tmp_path):
    session = open_session(make_cookies(tmp_path), sign(make_state(issued=int(time.time()) - 100)))
    before = session.nonce
    session.rotate()
    assert session.nonce != before
    assert session["user"] == 7
    assert session.state["issued"] >= int(time.time()) - 1


def test_clearing_a_session_deletes_its_cookie(tmp_path):
    cookies, value = make_cookies(tmp_path), sign(make_state())
    session = open_session(cookies, value)
    session.clear()
    [header], _ = save_session(cookies, session, f"noventa_session={value}")
    assert "Max-Age=0" in header
    assert not session


def test_the_cookie_has_the_configured_flags(tmp_path):
    options = {"cookie_name": "__Host-id", "secure": True, "same_site": "strict"}
    cookies = make_cookies(tmp_path, session=options)
    session = cookies.open(make_request())
    session["a"] = 1
    [header], _ = save_session(cookies, session)
    assert header.startswith("__Host-id=")
    flags = {part.strip().lower() for part in header.split(";")[1:]}
    assert flags == {"secure", "httponly", "samesite=strict", "path=/", "max-age=1209600"}


WITHHELD = [
    ("strict", "GET", "cross-site", True), ("strict", "POST", "cross-site", True),
    ("strict", "GET", "same-site", False), ("strict", "GET", "none", False),
    ("strict", "GET", "same-origin", False), ("strict", "GET", None, False),
    ("lax", "GET", "cross-site", False), ("lax", "POST", "cross-site", True),
    ("lax", "POST", "same-origin", False), ("none", "POST", "cross-site", False),
]  # fmt: skip


SESSION_CHANGES = {
    "nonce": lambda session: session.nonce, "flash": lambda session: session.flash("x"),
    "data": lambda session: session.update(a=1), "rotate": lambda session: session.rotate(),
}  # fmt: skip


@pytest.mark.parametrize(("policy", "method", "site", "withheld"), WITHHELD)
def test_a_withheld_session_cookie_is_replaced_only_by_a_new_login(
    tmp_path, policy, method, site, withheld
):
    cookies = make_cookies(tmp_path, session={"same_site": policy, "secure": True})
    sent = {} if site is None else {"HTTP_SEC_FETCH_SITE": site}
    for name, change in SESSION_CHANGES.items():
        request, response = make_request(REQUEST_METHOD=method, **sent), webob.Response()
        session = cookies.open(request)
        change(session)
        cookies.save(session, request, response)
        assert ("Set-Cookie" in response.headers) == (name == "rotate" or not withheld), name
        assert response.headers["Cache-Control"] == "private"


@pytest.mark.parametrize("change", [lambda session: session.clear(), lambda s: s.update(a=1)])
def test_a_session_sent_with_a_cross_site_request_can_change(tmp_path, change):
    cookies = make_cookies(tmp_path, session={"same_site": "strict"})
    header = f"noventa_session={sign(make_state())}"
    request = make_request(HTTP_COOKIE=header, HTTP_SEC_FETCH_SITE="cross-site")
    session, response = cookies.open(request), webob.Response()
    change(session)
    cookies.save(session, request, response)
    assert "Set-Cookie" in response.headers


def test_a_mounted_application_limits_its_cookie_to_its_prefix(tmp_path):
    cookies = make_cookies(tmp_path)
    request = make_request(SCRIPT_NAME="/a;b")
    session, response = cookies.open(request), webob.Response()
    session["a"] = 1
    cookies.save(session, request, response)
    assert "Path=/a%3Bb;" in response.headers["Set-Cookie"]


@pytest.mark.parametrize(("given", "expected"), [
    (None, "private"), ("public, max-age=60", "private, max-age=60"), ("no-store", "no-store"),
    ("Public", "private"), ("max-age=5, private", "max-age=5, private"),
])  # fmt: skip
def test_a_response_that_used_the_session_is_not_stored_by_shared_caches(tmp_path, given, expected):
    cookies, response = make_cookies(tmp_path), webob.Response()
    if given:
        response.headers["Cache-Control"] = given
    session = open_session(cookies, sign(make_state()))
    assert session["user"] == 7
    cookies.save(session, make_request(), response)
    assert response.headers["Cache-Control"] == expected
    assert "Cookie" in response.vary


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes"])
def test_a_value_that_json_cannot_represent_is_an_error(tmp_path, value):
    cookies = make_cookies(tmp_path)
    session = cookies.open(make_request())
    session["a"] = value
    with pytest.raises(SessionError, match="JSON"):
        save_session(cookies, session)


def test_the_error_for_a_too_large_session_names_its_largest_key(tmp_path):
    cookies = make_cookies(tmp_path)
    session = cookies.open(make_request())
    session.update(small=1, large="x" * 5_000)
    with pytest.raises(SessionError, match=r"'large' \(5002 bytes\)"):
        save_session(cookies, session)


@pytest.mark.parametrize("size", [1, 40, 900])
def test_only_the_newest_unread_flashes_that_fit_are_kept(tmp_path, caplog, size):
    cookies = make_cookies(tmp_path)
    session = open_session(cookies, sign(make_state()))
    for number in range(3_000):
        session.flash(f"{number} {'x' * size}")
    session.flash("too long for any cookie" * 1_000)
    [header], _ = save_session(cookies, session)
    cookie = header.partition(";")[0]
    reopened = open_session(cookies, cookie.partition("=")[2])
    numbers = [int(flash.text.split()[0]) for flash in reopened.flashes()]
    assert numbers == [*range(3_000 - len(numbers), 3_000)]
    assert 4_000 - (size + 40) * 4 / 3 < len(cookie) <= 4_000
    assert reopened["user"] == 7
    assert f"unread messages were dropped ({3_001 - len(numbers)})" in caplog.text


@pytest.mark.parametrize("missing", range(12))
def test_a_flash_never_makes_the_cookie_too_large(tmp_path, missing):
    cookies = make_cookies(tmp_path)
    room = 2_846 - missing  # bytes that the rest of the state leaves for the value
    session = open_session(cookies, sign(make_state(data={"value": "x" * room})))
    session.flash("")
    headers, _ = save_session(cookies, session)  # none if the flash, the only change, was dropped
    assert all(len(header.partition(";")[0]) <= 4_000 for header in headers)


def test_the_repr_of_a_session_shows_no_values(tmp_path):
    session = open_session(make_cookies(tmp_path), sign(make_state(data={"token": "s3cret"})))
    assert session["token"] == "s3cret"
    assert "s3cret" not in repr(session)


def test_the_session_of_another_mounted_application_is_ignored(tmp_path):
    session = open_session(make_cookies(tmp_path), sign(make_state(prefix="/other")))
    assert dict(session) == {}
