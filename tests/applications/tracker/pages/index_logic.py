from sqlalchemy import select

from models.project_models import Project


def load_template_context(request, session, db):
    return {"title": "Projects", "projects": db.scalars(select(Project).order_by(Project.name))}
