from sqlalchemy import select
from sqlalchemy.orm import joinedload

from components.comment.comment_models import Comment
from functions.access import current_user, is_member, require_member
from functions.issues import find_issue, text_error


def load_template_context(request, session, db, *, slug, number):
    issue = find_issue(db, slug, number)
    query = select(Comment).where(Comment.issue == issue).order_by(Comment.id)
    return {
        "title": issue.title,
        "issue": issue,
        # One query for all; db.get() in each `comment` then finds its row already loaded.
        "comments": db.scalars(query.options(joinedload(Comment.author))).all(),
        "may_write": is_member(current_user(request, session, db), issue.project),
    }


def action_comment(request, session, db, *, slug, number):
    issue = find_issue(db, slug, number)
    author = require_member(current_user(request, session, db), issue.project)
    body = request.form["body"]
    if error := text_error(body):
        return {"_status": 422, "errors": {"body": error}, "values": request.form}
    db.add(Comment(issue=issue, author=author, body=body))
    db.commit()
    return {"_redirect": issue.path}
