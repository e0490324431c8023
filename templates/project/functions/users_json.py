from sqlalchemy import select

from components.user.user_models import User


def list_users(request, session, db):
    users = db.scalars(select(User).order_by(User.name, User.id))
    return [{"id": user.id, "name": user.name} for user in users]
