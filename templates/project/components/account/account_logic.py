from components.user.user_models import User


def load_template_context(request, session, db):
    return {"user": db.get(User, session["user_id"])}


def action_sign_out(request, session, db):
    session.clear()
    session.flash("You have signed out.", "success")
    return {"_redirect": "/"}
