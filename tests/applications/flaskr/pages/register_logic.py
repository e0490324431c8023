from sqlalchemy.exc import IntegrityError

from components.user.user_models import User
from functions.passwords import hash_password


def action_register(request, session, db):
    username, password = request.form["username"].strip(), request.form["password"]
    errors = {}
    if not username:
        errors["username"] = "Please enter a name."
    if not password:
        errors["password"] = "Please enter a password."
    if not errors:
        db.add(User(username=username, password=hash_password(password)))
        try:
            db.commit()
        except IntegrityError:
            errors["username"] = f"The name {username} is already taken."
    if errors:
        return {"_status": 422, "errors": errors, "values": {"username": username}}
    session.flash("You are registered and can log in now.")
    return {"_redirect": "/log-in"}
