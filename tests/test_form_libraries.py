"""WTForms and pydantic in actions: errors at their fields, typed values kept, and files."""

import re

import pytest
import sqlalchemy as sa
from support import make_app, make_module
from webtest import TestApp, Upload

from noventa import Endpoint, Page

ORDERS = """
    import sqlalchemy as sa
    from sqlalchemy import orm

    COLOURS = ["red", "darkred", "blue"]

    class Base(orm.DeclarativeBase):
        pass

    class Order(Base):
        __tablename__ = "orders"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        name: orm.Mapped[str]
        guests: orm.Mapped[int]
        colours: orm.Mapped[list[str]] = orm.mapped_column(sa.JSON)
        photos: orm.Mapped[list[str]] = orm.mapped_column(sa.JSON)
"""
WTFORMS = """
    from wtforms import Form, IntegerField, MultipleFileField, SelectMultipleField, StringField
    from wtforms.validators import InputRequired, Length, NumberRange
    from wtforms.widgets import CheckboxInput, ListWidget
    from orders import COLOURS, Order

    class OrderForm(Form):
        name = StringField("Name", [InputRequired("Please enter a name."), Length(max=40)])
        guests = IntegerField("Guests", [NumberRange(1, 8, "From 1 to 8.")])
        colours = SelectMultipleField(
            "Colours", [InputRequired("Please choose.")], choices=COLOURS, default=["blue"],
            widget=ListWidget(), option_widget=CheckboxInput(),
        )
        photos = MultipleFileField("Photos", [Length(max=2, message="At most two.")])

    def load_template_context(request, session, db):
        return {"form": OrderForm(request.form or None)}

    def action_order(request, session, db):
        form = OrderForm(request.form | request.files)
        if not form.validate():
            return {"_status": 422, "form": form}
        names = [f"{photo.filename}: {photo.file.read().decode()}" for photo in form.photos.data]
        db.add(Order(**{**form.data, "photos": names}))
        db.commit()
        return {"_redirect": "/"}
"""
WTFORMS_PAGE = """
    <form method="post" enctype="multipart/form-data">{{ action("order") }}
    {% for field in form %}{{ field.label }} {{ field }}
    {% for error in field.errors %}<p id="{{ field.id }}-error">{{ error }}</p>{% endfor %}
    {% endfor %}<button>Order</button></form>
"""
PYDANTIC = """
    from typing import Annotated, Literal
    from pydantic import BaseModel, Field, InstanceOf, StringConstraints, ValidationError
    from noventa import Upload
    from orders import COLOURS, Order

    Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=40)]

    class OrderModel(BaseModel):
        name: Name
        guests: int = Field(ge=1, le=8)
        colours: list[Literal[*COLOURS]] = Field(min_length=1)
        photos: list[InstanceOf[Upload]] = Field(max_length=2, default=[])

    def load_template_context(request, session, db):
        return {"colours": COLOURS, "values": {"colours": ["blue"]}}

    def action_order(request, session, db):
        colours, photos = request.form.getlist("colours"), request.files.getlist("photos")
        try:
            order = OrderModel(**{**request.form, "colours": colours, "photos": photos})
        except ValidationError as error:
            errors = {fault["loc"][0]: fault["msg"] for fault in error.errors()}
            return {"_status": 422, "errors": errors, "values": request.form}
        names = [f"{photo.filename}: {photo.file.read().decode()}" for photo in order.photos]
        db.add(Order(**{**order.model_dump(), "photos": names}))
        db.commit()
        return {"_redirect": "/"}

    def add_order(request, session, db):
        try:
            order = OrderModel.model_validate(request.json)
        except ValidationError as error:
            return {"_status": 422, "errors": error.errors(include_url=False)}
        return order.model_dump()
"""
PYDANTIC_PAGE = """
    <form method="post" enctype="multipart/form-data">{{ action("order") }}
    <input name="name" value="{{ values.name }}"> <p id="name-error">{{ errors.name }}</p>
    <input name="guests" value="{{ values.guests }}"> <p id="guests-error">{{ errors.guests }}</p>
    {% for colour in colours %}<input type="checkbox" name="colours" value="{{ colour }}"
      {% if colour in values.getlist("colours") %}checked{% endif %}>{% endfor %}
    <p id="colours-error">{{ errors.colours }}</p>
    <input type="file" name="photos" multiple> <p id="photos-error">{{ errors.photos }}</p>
    <button>Order</button></form>
"""
SAME_ORIGIN = {"HTTP_SEC_FETCH_SITE": "same-origin"}
LIBRARIES = {
    "wtforms": (WTFORMS, WTFORMS_PAGE),
    "pydantic": (PYDANTIC, PYDANTIC_PAGE),
}


