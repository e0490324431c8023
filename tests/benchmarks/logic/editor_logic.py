"""A component with a form that renames a user."""

from typing import Any

from ..work import User, rename


def load_template_context(request: Any, session: Any, db: Any, *, id: int) -> dict[str, Any]:
    """Return the user with that id."""
    return {"user": db.get(User, id)}


def action_rename(request: Any, session: Any, db: Any, *, id: int) -> dict[str, Any]:
    """Rename the user."""
    rename(db, id, request.form["name"])
    return {"_redirect": f"/users/{id}"}
