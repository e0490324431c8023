def log_out(request, session, db):
    """Log out. Not an action, because error pages, which have no route, show the form too."""
    session.clear()
    return {"_redirect": "/"}
