from sqlalchemy import select
from sqlalchemy.orm import joinedload

from components.post.post_models import Post


def load_template_context(request, session, db):
    newest_first = select(Post).options(joinedload(Post.author)).order_by(Post.id.desc())
    return {"posts": db.scalars(newest_first).all(), "signed_in": "user_id" in session}
