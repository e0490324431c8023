"""The state and labels of an issue. Only members may change them."""

from sqlalchemy import select

from functions.access import current_user, is_member, require_member
from models.issue_models import Issue, Label


def load_template_context(request, session, db, *, issue_id):
    issue = db.get(Issue, issue_id)
    if not is_member(current_user(request, session, db), issue.project):
        return {"issue": issue}
    return {
        "issue": issue,
        "choices": db.scalars(select(Label).order_by(Label.name)).all(),
        "values": {"label": [label.name for label in issue.labels], "closed": not issue.is_open},
    }


def action_update(request, session, db, *, issue_id):
    issue = db.get(Issue, issue_id)
    require_member(current_user(request, session, db), issue.project)
    names = request.form.getlist("label")
    issue.labels = db.scalars(select(Label).where(Label.name.in_(names))).all()
    issue.is_open = "closed" not in request.form
    db.commit()
    return {"saved": True}
