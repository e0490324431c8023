"""A component with two forms. Their tickets are the main cost of its page."""

from typing import Any


def action_rename(request: Any, session: Any, db: Any, *, id: int) -> None:
    """Do nothing: only the ticket is rendered, the action is never called."""


def action_delete(request: Any, session: Any, db: Any, *, id: int) -> None:
    """Do nothing, as above."""
