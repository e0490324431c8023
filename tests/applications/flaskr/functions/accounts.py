def log_out(request, session, db):
    """An endpoint and no action: its form stands on error pages too, which are at no page's URL."""
    session.clear()
    return {"_redirect": "/"}
