"""A component with two forms, whose tickets are what its page costs."""

from typing import Any


def action_rename(request: Any, session: Any, db: Any, *, id: int) -> None:
    """Never called: only its ticket is printed."""


def action_delete(request: Any, session: Any, db: Any, *, id: int) -> None:
    """As above."""
