from sqlalchemy import select

from functions.digests import hash_password, is_password
from models.user_models import User


def load_template_context(request, session, db):
    return {"title": "Sign in"}


def action_sign_in(request, session, db):
    email, password = request.form["email"].strip(), request.form["password"]
    user = db.scalar(select(User).where(User.email == email))
    # An unknown address takes as long, to hide which accounts exist.
    if not is_password(password, user.password if user else hash_password("")) or user is None:
        error = "Unknown address or wrong password."
        return {"_status": 422, "errors": {"email": error}, "values": {"email": email}}
    target = session.get("next", "/")
    session.clear()
    session.rotate()  # prevents session fixation
    session["user_id"] = user.id
    return {"_redirect": target}
