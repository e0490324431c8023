from sqlalchemy import select

from components.user.user_models import User


def load_template_context(request, session, db):
    users = db.scalars(select(User).order_by(User.name, User.id)).all()
    return {"users": users, "own_id": session.get("user_id")}
