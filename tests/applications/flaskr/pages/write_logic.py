"""Write a new post or, with the `id` of the URL, change one of your own."""

from components.post.post_logic import own_post
from components.post.post_models import Post


def load_template_context(request, session, db, *, id=None):
    if id is None:
        return {"title": "New post"}
    post = own_post(session, db, id)
    return {"title": f"Edit “{post.title}”", "values": {"title": post.title, "body": post.body}}


def action_save(request, session, db, *, id=None):
    title = request.form["title"].strip()
    if not title:
        errors = {"title": "Please enter a title."}
        return {"_status": 422, "errors": errors, "values": request.form}
    post = own_post(session, db, id) if id else Post(author_id=session["user_id"])
    post.title, post.body = title, request.form["body"]
    db.add(post)
    db.commit()
    return {"_redirect": "/"}
