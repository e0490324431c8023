from datetime import UTC, datetime

from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    """The base of every model: they refer to each other by name."""


def now() -> datetime:
    """UTC, as columns hold it: without a zone, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0, tzinfo=None)
