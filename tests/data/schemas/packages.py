"""An index of packages, in the manner of PyPI's Warehouse: all that only PostgreSQL has."""

from __future__ import annotations

import enum
import uuid
from datetime import datetime, timedelta
from ipaddress import IPv4Address
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects.postgresql import ARRAY, CITEXT, INET, JSONB, UUID, ExcludeConstraint
from sqlalchemy.orm import Mapped, mapped_column


class Base(orm.DeclarativeBase):
    id: Mapped[uuid.UUID] = mapped_column(
        UUID(as_uuid=True), primary_key=True, server_default=sa.func.gen_random_uuid()
    )


class Role(enum.Enum):
    owner = "Owner"
    maintainer = "Maintainer"


class Reason(str, enum.Enum):  # noqa: UP042 (as much code has it)
    spam = "spam"
    malware = "it's malware: 100%"


class User(Base):
    __tablename__ = "users"
    __table_args__ = (
        sa.CheckConstraint("length(username) <= 50", name="users_valid_username_length"),
        sa.CheckConstraint(
            "username ~* '^([A-Z0-9]|[A-Z0-9][A-Z0-9._-]*[A-Z0-9])$'", name="users_valid_username"
        ),
        sa.Index("users_by_last_login", sa.desc("last_login")),
        {"comment": "People who may publish"},
    )

    username: Mapped[str] = mapped_column(CITEXT, unique=True)
    name: Mapped[str] = mapped_column(sa.String(100), server_default="")
    is_active: Mapped[bool] = mapped_column(server_default=sa.false())
    recovery_codes: Mapped[list[str]] = mapped_column(ARRAY(sa.Text), server_default="{}")
    last_login: Mapped[datetime] = mapped_column(
        sa.TIMESTAMP(timezone=True), server_default=sa.func.now(), comment="at any device"
    )
    totp_secret: Mapped[bytes | None] = mapped_column(sa.LargeBinary(20))


class Project(Base):
    __tablename__ = "projects"
    __table_args__ = (
        sa.CheckConstraint(
            "name ~* '^([A-Z0-9]|[A-Z0-9][A-Z0-9._-]*[A-Z0-9])$'", name="projects_valid_name"
        ),
        sa.Index("projects_name_ultranormalized", sa.text("lower(replace(name, '-', ''))")),
        sa.Index(
            "projects_held", "created", postgresql_where=sa.text("held_for IS NOT NULL")
        ),
    )

    name: Mapped[str] = mapped_column(sa.Text)
    normalized_name: Mapped[str] = mapped_column(
        sa.Text,
        sa.Computed(
            "lower(regexp_replace(name, '([-_.]+)'::text, '-'::text, 'g'))", persisted=True
        ),
        unique=True,
    )
    created: Mapped[datetime | None] = mapped_column(
        sa.DateTime, index=True, server_default=sa.func.now()
    )
    held_for: Mapped[Reason | None] = mapped_column(sa.Enum(Reason))
    total_size_limit: Mapped[int | None] = mapped_column(sa.BigInteger)
    total_size: Mapped[int] = mapped_column(sa.BigInteger, server_default=sa.text("0"))

    releases: Mapped[list[Release]] = orm.relationship(
        back_populates="project", cascade="all, delete-orphan", passive_deletes=True
    )


class Membership(Base):
    __tablename__ = "roles"
    __table_args__ = (
        sa.UniqueConstraint("user_id", "project_id", name="_roles_user_project_uc"),
    )

    role: Mapped[Role] = mapped_column(sa.Enum(Role, name="role_name"))
    user_id: Mapped[uuid.UUID] = mapped_column(
        sa.ForeignKey(
            "users.id", onupdate="CASCADE", ondelete="CASCADE",
            deferrable=True, initially="DEFERRED",
        )
    )  # fmt: skip
    project_id: Mapped[uuid.UUID] = mapped_column(
        sa.ForeignKey("projects.id", onupdate="CASCADE", ondelete="CASCADE")
    )


