"""Downloads: attached files and an export as CSV."""

import csv
from types import SimpleNamespace

from noventa import reply
from sqlalchemy.orm import joinedload
from webob.exc import HTTPNotFound

from components.attachments.attachment_models import Attachment
from functions.access import current_user, require_member
from functions.issues import find_project, search
from models.issue_models import Issue


def attachment(request, session, db, *, id):
    file = db.get(Attachment, id)
    if file is None:
        raise HTTPNotFound("This file does not exist.")
    require_member(current_user(request, session, db), file.issue.project)
    return reply(file.content, filename=file.filename)


def issues_csv(request, session, db, *, slug):
    query = search(find_project(db, slug).id, request.args).options(joinedload(Issue.author))
    issues = db.scalars(query.execution_options(yield_per=500))
    return reply(_lines(issues), content_type="text/csv", filename=f"{slug}.csv")


def _lines(issues):
    """Yield one line per row as rows arrive, so the whole result is never in memory."""
    line = csv.writer(SimpleNamespace(write=str)).writerow
    yield line(["number", "title", "open", "author", "created"])
    for issue in issues:
        yield line([issue.number, issue.title, issue.is_open, issue.author.name, issue.created_at])
