"""A contest of challenges, in the manner of CTFd: joined tables, polymorphic rows, cascades."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm


class Base(orm.DeclarativeBase):
    pass


def now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None, microsecond=0)


class User(Base):
    __tablename__ = "users"
    __table_args__ = (sa.UniqueConstraint("id", "oauth_id"), {})

    id = sa.Column(sa.Integer, primary_key=True)
    oauth_id = sa.Column(sa.Integer, unique=True)
    name = sa.Column(sa.String(128))
    email = sa.Column(sa.String(128), unique=True)
    type = sa.Column(sa.String(80))
    hidden = sa.Column(sa.Boolean, default=False)
    banned = sa.Column(sa.Boolean, default=False, nullable=False, server_default=sa.false())
    team_id = sa.Column(sa.Integer, sa.ForeignKey("teams.id"))
    created = sa.Column(sa.DateTime, default=now)

    __mapper_args__ = {"polymorphic_identity": "user", "polymorphic_on": type}


class Admin(User):
    __mapper_args__ = {"polymorphic_identity": "admin"}


class Team(Base):
    __tablename__ = "teams"
    __table_args__ = (sa.UniqueConstraint("id", "oauth_id"), {})

    id = sa.Column(sa.Integer, primary_key=True)
    oauth_id = sa.Column(sa.Integer, unique=True)
    name = sa.Column(sa.String(128))
    secret = sa.Column(sa.String(128))
    captain_id = sa.Column(sa.Integer, sa.ForeignKey("users.id", ondelete="SET NULL"))

    members = orm.relationship("User", backref="team", foreign_keys="User.team_id", lazy="joined")
    captain = orm.relationship("User", foreign_keys=[captain_id], post_update=True)


class Challenge(Base):
    __tablename__ = "challenges"

    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.String(80))
    description = sa.Column(sa.Text)
    next_id = sa.Column(sa.Integer, sa.ForeignKey("challenges.id", ondelete="SET NULL"))
    value = sa.Column(sa.Integer)
    category = sa.Column(sa.String(80))
    type = sa.Column(sa.String(80))
    state = sa.Column(sa.String(80), nullable=False, default="visible")
    requirements = sa.Column(sa.JSON)

    hints = orm.relationship("Hint", backref="challenge", passive_deletes=True)

    __mapper_args__ = {"polymorphic_identity": "standard", "polymorphic_on": type}


class DynamicChallenge(Challenge):
    __tablename__ = "dynamic_challenge"

    id = sa.Column(
        sa.Integer, sa.ForeignKey("challenges.id", ondelete="CASCADE"), primary_key=True
    )
    initial = sa.Column(sa.Integer, default=0)
    minimum = sa.Column(sa.Integer, default=0)
    function = sa.Column(sa.String(32), default="logarithmic")

    __mapper_args__ = {"polymorphic_identity": "dynamic"}


class Hint(Base):
    __tablename__ = "hints"

    id = sa.Column(sa.Integer, primary_key=True)
    type = sa.Column(sa.String(80), default="standard")
    challenge_id = sa.Column(sa.Integer, sa.ForeignKey("challenges.id", ondelete="CASCADE"))
    content = sa.Column(sa.Text)
    cost = sa.Column(sa.Integer, default=0)

    __mapper_args__ = {"polymorphic_identity": "standard", "polymorphic_on": type}


class File(Base):
    __tablename__ = "files"

    id = sa.Column(sa.Integer, primary_key=True)
    type = sa.Column(sa.String(80), default="standard")
    location = sa.Column(sa.Text)
    sha1sum = sa.Column(sa.String(40))

    __mapper_args__ = {"polymorphic_identity": "standard", "polymorphic_on": type}


class ChallengeFile(File):
    """One table for all kinds of files: this kind has a column of its own in it."""

    challenge_id = sa.Column(sa.Integer, sa.ForeignKey("challenges.id", ondelete="CASCADE"))

    __mapper_args__ = {"polymorphic_identity": "challenge"}


class Submission(Base):
    __tablename__ = "submissions"

    id = sa.Column(sa.Integer, primary_key=True)
    challenge_id = sa.Column(sa.Integer, sa.ForeignKey("challenges.id", ondelete="CASCADE"))
    user_id = sa.Column(sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"))
    team_id = sa.Column(sa.Integer, sa.ForeignKey("teams.id", ondelete="CASCADE"))
    ip = sa.Column(sa.String(46))
    provided = sa.Column(sa.Text)
    type = sa.Column(sa.String(32))
    date = sa.Column(sa.DateTime, default=now)

    user = orm.relationship("User", foreign_keys=[user_id])
    challenge = orm.relationship("Challenge", foreign_keys=[challenge_id])

    __mapper_args__ = {"polymorphic_on": type}


class Solve(Submission):
    __tablename__ = "solves"
    __table_args__ = (
        sa.UniqueConstraint("challenge_id", "user_id"),
        sa.UniqueConstraint("challenge_id", "team_id"),
        {},
    )

    id = sa.Column(
        sa.Integer, sa.ForeignKey("submissions.id", ondelete="CASCADE"), primary_key=True
    )
    challenge_id = orm.column_property(
        sa.Column(sa.Integer, sa.ForeignKey("challenges.id", ondelete="CASCADE")),
        Submission.challenge_id,
    )
    user_id = orm.column_property(
        sa.Column(sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE")), Submission.user_id
    )
    team_id = orm.column_property(
        sa.Column(sa.Integer, sa.ForeignKey("teams.id", ondelete="CASCADE")), Submission.team_id
    )

    __mapper_args__ = {"polymorphic_identity": "correct"}


class Fail(Submission):
    __mapper_args__ = {"polymorphic_identity": "incorrect"}


class Token(Base):
    __tablename__ = "tokens"

    id = sa.Column(sa.Integer, primary_key=True)
    user_id = sa.Column(sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"))
    expires = sa.Column(sa.DateTime, default=now)
    value = sa.Column(sa.String(128), unique=True)


def fill(db: Any) -> None:
    ada, root = User(name="ada", email="ada@x.org"), Admin(name="root", email="root@x.org")
    team = Team(name="red", members=[ada], captain=ada)
    plain = Challenge(name="warm-up", value=10, requirements={"after": [1]})
    dynamic = DynamicChallenge(name="hard", value=500, initial=500, hints=[Hint(content="look")])
    db.add_all([root, team, plain, dynamic])
    db.flush()
    common = {"user": ada, "team_id": team.id}
    db.add_all([Solve(challenge=dynamic, **common), Solve(challenge=plain, **common)])
    db.add(Fail(challenge=plain, provided="ä😀", **common))
    db.add(ChallengeFile(location="a/b", challenge_id=dynamic.id))
    db.flush()
    db.execute(sa.delete(DynamicChallenge.__table__))
    db.execute(sa.delete(Challenge.__table__).where(Challenge.id == dynamic.id))


def read(db: Any) -> list[Any]:
    """After the hard challenge was deleted, the database itself has deleted what hung on it."""
    counts = [
        db.scalar(sa.select(sa.func.count()).select_from(table))
        for table in (Solve.__table__, Hint, ChallengeFile, Submission)
    ]
    (solve,), (fail,) = db.scalars(sa.select(Solve)).all(), db.scalars(sa.select(Fail)).all()
    team = db.scalars(sa.select(Team)).unique().one()
    names = team.captain.name, team.members[0].name, db.scalars(sa.select(Admin)).one().name
    return [counts, solve.challenge.requirements, fail.provided, names, team.captain.banned]


READ = [[1, 0, 0, 2], {"after": [1]}, "ä😀", ("ada", "ada", "root"), False]
