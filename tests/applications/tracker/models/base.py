from datetime import UTC, datetime

from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    """The base of every model, so foreign keys can name tables of other modules."""


def now() -> datetime:
    """Return the time in UTC as columns store it: naive, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0, tzinfo=None)
