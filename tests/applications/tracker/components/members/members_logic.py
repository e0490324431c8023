from sqlalchemy import select

from models.project_models import Project
from models.user_models import User


def load_template_context(request, session, db, *, project_id):
    return {"project": db.get(Project, project_id)}


def action_add(request, session, db, *, project_id):
    user = db.scalar(select(User).where(User.email == request.form["email"].strip()))
    if user is None:
        error = "No user has this address."
        return {"_status": 422, "errors": {"email": error}, "values": request.form}
    project = db.get(Project, project_id)
    if user not in project.members:
        project.members.append(user)
    db.commit()
    return {"_redirect": "/admin"}