release_classifiers = sa.Table(
    "release_classifiers",
    Base.metadata,
    sa.Column(
        "release_id",
        sa.ForeignKey("releases.id", onupdate="CASCADE", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("trove_id", sa.ForeignKey("trove_classifiers.id"), primary_key=True, index=True),
    sa.Index("rel_class_id_idx", "release_id"),
)


class Classifier(Base):
    __tablename__ = "trove_classifiers"
    __table_args__ = (
        sa.CheckConstraint(
            "classifier not ilike 'private ::%'", name="ck_disallow_private_top_level_classifier"
        ),
    )

    id: Mapped[int] = mapped_column(sa.Integer, sa.Identity(start=100), primary_key=True)
    classifier: Mapped[str | None] = mapped_column(sa.Text, unique=True)
    ordering: Mapped[int | None]


class Release(Base):
    __tablename__ = "releases"
    __table_args__ = (
        sa.UniqueConstraint("project_id", "version"),
        sa.Index("release_created_idx", sa.desc("created")),
        sa.Index("release_project_created_idx", "project_id", sa.desc("created")),
        sa.Index(
            "release_one_latest", "project_id", unique=True, postgresql_where=sa.text("latest")
        ),
        sa.Index("release_urls_idx", "urls", postgresql_using="gin"),
    )

    project_id: Mapped[uuid.UUID] = mapped_column(
        sa.ForeignKey("projects.id", onupdate="CASCADE", ondelete="CASCADE")
    )
    version: Mapped[str] = mapped_column(sa.Text)
    latest: Mapped[bool] = mapped_column(server_default=sa.false())
    requires_dist: Mapped[list[str] | None] = mapped_column(ARRAY(sa.String(255)))
    urls: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=sa.text("'{}'::jsonb"))
    created: Mapped[datetime] = mapped_column(server_default=sa.func.now())
    yanked: Mapped[bool] = mapped_column(server_default=sa.false())
    matrix: Mapped[list[list[int]] | None] = mapped_column(ARRAY(sa.Integer, dimensions=2))

    project: Mapped[Project] = orm.relationship(back_populates="releases")
    classifiers: Mapped[list[Classifier]] = orm.relationship(secondary=release_classifiers)


class Event(Base):
    """What happened, kept in a schema of its own."""

    __tablename__ = "events"
    __table_args__ = (
        sa.Index("events_from_idx", "ip", "at"),
        sa.Index("events_tagged", sa.text("(extra ->> 'tag')")),
        {"schema": "journal"},
    )

    kind: Mapped[str] = mapped_column(sa.Enum("login", "upload", name="event_kind"))
    project_id: Mapped[uuid.UUID | None] = mapped_column(
        sa.ForeignKey("projects.id", deferrable=True, initially="DEFERRED")
    )
    ip: Mapped[str | None] = mapped_column(INET)
    routes: Mapped[list[str]] = mapped_column(ARRAY(INET), server_default=sa.text("'{}'"))
    at: Mapped[datetime] = mapped_column(server_default=sa.text("now()"))
    extra: Mapped[dict[str, Any] | None] = mapped_column(JSONB)


class Ban(Base):
    __tablename__ = "bans"
    __table_args__ = (
        sa.UniqueConstraint("ip", "reason", postgresql_nulls_not_distinct=True),
        ExcludeConstraint(
            ("ip", "="), using="btree", where=sa.text("lasting"), name="bans_one_lasting"
        ),
        {"schema": "journal"},
    )

    ip: Mapped[str] = mapped_column(INET)
    reason: Mapped[Reason | None] = mapped_column(sa.Enum(Reason))
    lasting: Mapped[bool] = mapped_column(server_default=sa.false())
    span: Mapped[timedelta] = mapped_column(
        sa.Interval, server_default=sa.text("'1 day'::interval")
    )
    event_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey(Event.id))


def fill(db: Any) -> None:
    ada = User(username="Ada", recovery_codes=["a,b", '"{'])
    project = Project(name="My.Project", held_for=Reason.malware)
    db.add_all([ada, project])
    db.flush()
    db.add(Membership(role=Role.owner, user_id=ada.id, project_id=project.id))
    web = Classifier(classifier="Framework :: Noventa")
    project.releases = [
        Release(version="1.0", requires_dist=["x"], urls={"home": "https://ä"}, latest=True),
        Release(version="1.1", matrix=[[1, 2], [3, 4]], classifiers=[web]),
    ]
    seen = Event(kind="upload", project_id=project.id, ip="10.0.0.1", routes=["10.0.0.2"])
    db.add(seen)
    db.flush()
    db.add(Ban(ip="10.0.0.1", lasting=True, event_id=seen.id))


def read(db: Any) -> list[Any]:
    user = db.scalars(sa.select(User).where(User.username == "ADA")).one()
    project = db.scalars(sa.select(Project)).one()
    first, second = sorted(project.releases, key=lambda release: release.version)
    event, ban = db.scalars(sa.select(Event)).one(), db.scalars(sa.select(Ban)).one()
    return [
        (user.recovery_codes, user.is_active),
        (project.normalized_name, project.held_for, db.scalars(sa.select(Membership.role)).one()),
        (first.requires_dist, first.urls, second.matrix, second.classifiers[0].id),
        (event.kind, event.ip, event.routes, ban.span),
    ]


READ = [
    (["a,b", '"{'], False),
    ("my-project", Reason.malware, Role.owner),
    (["x"], {"home": "https://ä"}, [[1, 2], [3, 4]], 100),
    ("upload", IPv4Address("10.0.0.1"), [IPv4Address("10.0.0.2")], timedelta(days=1)),
]
