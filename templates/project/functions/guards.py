"""Guards return None to let a request pass; anything else is the response."""

from components.user.user_models import User


def signed_in(request, session, db):
    user_id = session.get("user_id")
    if user_id is not None and db.get(User, user_id):
        return None
    # The user may have been deleted after signing in.
    session.pop("user_id", None)
    session.flash("Please sign in first.", "info")
    return {"_redirect": "/sign-in"}
