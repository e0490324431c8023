def log_out(request, session, db):
    session.clear()
    return {"_redirect": "/"}
