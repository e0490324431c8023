from functions.access import current_user


def load_template_context(request, session, db):
    return {"user": current_user(request, session, db)}
