"""Who is signed in, shown at the top of each page."""

from components.user.user_models import User


def load_template_context(request, session, db):
    return {"user": current_user(session, db)}


def current_user(session, db):
    return db.get(User, session["user_id"]) if "user_id" in session else None


def signed_in(request, session, db):
    """A guard: the registry puts it before the pages that strangers may not see."""
    request.user = current_user(session, db)  # as long as it is kept, nobody asks for it again
    if request.user:
        return None
    session.flash("Please log in first.")
    return {"_redirect": "/log-in"}
