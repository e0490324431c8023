def log_out(request, session, db):
    """Log out. An endpoint, not an action, as error pages contain its form but have no route."""
    session.clear()
    return {"_redirect": "/"}
