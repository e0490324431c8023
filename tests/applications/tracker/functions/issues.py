"""Queries and rules for projects and issues that pages, API and export share."""

from sqlalchemy import or_, select
from webob.exc import HTTPNotFound

from models.issue_models import Issue, Label
from models.project_models import Project

MAX_TITLE, MAX_TEXT = 200, 10_000


def find_project(db, slug):
    project = db.scalar(select(Project).where(Project.slug == slug))
    if project is None:
        raise HTTPNotFound(f"Project {slug} does not exist.")
    return project


def find_issue(db, slug, number):
    query = select(Issue).join(Issue.project).where(Project.slug == slug, Issue.number == number)
    issue = db.scalar(query)
    if issue is None:
        raise HTTPNotFound(f"Issue {slug}-{number} does not exist.")
    return issue


def search(project_id, args):
    """Return a query for the issues that match a query string, as `?q=words&label=bug`."""
    query = select(Issue).where(Issue.project_id == project_id).order_by(Issue.number.desc())
    for word in args.get("q", "").split():
        columns = (Issue.title, Issue.body)
        query = query.where(or_(*(c.icontains(word, autoescape=True) for c in columns)))
    if label := args.get("label"):
        query = query.where(Issue.labels.any(Label.name == label))
    return query


def open_issue(db, project, author, title, body):
    project.last_number = Project.last_number + 1  # in SQL, so no number is used twice
    db.flush()
    issue = Issue(
        project=project, author=author, number=project.last_number, title=title, body=body
    )
    db.add(issue)
    return issue


def errors_in(title, body):
    """Return the errors of a new issue by field. The API accepts values of any type."""
    errors = {"title": text_error(title, MAX_TITLE), "body": body != "" and text_error(body)}
    return {name: error for name, error in errors.items() if error}


def text_error(text, length=MAX_TEXT):
    if not isinstance(text, str) or not text.strip():
        return "Please enter some text."
    if len(text) > length:
        return f"Please use at most {length:,} characters."
    return None
