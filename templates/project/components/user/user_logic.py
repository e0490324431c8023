"""The profile of one user, and the form by which they rename themselves."""

from webob.exc import HTTPForbidden, HTTPNotFound

from components.user.user_models import MAX_NAME_LENGTH, User


def load_template_context(request, session, db, *, user_id):
    return {
        "user": _find_user(db, user_id),
        "own": _is_own(session, user_id),
        "max_length": MAX_NAME_LENGTH,
    }


def action_update_user(request, session, db, *, user_id):
    # Others are not shown the form; that they may not use it is decided here.
    if not _is_own(session, user_id):
        raise HTTPForbidden("Only they themselves may change this name.")
    user = _find_user(db, user_id)
    name = request.form.get("name", "").strip()
    error = _name_error(name)
    if error:
        return {"_status": 422, "errors": {"name": error}, "values": {"name": name}}
    user.name = name
    db.commit()
    session.flash(f"Saved. The name is now {name}.", "success")
    return {"_redirect": f"/users/{user.id}"}


def _is_own(session, user_id):
    return session.get("user_id") == user_id


def _find_user(db, user_id):
    user = db.get(User, user_id)
    if user is None:
        raise HTTPNotFound("There is no such user.")
    return user


def _name_error(name):
    if not name:
        return "Please enter a name."
    if len(name) > MAX_NAME_LENGTH:
        return f"Please use at most {MAX_NAME_LENGTH} characters."
    return None
