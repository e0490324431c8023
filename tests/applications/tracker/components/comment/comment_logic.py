from webob.exc import HTTPForbidden

from components.comment.comment_models import Comment
from functions.issues import text_error
from models.base import now


def load_template_context(request, session, db, *, id):
    comment = db.get(Comment, id)
    return {"comment": comment, "own": comment.author_id == session.get("user_id")}


def action_save(request, session, db, *, id):
    comment = db.get(Comment, id)
    if comment.author_id != session.get("user_id"):
        raise HTTPForbidden("Only its author may change a comment.")
    body = request.form["body"]
    if error := text_error(body):
        return {"_status": 422, "errors": {"body": error}, "values": request.form}
    comment.body, comment.edited_at = body, now()
    db.commit()
    return {}  # no redirect: the comment is shown again, alone where a script asked for it
