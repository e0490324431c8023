from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import selectinload

from models.issue_models import Label
from models.project_models import Project


def load_template_context(request, session, db):
    query = select(Project).order_by(Project.name).options(selectinload(Project.members))
    return {"title": "Administration", "projects": db.scalars(query).all()}


def action_add_project(request, session, db):
    slug, name = request.form["slug"].strip().lower(), request.form["name"].strip()
    if not (slug.isalnum() and len(slug) <= 10 and 0 < len(name) <= 100):
        return _refusal(request, "slug", "Use up to 10 letters and digits, and a name up to 100.")
    return _add(request, session, db, Project(slug=slug, name=name), "slug")


def action_add_label(request, session, db):
    name = request.form["label"].strip()
    if not 0 < len(name) <= 30:
        return _refusal(request, "label", "A label has up to 30 characters.")
    return _add(request, session, db, Label(name=name), "label")


def _add(request, session, db, row, field):
    db.add(row)
    try:
        db.commit()
    except IntegrityError:
        return _refusal(request, field, "This one already exists.")
    session.flash("Added.")
    return {"_redirect": "/admin"}


def _refusal(request, field, error):
    return {"_status": 422, "errors": {field: error}, "values": request.form}
