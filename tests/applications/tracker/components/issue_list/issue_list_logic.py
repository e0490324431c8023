"""One page of the issues that the query string asks for."""

from sqlalchemy.orm import selectinload

from functions.issues import search
from models.issue_models import Issue

SIZE = 20


def load_template_context(request, session, db, *, project_id):
    page = max(1, request.args.get("page", 1, type=int))
    query = search(project_id, request.args).options(selectinload(Issue.labels))
    issues = db.scalars(query.offset((page - 1) * SIZE).limit(SIZE + 1)).all()
    asked = {name: request.args.get(name, "") for name in ("q", "label")}
    return {
        "issues": issues[:SIZE],
        "previous": {**asked, "page": page - 1} if page > 1 else None,
        "next": {**asked, "page": page + 1} if issues[SIZE:] else None,
    }
