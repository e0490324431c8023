"""The page's title is the user's name. Its component shows the rest."""

from components.user.user_models import User


def load_template_context(request, session, db, *, id):
    user = db.get(User, id)
    if user is None:
        return {"_status": 404, "message": "There is no such user."}
    return {"title": user.name, "user": user}
