"""A component that shows twelve rows, sorted and escaped."""

from typing import Any

from ..work import all_fortunes


def load_template_context(request: Any, session: Any, db: Any) -> dict[str, Any]:
    """Return all fortunes."""
    return {"fortunes": all_fortunes(db)}
