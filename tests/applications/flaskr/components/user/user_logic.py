"""The navigation at the top of each page, and the user who is signed in."""

from components.user.user_models import User


def load_template_context(request, session, db):
    return {"user": current_user(session, db)}


def current_user(session, db):
    return db.get(User, session["user_id"]) if "user_id" in session else None


def signed_in(request, session, db):
    """Guard the pages that require a user."""
    request.user = current_user(session, db)  # keeps it loaded, so handlers send no query for it
    if request.user:
        return None
    session.flash("Please log in first.")
    return {"_redirect": "/log-in"}
