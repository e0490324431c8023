"""Work that all applications of the benchmark share: tables, queries, signatures."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jinja2
import sqlalchemy as sa
from sqlalchemy import orm

SITE = Path(__file__).resolve().parent / "site"
SECRET = "a secret key for the benchmark, 32 characters or more"
MESSAGE = {"message": "Hello", "numbers": [1, 2, 3], "nested": {"flag": True, "text": "é < è"}}
FORTUNES = (
    "A bad random number generator: 1, 1, 1, 1, 1, 4.33e+67, 1, 1, 1",
    "A computer program does what you tell it to do, not what you want it to do.",
    "A computer scientist is someone who fixes things that aren't broken.",
    "A list is only as strong as its weakest link.",
    "After enough decimal places, nobody gives a damn.",
    "Any program that runs right is obsolete.",
    "Computers make very fast, very accurate mistakes.",
    "Emacs is a nice operating system, but I prefer UNIX.",
    "Feature: a bug with seniority.",
    "fortune: No such file or directory",
    "<script>alert('This should not be displayed in a browser');</script>",
    "フレームワークのベンチマーク",
)

StartResponse = Callable[..., Any]
WSGIApp = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class Base(orm.DeclarativeBase):
    """Base of the benchmark's two tables."""


class User(Base):
    """A user, who is read by key or renamed."""

    __tablename__ = "users"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    email: orm.Mapped[str] = orm.mapped_column(sa.String(100))
    name: orm.Mapped[str] = orm.mapped_column(sa.String(100))


class Fortune(Base):
    """A fortune. All twelve are read, sorted and escaped."""

    __tablename__ = "fortunes"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    message: orm.Mapped[str] = orm.mapped_column(sa.String(200))


def fill(url: str) -> None:
    """Create the tables and their rows."""
    engine = sa.create_engine(url)
    Base.metadata.create_all(engine)
    with orm.Session(engine) as db:
        db.add_all(User(email=f"user{n}@example.com", name=f"User {n}") for n in range(1, 101))
        db.add_all(Fortune(message=message) for message in FORTUNES)
        db.commit()
    engine.dispose()


def all_fortunes(db: Any) -> list[Fortune]:
    """Return the fortunes in alphabetical order."""
    return sorted(db.scalars(sa.select(Fortune)), key=lambda fortune: fortune.message)


def rename(db: Any, id: int, name: str) -> None:
    """Read one row, update it and commit."""
    db.get(User, id).name = name
    db.commit()


def sign(value: Any) -> str:
    """Return `value` as JSON in base64, with its HMAC-SHA256."""
    text = base64.urlsafe_b64encode(json.dumps(value).encode()).decode()
    return f"{text}.{_signature(text)}"


def verify(signed: str) -> Any:
    """Return the signed value. Raises ValueError if it was altered."""
    text, _, signature = signed.partition(".")
    if not hmac.compare_digest(signature, _signature(text)):
        raise ValueError("bad signature")
    return json.loads(base64.urlsafe_b64decode(text))


def check_ticket(cookie: str, ticket: str) -> None:
    """Raise ValueError unless the ticket was issued to the visitor who holds the cookie."""
    if verify(cookie)["nonce"] != verify(ticket)["nonce"]:
        raise ValueError("ticket of another session")


def tickets(cookie: str) -> list[str]:
    """Return two signed tickets, one per form, for the visitor who holds the cookie."""
    nonce, now = verify(cookie)["nonce"], int(time.time())
    return [
        sign([nonce, "/forms", "editor", f"/editor={name}", name, {"id": 7}, [], now])
        for name in ("rename", "delete")
    ]


def count_visit(cookie: str | None) -> dict[str, int]:
    """Return the session of a signed cookie, with one more visit."""
    session: dict[str, int] = verify(cookie) if cookie else {"visits": 0}
    return {"visits": session["visits"] + 1}


class Site:
    """The pages in plain SQLAlchemy and Jinja, for frameworks without their own database layer."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        self.plain, self._user, self._fortunes, self._forms = renderers(
            "plain", "user", "fortunes", "forms"
        )

    def user(self, id: int) -> str:
        with orm.Session(self._engine) as db:
            return self._user(user=db.get(User, id))

    def fortunes(self) -> str:
        with orm.Session(self._engine) as db:
            return self._fortunes(fortunes=all_fortunes(db))

    def forms(self, cookie: str) -> str:
        return self._forms(tickets=tickets(cookie))

    def edit(self, id: int, cookie: str, ticket: str, name: str) -> None:
        check_ticket(cookie, ticket)
        with orm.Session(self._engine) as db:
            rename(db, id, name)


def renderers(*names: str) -> list[Callable[..., str]]:
    """Return functions that render the named templates."""
    loader = jinja2.FileSystemLoader(SITE)
    jinja = jinja2.Environment(loader=loader, autoescape=True, auto_reload=False)
    return [jinja.get_template(f"{name}.html").render for name in names]


def _signature(text: str) -> str:
    return hmac.digest(SECRET.encode(), text.encode(), "sha256").hex()
