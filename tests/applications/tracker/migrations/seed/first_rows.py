"""An example project and an administrator."""

import secrets

from functions.digests import hash_password
from functions.issues import open_issue
from models.issue_models import Label
from models.project_models import Project
from models.user_models import User


def seed_first_rows(db):
    password = secrets.token_urlsafe(12)
    admin = User(
        email="admin@example.com",
        name="Admin",
        is_admin=True,
        password=hash_password(password),
    )
    project = Project(slug="demo", name="Example project")
    db.add_all([admin, project, *(Label(name=name) for name in ("bug", "idea", "question"))])
    db.flush()
    open_issue(db, project, admin, "Say hello", "Issues can have labels, comments and files.")
    db.commit()
    print(f"Sign in as {admin.email} with the password {password}")
