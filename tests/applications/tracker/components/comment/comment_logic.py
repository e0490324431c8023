from webob.exc import HTTPForbidden

from components.comment.comment_models import Comment
from functions.issues import text_error
from models.base import now


def load_template_context(request, session, db, *, id):
    comment = db.get(Comment, id)
    own = comment.author_id == session.get("user_id")
    return {"comment": comment, "own": own, "values": {"body": comment.body}}


def action_save(request, session, db, *, id):
    comment = db.get(Comment, id)
    if comment.author_id != session.get("user_id"):
        raise HTTPForbidden("Only the author may change a comment.")
    body = request.form["body"]
    if error := text_error(body):
        return {"_status": 422, "errors": {"body": error}, "values": request.form}
    comment.body, comment.edited_at = body, now()
    db.commit()
    return {}  # no redirect, so htmx can replace the comment alone
