from sqlalchemy import select

from components.sign_in.sign_in_models import Password, verify_password
from components.user.user_models import User


def action_sign_in(request, session, db):
    email = request.form.get("email", "").strip()
    password = db.scalar(select(Password).join(User).where(User.email == email))
    if not verify_password(password, request.form.get("password", "")):
        # One answer for both faults: it must not tell which addresses exist.
        error = "This email address and password do not belong together."
        return {"_status": 422, "errors": {"form": error}, "values": {"email": email}}
    # What the session was before signing in must be worth nothing afterwards.
    session.rotate()
    session["user_id"] = password.user_id
    return {"_redirect": "/account"}
