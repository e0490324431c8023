from sqlalchemy import select

from components.user.user_models import User
from functions.paging import page_of


def load_template_context(request, session, db):
    rows, pages = page_of(request, db, select(User).order_by(User.name, User.id))
    return {
        "users": [user for (user,) in rows],
        "own_id": session.get("user_id"),
        **pages,
    }
