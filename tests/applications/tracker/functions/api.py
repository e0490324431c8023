"""The JSON API. A token acts on behalf of the user who created it."""

from sqlalchemy.orm import joinedload, selectinload

from functions.access import current_user, require_member
from functions.issues import errors_in, find_project, open_issue, search
from models.issue_models import Issue

PAGE = 100


def list_issues(request, session, db, *, slug):
    page = max(1, request.args.get("page", 1, type=int))
    query = search(find_project(db, slug).id, request.args).limit(PAGE).offset((page - 1) * PAGE)
    issues = db.scalars(query.options(joinedload(Issue.author), selectinload(Issue.labels)))
    return [_as_json(issue) for issue in issues]


def add_issue(request, session, db, *, slug):
    project = find_project(db, slug)
    author = require_member(current_user(request, session, db), project)
    data = request.json if isinstance(request.json, dict) else {}
    title, body = data.get("title"), data.get("body", "")
    if errors := errors_in(title, body):
        return {"_status": 422, "errors": errors}
    issue = open_issue(db, project, author, title, body)
    db.commit()
    return {"_status": 201, **_as_json(issue)}


def _as_json(issue):
    return {
        "number": issue.number,
        "title": issue.title,
        "body": issue.body,
        "open": issue.is_open,
        "author": issue.author.name,
        "labels": [label.name for label in issue.labels],
        "created_at": issue.created_at,
    }
