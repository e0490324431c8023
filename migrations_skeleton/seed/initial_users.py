import os
import secrets

from sqlalchemy.orm import Session

from components.sign_in.sign_in_models import Password
from components.user.user_models import User
from functions.passwords import hash_password


def seed_users(db: Session):
    # Create initial users
    admin = User(email="admin@example.com", name="Admin")
    db.add_all(
        [
            admin,
            User(email="ada@example.com", name="Ada Lovelace"),
            User(email="alan@example.com", name="Alan Turing"),
            User(email="grace@example.com", name="Grace Hopper"),
        ]
    )
    db.flush()  # assigns the admin's id, which the password refers to

    given = os.environ.get("NOVENTA_ADMIN_PASSWORD")
    password = given or secrets.token_urlsafe(12)
    db.add(Password(user_id=admin.id, digest=hash_password(password)))
    db.commit()
    if not given:
        print(f"Sign in as admin@example.com with the password {password}")
