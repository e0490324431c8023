"""reply(): JSON, text, downloads, files, ranges and streams; also types that WebOb loses."""

import datetime
import decimal
import enum
import json
import uuid

import pytest
import webob
from support import make_app
from visitors import ask

from noventa import Endpoint, NoventaError, reply


class Colour(enum.Enum):
    RED = "red"


def response_of(root, make, **environ):
    return ask(
        make_app(root, routes=[Endpoint("/", lambda request, session, db: make())]), **environ
    )


JSON_VALUES = {
    "date": datetime.date(2026, 1, 2),
    "datetime": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
    "time": datetime.time(3, 4),
    "uuid": uuid.UUID(int=7),
    "decimal": decimal.Decimal("1.10"),
    "enum": Colour.RED,
}


@pytest.mark.parametrize("wrap", [reply, lambda value: value])
def test_json_supports_dates_uuids_decimals_and_enums(tmp_path, wrap):
    response = response_of(tmp_path, lambda: wrap(JSON_VALUES))
    assert response.header("Content-Type") == "application/json"
    assert json.loads(response.text) == {
        "date": "2026-01-02", "datetime": "2026-01-02T03:04:05+00:00", "time": "03:04:00",
        "uuid": str(uuid.UUID(int=7)), "decimal": "1.10", "enum": "red",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "kind", "body"),
    [
        ("grüß", "text/plain; charset=UTF-8", "grüß".encode()),
        (b"\x00\x01", "application/octet-stream", b"\x00\x01"),
        ([1, 2], "application/json", b"[1,2]"),
    ],
)
def test_the_content_type_of_a_reply_depends_on_its_content(tmp_path, content, kind, body):
    response = response_of(tmp_path, lambda: reply(content, 201))
    assert (response.status, response.header("Content-Type"), response.body) == (201, kind, body)


def test_content_type_and_headers_can_be_set(tmp_path):
    options = {"content_type": "text/csv", "headers": {"Cache-Control": "no-store"}}
    response = response_of(tmp_path, lambda: reply("a;b", **options))
    assert response.header("Content-Type") == "text/csv; charset=UTF-8"
    assert response.header("Cache-Control") == "no-store"


@pytest.mark.parametrize(
    ("filename", "disposition"),
    [
        ("users.csv", 'attachment; filename="users.csv"'),
        ('a"b.csv', 'attachment; filename="a\\"b.csv"'),
        ("Größe.csv", "attachment; filename*=utf-8''Gr%C3%B6%C3%9Fe.csv"),
        ("../../etc/x\r\ny", 'attachment; filename="xy"'),
    ],
)
def test_a_filename_turns_a_reply_into_a_download(tmp_path, filename, disposition):
    response = response_of(tmp_path, lambda: reply("a;b", filename=filename))
    assert response.header("Content-Disposition") == disposition


def test_a_file_is_sent_with_its_type_and_supports_conditions_and_ranges(tmp_path):
    file = tmp_path / "logo.svg"
    file.write_bytes(b"<svg>0123456789</svg>")
    whole = response_of(tmp_path, lambda: reply(file))
    assert (whole.status, whole.body) == (200, file.read_bytes())
    assert whole.header("Content-Type") == "image/svg+xml; charset=UTF-8"
    unchanged = response_of(tmp_path, lambda: reply(file), HTTP_IF_NONE_MATCH=whole.header("ETag"))
    assert (unchanged.status, unchanged.body) == (304, b"")
    part = response_of(tmp_path, lambda: reply(file), HTTP_RANGE="bytes=5-9")
    assert (part.status, part.body) == (206, b"01234")
    assert part.header("Content-Range") == "bytes 5-9/21"


def test_a_file_can_be_downloaded_under_another_name(tmp_path):
    (tmp_path / "7f3a").write_bytes(b"%PDF")
    response = response_of(tmp_path, lambda: reply(tmp_path / "7f3a", filename="bill.pdf"))
    assert response.header("Content-Type") == "application/pdf"
    assert response.header("Content-Disposition") == 'attachment; filename="bill.pdf"'


def test_a_missing_file_is_a_404(tmp_path):
    assert response_of(tmp_path, lambda: reply(tmp_path / "no")).status == 404
    assert response_of(tmp_path, lambda: reply(tmp_path)).status == 404


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: reply("", status=42), "reply() got the status 42; expected a number from 200 to"),
        (lambda: reply("", status=None), "reply() got the status None; expected a number"),
        (lambda: reply(None), "reply() got None; expected a dict or list, a string, bytes, a Path"),
        (lambda: reply("", headers={"X-Left": 5}), "The header 'X-Left' is 5; expected a string."),
    ],
)
def test_an_invalid_argument_is_an_error_that_names_it(tmp_path, make, problem, caplog):
    assert response_of(tmp_path, make).status == 500
    assert problem in caplog.text


def test_a_stream_of_invalid_chunks_is_an_error(tmp_path):
    with pytest.raises(NoventaError, match="A reply's stream yielded 5; expected strings or bytes"):
        response_of(tmp_path, lambda: reply(iter([b"a", 5])))


def test_a_stream_is_sent_without_a_length_and_closed(tmp_path):
    closed = []

    def lines():
        try:
            yield "a\n"
            yield b"b\n"
        finally:
            closed.append(True)

    response = response_of(tmp_path, lambda: reply(lines(), content_type="text/csv"))
    assert (response.body, response.header("Content-Length"), closed) == (b"a\nb\n", None, [True])


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({"json": {"a": 1}}, "application/json"),
        ({"json": [1]}, "application/json"),
        ({"json": "<script>alert(1)</script>"}, "application/json"),
        ({"json": 7}, "application/json"),
        ({"text": "<script>alert(1)</script>"}, "text/plain; charset=UTF-8"),
        ({"text": "[" * 100_000}, "text/plain; charset=UTF-8"),
        ({"body": b"\xff<p>"}, "text/plain; charset=UTF-8"),
    ],
)
def test_a_response_that_lost_its_type_to_its_headers_is_never_sent_as_html(
    tmp_path, content, kind
):
    response = response_of(tmp_path, lambda: webob.Response(**content, headers={"X-A": "b"}))
    assert (response.header("Content-Type"), response.header("X-A")) == (kind, "b")
