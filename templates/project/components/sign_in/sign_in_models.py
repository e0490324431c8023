"""Passwords, stored apart from their users, and attempts to guess them."""

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from components.user.user_models import User


class Base(DeclarativeBase):
    pass


class Password(Base):
    __tablename__ = "passwords"

    # Not the string "users.id", which resolves only within one Base.
    user_id: Mapped[int] = mapped_column(
        ForeignKey(User.id, ondelete="CASCADE"),
        primary_key=True,
    )
    digest: Mapped[str] = mapped_column(String(200))  # see functions/passwords.py
    # Where the owner last signed in. Failures elsewhere do not lock them out there.
    address: Mapped[str | None] = mapped_column(String(45))


class Attempt(Base):
    """A sign-in that has not succeeded, whether or not the user exists."""

    __tablename__ = "sign_in_attempts"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(254), index=True)
    address: Mapped[str | None] = mapped_column(String(45), index=True)
    at: Mapped[datetime] = mapped_column()  # UTC
