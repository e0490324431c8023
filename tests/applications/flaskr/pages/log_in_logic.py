from sqlalchemy import select

from components.user.user_models import User
from functions.passwords import verify_password


def action_log_in(request, session, db):
    username = request.form["username"].strip()
    user = db.scalar(select(User).where(User.username == username))
    if not verify_password(request.form["password"], user.password if user else ""):
        errors = {"username": "Unknown name or wrong password."}
        return {"_status": 422, "errors": errors, "values": {"username": username}}
    session.rotate()  # prevents session fixation
    session["user_id"] = user.id
    return {"_redirect": "/"}
