from functions.access import current_user


def load_template_context(request, session, db):
    return {"user": current_user(request, session, db)}


def action_sign_out(request, session, db):
    session.clear()
    session.flash("You have signed out.")
    return {"_redirect": "/"}
