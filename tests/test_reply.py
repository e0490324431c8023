"""reply(): JSON, texts, downloads, files with ranges, streams; what WebOb's own answers lack."""

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


def answer_of(root, make, **environ):
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
def test_json_knows_dates_uuids_decimals_and_enums(tmp_path, wrap):
    answer = answer_of(tmp_path, lambda: wrap(JSON_VALUES))
    assert answer.header("Content-Type") == "application/json"
    assert json.loads(answer.text) == {
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
def test_a_reply_has_the_type_of_its_content(tmp_path, content, kind, body):
    answer = answer_of(tmp_path, lambda: reply(content, 201))
    assert (answer.status, answer.header("Content-Type"), answer.body) == (201, kind, body)


def test_type_and_headers_may_be_given(tmp_path):
    made = {"content_type": "text/csv", "headers": {"Cache-Control": "no-store"}}
    answer = answer_of(tmp_path, lambda: reply("a;b", **made))
    assert answer.header("Content-Type") == "text/csv; charset=UTF-8"
    assert answer.header("Cache-Control") == "no-store"


@pytest.mark.parametrize(
    ("filename", "disposition"),
    [
        ("users.csv", 'attachment; filename="users.csv"'),
        ('a"b.csv', 'attachment; filename="a\\"b.csv"'),
        ("Größe.csv", "attachment; filename*=utf-8''Gr%C3%B6%C3%9Fe.csv"),
        ("../../etc/x\r\ny", 'attachment; filename="xy"'),
    ],
)
def test_a_filename_makes_a_download(tmp_path, filename, disposition):
    answer = answer_of(tmp_path, lambda: reply("a;b", filename=filename))
    assert answer.header("Content-Disposition") == disposition


def test_a_file_is_sent_with_type_and_conditions(tmp_path):
    file = tmp_path / "logo.svg"
    file.write_bytes(b"<svg>0123456789</svg>")
    whole = answer_of(tmp_path, lambda: reply(file))
    assert (whole.status, whole.body) == (200, file.read_bytes())
    assert whole.header("Content-Type") == "image/svg+xml; charset=UTF-8"
    known = answer_of(tmp_path, lambda: reply(file), HTTP_IF_NONE_MATCH=whole.header("ETag"))
    assert (known.status, known.body) == (304, b"")
    part = answer_of(tmp_path, lambda: reply(file), HTTP_RANGE="bytes=5-9")
    assert (part.status, part.body) == (206, b"01234")
    assert part.header("Content-Range") == "bytes 5-9/21"


def test_a_file_may_be_a_download_of_another_name(tmp_path):
    (tmp_path / "7f3a").write_bytes(b"%PDF")
    answer = answer_of(tmp_path, lambda: reply(tmp_path / "7f3a", filename="bill.pdf"))
    assert answer.header("Content-Type") == "application/pdf"
    assert answer.header("Content-Disposition") == 'attachment; filename="bill.pdf"'


def test_a_file_that_is_not_there_is_a_404(tmp_path):
    assert answer_of(tmp_path, lambda: reply(tmp_path / "no")).status == 404
    assert answer_of(tmp_path, lambda: reply(tmp_path)).status == 404


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: reply("", status=42), "reply() got the status 42; expected a number from 200 to"),
        (lambda: reply("", status=None), "reply() got the status None; expected a number"),
        (lambda: reply(None), "reply() got None; expected a dict or list, a string, bytes, a Path"),
        (lambda: reply("", headers={"X-Left": 5}), "The header 'X-Left' is 5; expected a string."),
    ],
)
def test_what_is_no_answer_is_an_error_that_says_so(tmp_path, make, problem, caplog):
    assert answer_of(tmp_path, make).status == 500
    assert problem in caplog.text


def test_a_stream_of_something_else_says_so(tmp_path):
    with pytest.raises(NoventaError, match="A reply's stream yielded 5; expected strings or bytes"):
        answer_of(tmp_path, lambda: reply(iter([b"a", 5])))


def test_a_stream_is_sent_as_it_is_made_and_ended(tmp_path):
    ended = []

    def lines():
        try:
            yield "a\n"
            yield b"b\n"
        finally:
            ended.append(True)

    answer = answer_of(tmp_path, lambda: reply(lines(), content_type="text/csv"))
    assert (answer.body, answer.header("Content-Length"), ended) == (b"a\nb\n", None, [True])


@pytest.mark.parametrize(
    ("made", "kind"),
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
def test_a_response_that_lost_its_type_to_its_headers_is_never_taken_for_html(tmp_path, made, kind):
    answer = answer_of(tmp_path, lambda: webob.Response(**made, headers={"X-A": "b"}))
    assert (answer.header("Content-Type"), answer.header("X-A")) == (kind, "b")
