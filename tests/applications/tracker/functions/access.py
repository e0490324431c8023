"""The current user and their permissions. A guard returns None to let a request pass."""

from sqlalchemy import select
from webob.exc import HTTPForbidden, HTTPUnauthorized

from functions.digests import hash_token
from functions.issues import find_project
from models.issue_models import Issue
from models.user_models import User


def current_user(request, session, db):
    """Load the user once per request. SQLAlchemy alone would not keep the object."""
    if not hasattr(request, "user"):
        request.user = db.get(User, session["user_id"]) if "user_id" in session else None
    return request.user


def is_member(user, project):
    return user is not None and (user.is_admin or user in project.members)


def require_member(user, project):
    if not is_member(user, project):
        raise HTTPForbidden("Only members of the project may do this.")
    return user


def sign_out(request, session, db):
    session.clear()
    session.flash("You have signed out.")
    return {"_redirect": "/"}


# ---- Guards -----------------------------------------------------------------------


def signed_in(request, session, db):
    if current_user(request, session, db) is not None:
        return None
    session["next"] = request.path_info
    session.flash("Please sign in first.")
    return {"_redirect": "/sign-in"}


def admin(request, session, db):
    user = current_user(request, session, db)
    if user is None or not user.is_admin:
        return {"_status": 403, "message": "This page is only for administrators."}
    return None


def member(request, session, db):
    require_member(current_user(request, session, db), find_project(db, request.view_args["slug"]))


def member_of_issue(request, session, db, *, issue_id):
    require_member(current_user(request, session, db), db.get(Issue, issue_id).project)


def bearer(request, session, db):
    scheme, token = request.authorization or ("", "")
    if scheme == "Bearer":  # for other schemes, `token` may be a dict
        request.user = db.scalar(select(User).where(User.token == hash_token(token)))
    if getattr(request, "user", None) is None:
        raise HTTPUnauthorized("A token is required.", headers={"WWW-Authenticate": "Bearer"})
