"""One page of the issues that match the query string."""

from sqlalchemy.orm import selectinload

from functions.issues import search
from models.issue_models import Issue

SIZE = 20


def load_template_context(request, session, db, *, project_id):
    page = max(1, request.args.get("page", 1, type=int))
    query = search(project_id, request.args).options(selectinload(Issue.labels))
    issues = db.scalars(query.offset((page - 1) * SIZE).limit(SIZE + 1)).all()
    query_string = {name: request.args.get(name, "") for name in ("q", "label")}
    return {
        "issues": issues[:SIZE],
        "previous": {**query_string, "page": page - 1} if page > 1 else None,
        "next": {**query_string, "page": page + 1} if issues[SIZE:] else None,
    }
