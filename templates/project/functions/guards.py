"""Guards return None to let a request pass; anything else is the response."""

from components.user.user_models import User


def signed_in(request, session, db):
    user_id = session.get("user_id")
    # While the request refers to the user, `db.get` returns it again without a query.
    request.user = db.get(User, user_id) if user_id is not None else None
    if request.user:
        return None
    # The user may have been deleted after signing in.
    session.pop("user_id", None)
    session.flash("Please sign in first.", "info")
    return {"_redirect": "/sign-in"}
