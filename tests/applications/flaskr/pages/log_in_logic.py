from sqlalchemy import select

from components.user.user_models import User
from functions.passwords import verify_password


def action_log_in(request, session, db):
    user = db.scalar(select(User).where(User.username == request.form["username"].strip()))
    if not verify_password(request.form["password"], user.password if user else ""):
        errors = {"username": "This name and password do not belong together."}
        return {"_status": 422, "errors": errors, "values": request.form}
    session.rotate()  # what the session was before is worth nothing afterwards
    session["user_id"] = user.id
    return {"_redirect": "/"}
