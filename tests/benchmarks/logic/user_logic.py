"""A component that shows one row, found by its key."""

from typing import Any

from ..work import User


def load_template_context(request: Any, session: Any, db: Any, *, id: int) -> dict[str, Any]:
    """Return the user with that id."""
    return {"user": db.get(User, id)}
