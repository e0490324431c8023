"""Passwords, kept apart from the users they belong to, as salted scrypt digests."""

import hashlib
import hmac
import secrets

from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from components.user.user_models import User

SALT_BYTES = 16


class Base(DeclarativeBase):
    pass


class Password(Base):
    __tablename__ = "passwords"

    # The column itself: the string "users.id" resolves only inside one Base.
    user_id: Mapped[int] = mapped_column(
        ForeignKey(User.id, ondelete="CASCADE"),
        primary_key=True,
    )
    salt: Mapped[bytes] = mapped_column()
    digest: Mapped[bytes] = mapped_column()


def make_password(user_id: int, text: str) -> Password:
    salt = secrets.token_bytes(SALT_BYTES)
    return Password(user_id=user_id, salt=salt, digest=_digest(text, salt))


def verify_password(password: Password | None, text: str) -> bool:
    """Whether `text` is the password; None, for an unknown user, is always wrong."""
    # An unknown user costs the same work, so that the time taken does not tell who exists.
    salt = password.salt if password else bytes(SALT_BYTES)
    digest = _digest(text, salt)
    return password is not None and hmac.compare_digest(password.digest, digest)


def _digest(text: str, salt: bytes) -> bytes:
    return hashlib.scrypt(text.encode(), salt=salt, n=2**14, r=8, p=1)
