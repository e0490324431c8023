"""Values of a request compared with columns of every type, on three databases.

Every database accepts the valid ones, and an invalid one never causes a 500.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import io
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlencode
from wsgiref.headers import Headers

import pytest
import sqlalchemy as sa
import yaml
from conftest import DATABASES, new_database, only_postgresql
from sqlalchemy import orm
from support import make_app
from visitors import Visitor, ask, post
from webob import Request as WebObRequest

from noventa import App, Component, Endpoint, FieldText, Page, reply


class Colour(enum.Enum):
    red = "red"
    blue = "blue"


class Base(orm.DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "things"

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    integer: orm.Mapped[int]
    numeric: orm.Mapped[decimal.Decimal] = orm.mapped_column(sa.Numeric(8, 2))
    float: orm.Mapped[float]
    boolean: orm.Mapped[bool]
    date: orm.Mapped[datetime.date]
    moment: orm.Mapped[datetime.datetime]
    uuid: orm.Mapped[uuid.UUID]
    colour: orm.Mapped[Colour]
    text: orm.Mapped[str] = orm.mapped_column(sa.String(40))


SEVEN = uuid.UUID(int=7)
NOON = datetime.datetime(2026, 1, 1, 12)
STORED = {
    "integer": 5, "numeric": decimal.Decimal("1.50"), "float": 2.5, "boolean": True,
    "date": NOON.date(), "moment": NOON, "uuid": SEVEN, "colour": Colour.red, "text": "it's",
}  # fmt: skip
GOOD = {
    "integer": "5", "numeric": "1.5", "float": "2.5", "boolean": "1", "date": "2026-01-01",
    "moment": "2026-01-01 12:00:00.000000", "uuid": SEVEN.hex, "colour": "red", "text": "it's",
}  # fmt: skip
BAD = dict.fromkeys(GOOD, "x" * 41) | {"numeric": "nine", "colour": "green"}
NOT_STRINGS = {  # types to which SQLAlchemy itself cannot bind a string
    "sqlite": {"uuid"}, "postgresql": {"boolean"}, "mysql": set[str](),
}  # fmt: skip


def find(request: Any, session: Any, db: Any, *, name: str, value: str) -> Any:
    column = getattr(Thing, name)
    argument = request.args.get("value")
    return {
        "found": [
            db.query(Thing).filter(column == candidate).count() for candidate in (argument, value)
        ],
        "among": db.query(Thing).filter(column.in_([argument])).count(),
    }


def store(request: Any, session: Any, db: Any) -> Any:
    setattr(db.get(Thing, 1), request.form["name"], request.form["value"])
    db.flush()
    return {"_status": 422}  # rolled back


def echo(request: Any, session: Any, db: Any, *, value: str) -> Any:
    return reply("", headers={"X-Value": value, "X-Query": request.args["value"]})


@pytest.fixture(scope="module", params=DATABASES)
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    routes = [
        Endpoint("/things/{name}/{value}", find),
        Endpoint("/things", store, methods=["POST"], cross_origin=True),
        Endpoint("/echo/{value}", echo),
    ]
    with new_database(request.param) as url:
        root = tmp_path_factory.mktemp("values")
        app = make_app(root, config={"database": url}, models=[Thing], routes=routes)
        with app.database.session() as db:
            db.add(Thing(id=1, **STORED))
            db.commit()
        yield app
        app.database.dispose()


def request_value(app: App, name: str, value: str) -> Any:
    return ask(app, "GET", f"/things/{name}/{value}", urlencode({"value": value}))


def test_a_request_value_is_compared_as_the_type_of_the_column(app: App) -> None:
    for name, value in GOOD.items():
        answer = request_value(app, name, value)
        if name in NOT_STRINGS[app.database.engine.dialect.name]:
            assert answer.status == 400, name
        else:
            assert answer.text == '{"found":[1,1],"among":1}', name


def test_a_value_that_does_not_fit_the_column_finds_nothing_or_returns_400(app: App) -> None:
    for name, value in BAD.items():
        answer = request_value(app, name, value)
        assert answer.status == 400 or answer.text == '{"found":[0,0],"among":0}', name
        if app.database.engine.dialect.name == "postgresql":
            assert (answer.status == 200) == (name == "text"), name


def test_a_form_value_that_the_column_cannot_store_returns_400(app: App) -> None:
    for name, good in GOOD.items():
        values = (good, BAD[name])
        posts = [post(app, "/things", {"name": name, "value": value}) for value in values]
        statuses = [answer.status for answer in posts]
        assert set(statuses) <= {400, 422}, name
        if app.database.engine.dialect.name == "postgresql":
            assert statuses == [400 if name == "boolean" else 422, 400], name


def test_a_path_value_is_also_compared_as_a_number_in_an_action(
    tmp_path: Path, database: str
) -> None:
    logic = ModuleType("thing_logic")

    def load_template_context(request, session, db, *, id):
        return {"found": db.query(Thing.text).filter(Thing.id == id).all()}

    def action_touch(request, session, db, *, id):
        return {"touched": db.query(Thing.text).filter(Thing.id == id).all()}

    load_template_context.__module__ = action_touch.__module__ = "thing_logic"
    logic.load_template_context, logic.action_touch = load_template_context, action_touch  # type: ignore[attr-defined]
    files = {
        "page.html": "{{ component('thing', id=id) }}",
        "thing.html": "{{ found }}{{ touched }}{{ action('touch') }}",
    }
    component = Component("thing", "thing.html", logic=logic)
    app = make_app(
        tmp_path, files, {"database": database}, components=[component], models=[Thing],
        routes=[Page("/things/{id}", "page.html")],
    )  # fmt: skip
    visitor = Visitor(app)
    page = visitor.get("/things/1")
    assert page.status == 200
    assert visitor.post("/things/1", page.tickets[0]).status == 200
    app.database.dispose()


def test_a_request_value_can_be_a_header(app: App) -> None:
    sent: list[Headers] = []
    request = WebObRequest.blank("/echo/a?value=b")
    request.environ["wsgi.input"] = io.BytesIO()
    # Headers raises an error for values that are not exactly `str`.
    app(request.environ, lambda status, headers, *_: sent.append(Headers(headers)))
    assert (sent[0]["X-Value"], sent[0]["X-Query"]) == ("a", "b")


@only_postgresql
@pytest.mark.parametrize("function", [sa.func.concat, sa.func.jsonb_build_object])
def test_a_function_that_accepts_any_type_requires_a_plain_string(
    database: str, function: Any
) -> None:
    engine = sa.create_engine(database, poolclass=sa.NullPool)
    value = FieldText("a")
    with engine.connect() as connection, pytest.raises(sa.exc.DBAPIError):
        connection.execute(sa.select(function(value, value)))
    with engine.connect() as connection:
        result = connection.scalar(sa.select(function(str(value), str(value))))
    assert result in ("aa", {"a": "a"})


def test_yaml_requires_a_plain_string() -> None:
    with pytest.raises(yaml.YAMLError):
        yaml.safe_dump([FieldText("a")])
    assert yaml.safe_dump([str(FieldText("a"))]) == "- a\n"
