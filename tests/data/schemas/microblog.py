"""People who write, follow each other and send messages, in the manner of microblog."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from time import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.orm import Mapped, WriteOnlyMapped, mapped_column


class Base(orm.DeclarativeBase):
    pass


def now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


followers = sa.Table(
    "followers",
    Base.metadata,
    sa.Column("follower_id", sa.Integer, sa.ForeignKey("user.id"), primary_key=True),
    sa.Column("followed_id", sa.Integer, sa.ForeignKey("user.id"), primary_key=True),
)


class User(Base):
    __tablename__ = "user"  # a word that PostgreSQL keeps for itself

    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(sa.String(64), index=True, unique=True)
    email: Mapped[str] = mapped_column(sa.String(120), index=True, unique=True)
    password_hash: Mapped[str | None] = mapped_column(sa.String(256))
    about_me: Mapped[str | None] = mapped_column(sa.String(140))
    last_seen: Mapped[datetime | None] = mapped_column(default=now)
    token: Mapped[str | None] = mapped_column(sa.String(32), index=True, unique=True)

    posts: WriteOnlyMapped[Post] = orm.relationship(back_populates="author")
    sent: WriteOnlyMapped[Message] = orm.relationship(
        foreign_keys="Message.sender_id", back_populates="sender"
    )
    received: WriteOnlyMapped[Message] = orm.relationship(
        foreign_keys="Message.recipient_id", back_populates="recipient"
    )
    notices: WriteOnlyMapped[Notice] = orm.relationship(back_populates="user")
    following: WriteOnlyMapped[User] = orm.relationship(
        secondary=followers,
        primaryjoin=followers.c.follower_id == id,
        secondaryjoin=followers.c.followed_id == id,
        back_populates="followed_by",
    )
    followed_by: WriteOnlyMapped[User] = orm.relationship(
        secondary=followers,
        primaryjoin=followers.c.followed_id == id,
        secondaryjoin=followers.c.follower_id == id,
        back_populates="following",
    )

    def timeline(self) -> sa.Select[tuple[Post]]:
        """What this person and those they follow wrote, the newest first."""
        author, reader = orm.aliased(User), orm.aliased(User)
        return (
            sa.select(Post)
            .join(Post.author.of_type(author))
            .join(author.followed_by.of_type(reader), isouter=True)
            .where(sa.or_(reader.id == self.id, author.id == self.id))
            .group_by(Post)
            .order_by(Post.written.desc(), Post.id.desc())
        )


class Post(Base):
    __tablename__ = "post"

    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str] = mapped_column(sa.String(140))
    written: Mapped[datetime] = mapped_column(index=True, default=now)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey(User.id), index=True)
    language: Mapped[str | None] = mapped_column(sa.String(5))

    author: Mapped[User] = orm.relationship(back_populates="posts")


class Message(Base):
    __tablename__ = "message"

    id: Mapped[int] = mapped_column(primary_key=True)
    sender_id: Mapped[int] = mapped_column(sa.ForeignKey(User.id), index=True)
    recipient_id: Mapped[int] = mapped_column(sa.ForeignKey(User.id), index=True)
    body: Mapped[str] = mapped_column(sa.String(140))
    sent_at: Mapped[datetime] = mapped_column(index=True, default=now)

    sender: Mapped[User] = orm.relationship(foreign_keys=sender_id, back_populates="sent")
    recipient: Mapped[User] = orm.relationship(
        foreign_keys=recipient_id, back_populates="received"
    )


class Notice(Base):
    __tablename__ = "notice"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(128), index=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey(User.id), index=True)
    at: Mapped[float] = mapped_column(index=True, default=time)
    payload: Mapped[str] = mapped_column(sa.Text)

    user: Mapped[User] = orm.relationship(back_populates="notices")


class Task(Base):
    __tablename__ = "task"

    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(128), index=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey(User.id))
    complete: Mapped[bool] = mapped_column(default=False)


def fill(db: Any) -> None:
    ada, ben, eve = (User(username=name, email=f"{name}@x.org") for name in ("ada", "ben", "eve"))
    db.add_all([ada, ben, eve])
    ada.following.add(ben)
    ben.followed_by.add(eve)
    for author in (ben, ada, eve):
        db.add(Post(body=f"{author.username} is here", author=author))
        db.flush()
    db.add(Message(sender=ada, recipient=ben, body="ä😀"))
    db.add(Notice(name="unread", user=ben, payload=json.dumps({"count": 1}), at=1700000000.123456))
    db.add(Task(id="a" * 36, name="export", user_id=1))


def read(db: Any) -> list[Any]:
    ada, ben = db.scalars(sa.select(User).where(User.username != "eve").order_by(User.id))
    notice = db.scalars(ben.notices.select()).one()
    return [
        {post.author.username for post in db.scalars(ada.timeline())},
        sorted(user.username for user in db.scalars(ben.followed_by.select())),
        db.scalars(ben.received.select()).one().body,
        notice.at,
    ]


READ = [{"ada", "ben"}, ["ada", "eve"], "ä😀", 1700000000.123456]
