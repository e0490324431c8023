import secrets

from functions.access import current_user
from functions.digests import hash_token


def load_template_context(request, session, db):
    return {"title": current_user(request, session, db).name}


def action_create_token(request, session, db):
    token = secrets.token_urlsafe(32)
    current_user(request, session, db).token = hash_token(token)
    db.commit()
    return {"token": token}  # shown once; only its digest is stored
