from components.post.post_models import Post
from components.user.user_models import User


def seed_welcome(db):
    author = User(username="flaskr", password="")  # matches no password
    db.add(Post(author=author, title="Welcome", body="Register, log in, and write."))
    db.commit()