def make_orders(root, library):
    orders = make_module("orders", ORDERS)
    source, page = LIBRARIES[library]
    logic = make_module(f"order_{library}", source)
    routes = [Page("/", "page.html", logic=logic, models=[orders])]
    if library == "pydantic":
        routes.append(Endpoint("/api/orders", logic.add_order, methods=["POST"]))
    app = make_app(root, {"page.html": page}, routes=routes)
    app.orders = sa.select(orders.Base.metadata.tables["orders"])
    return app


@pytest.fixture(params=LIBRARIES)
def app(request, tmp_path):
    return make_orders(tmp_path, request.param)


def fill_in(page, name="Ada", guests="2", colours=("red", "blue"), photos=()):
    """Fill in and return the form of a page."""
    page.form["name"], page.form["guests"] = name, guests
    for box in page.form.fields["colours"]:
        box.checked = box._value in colours
    if photos:
        page.form["photos"] = [Upload(name, content) for name, content in photos]
    return page.form


def form_values(page):
    """Return the values that the form of a page shows."""
    boxes = page.form.fields["colours"]
    chosen = [box._value for box in boxes if box.checked]
    return page.form["name"].value, page.form["guests"].value, chosen


def fields_with_errors(page):
    """Return the names of the fields that show an error."""
    found = page.html.find_all(id=re.compile("-error$"))
    return {tag["id"].removesuffix("-error") for tag in found if tag.text}


def saved_orders(app):
    with app.database.session() as db:
        return [tuple(row)[1:] for row in db.execute(app.orders)]


def test_a_form_starts_with_the_handlers_defaults(client):
    assert form_values(client.get("/")) == ("", "", ["blue"])


def test_a_valid_form_yields_converted_values_and_repeated_fields(app, client):
    fill_in(client.get("/")).submit(status=303)
    assert saved_orders(app) == [("Ada", 2, ["red", "blue"], [])]


def test_files_are_submitted_with_the_form(app, client):
    photos = [("a.png", b"first"), ("b.png", b"second")]
    fill_in(client.get("/"), photos=photos).submit(status=303)
    assert saved_orders(app)[0][-1] == ["a.png: first", "b.png: second"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 41}, "name"),
        ({"guests": "many"}, "guests"),
        ({"guests": "9"}, "guests"),
        ({"colours": []}, "colours"),
        ({"photos": [(f"{number}.png", b"") for number in range(3)]}, "photos"),
    ],
)
def test_an_error_is_shown_at_its_field_and_typed_values_are_kept(app, client, wrong, field):
    form = fill_in(client.get("/"), **wrong)
    page = form.submit(status=422)
    assert fields_with_errors(page) == {field}
    expected = {"name": "Ada", "guests": "2", "colours": ["red", "blue"]}
    typed = {name: wrong[name] for name in expected.keys() & wrong}  # browsers never refill files
    assert form_values(page) == tuple((expected | typed).values())
    assert saved_orders(app) == []
    assert fill_in(page).submit(status=303)


def test_typed_values_are_kept_when_the_session_has_changed(app, client):
    form = fill_in(client.get("/"), colours=["darkred", "blue"])
    client.reset()
    client.get("/")
    page = form.submit(status=403, headers={"Sec-Fetch-Site": "same-origin"})
    assert form_values(page) == ("Ada", "2", ["darkred", "blue"])


def test_pydantic_validates_the_json_of_an_endpoint(tmp_path):
    client = TestApp(make_orders(tmp_path, "pydantic"), extra_environ=SAME_ORIGIN)
    order = {"name": " Ada ", "guests": "2", "colours": ["red"]}
    response = client.post_json("/api/orders", order)
    assert response.json == {"name": "Ada", "guests": 2, "colours": ["red"], "photos": []}
    response = client.post_json("/api/orders", order | {"guests": 9}, status=422)
    assert [fault["loc"] for fault in response.json["errors"]] == [["guests"]]
