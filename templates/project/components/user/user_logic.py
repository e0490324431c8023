"""A user's profile, and the form to change their own name."""

from webob.exc import HTTPForbidden, HTTPNotFound

from components.user.user_models import MAX_NAME_LENGTH, User


def load_template_context(request, session, db, *, user_id):
    user = _find_user(db, user_id)
    return {
        "user": user,
        "own": _is_own(session, user_id),
        "max_length": MAX_NAME_LENGTH,
        "values": {"name": user.name},
    }


def action_update_user(request, session, db, *, user_id):
    # Hiding the form from others is not enough.
    if not _is_own(session, user_id):
        raise HTTPForbidden("You can only change your own name.")
    user = _find_user(db, user_id)
    name = request.form.get("name", "").strip()
    error = _name_error(name)
    if error:
        return {"_status": 422, "errors": {"name": error}, "values": request.form}
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
