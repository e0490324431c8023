from webob.exc import HTTPForbidden, HTTPNotFound

from components.post.post_models import Post


def load_template_context(request, session, db, *, id):
    post = db.get(Post, id)  # sends no query if the page has loaded it
    return {"post": post, "own": post.author_id == session.get("user_id")}


def action_delete(request, session, db, *, id):
    db.delete(own_post(session, db, id))
    db.commit()
    session.flash("The post was deleted.")
    return {"_redirect": "/"}


def own_post(session, db, id):
    post = db.get(Post, id)
    if post is None:
        raise HTTPNotFound("This post does not exist.")
    if post.author_id != session.get("user_id"):
        raise HTTPForbidden("Only the author may change a post.")
    return post
