"""Recipes of households, in the manner of Mealie: its own GUID, many tables between two others."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.orderinglist import ordering_list
from sqlalchemy.orm import Mapped, mapped_column


class GUID(sa.TypeDecorator[uuid.UUID]):
    """UUID on PostgreSQL, elsewhere 32 characters."""

    impl = sa.CHAR
    cache_ok = True

    def load_dialect_impl(self, dialect: Any) -> Any:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.UUID())
        return dialect.type_descriptor(sa.CHAR(32))

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        if value is None:
            return value
        value = value if isinstance(value, uuid.UUID) else uuid.UUID(value)
        return str(value) if dialect.name == "postgresql" else value.hex

    def process_result_value(self, value: Any, _: Any) -> Any:
        return value if value is None or isinstance(value, uuid.UUID) else uuid.UUID(value)


class UTCTime(sa.TypeDecorator[datetime]):
    """Stored without a zone, in UTC; read with one."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: Any, _: Any) -> Any:
        return value and value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, _: Any) -> Any:
        return value and value.replace(tzinfo=UTC)


class Base(orm.DeclarativeBase):
    id: Mapped[uuid.UUID] = mapped_column(GUID, primary_key=True, default=uuid.uuid4)
    created_at: Mapped[datetime | None] = mapped_column(
        UTCTime, default=lambda: datetime.now(UTC), index=True
    )


def between(name: str, left: str, right: str, *, unique: str | None = None) -> sa.Table:
    keys = [
        sa.Column(f"{table.removesuffix('s')}_id", GUID, sa.ForeignKey(f"{table}.id"), index=True)
        for table in (left, right)
    ]
    rule = [sa.UniqueConstraint(*(key.name for key in keys), name=unique)] if unique else []
    return sa.Table(name, Base.metadata, *keys, *rule)


recipes_to_tags = between("recipes_to_tags", "recipes", "tags", unique="recipe_tag_key")
plan_rules_to_tags = between("plan_rules_to_tags", "plan_rules", "tags", unique="plan_tag_key")
favourites = between("users_to_favourites", "users", "recipes")


class Group(Base):
    __tablename__ = "groups"

    name: Mapped[str] = mapped_column(sa.String(120), unique=True, index=True)
    slug: Mapped[str | None] = mapped_column(sa.String(120), unique=True, index=True)


class User(Base):
    __tablename__ = "users"

    email: Mapped[str | None] = mapped_column(sa.String(254), unique=True, index=True)
    login: Mapped[str] = mapped_column(
        sa.Enum("password", "ldap", "oidc", name="login_method"), default="password"
    )
    admin: Mapped[bool | None] = mapped_column(default=False)
    group_id: Mapped[uuid.UUID] = mapped_column(GUID, sa.ForeignKey("groups.id"), index=True)
    favourites: Mapped[list[Recipe]] = orm.relationship(secondary=favourites)


class Tag(Base):
    __tablename__ = "tags"

    name: Mapped[str] = mapped_column(sa.String(120), index=True)


class Food(Base):
    __tablename__ = "foods"

    name: Mapped[str | None] = mapped_column(sa.String(120))
    plural: Mapped[str | None] = mapped_column(sa.String(120))
    aliases: Mapped[list[Alias]] = orm.relationship(cascade="all, delete, delete-orphan")


class Alias(Base):
    __tablename__ = "food_aliases"
    __table_args__ = (sa.PrimaryKeyConstraint("id", "food_id"),)

    id: Mapped[uuid.UUID] = mapped_column(GUID, default=uuid.uuid4)
    food_id: Mapped[uuid.UUID] = mapped_column(GUID, sa.ForeignKey("foods.id"))
    name: Mapped[str] = mapped_column(sa.String(120), index=True)


class Recipe(Base):
    __tablename__ = "recipes"
    __table_args__ = (sa.UniqueConstraint("slug", "group_id", name="recipe_slug_group_id_key"),)

    slug: Mapped[str | None] = mapped_column(sa.String(120), index=True)
    name: Mapped[str] = mapped_column(sa.String(250))
    note: Mapped[str | None] = mapped_column(sa.Text)
    servings: Mapped[float] = mapped_column(sa.Float, default=0, server_default="0", index=True)
    calories: Mapped[str | None] = mapped_column(sa.String)
    day: Mapped[date | None]
    last_made: Mapped[datetime | None] = mapped_column(UTCTime)
    group_id: Mapped[uuid.UUID] = mapped_column(GUID, sa.ForeignKey("groups.id"), index=True)
    user_id: Mapped[uuid.UUID | None] = mapped_column(
        GUID, sa.ForeignKey("users.id", use_alter=True), index=True
    )
    parts: Mapped[list[Part]] = orm.relationship(
        cascade="all, delete-orphan",
        order_by="Part.position",
        collection_class=ordering_list("position"),
        foreign_keys="Part.recipe_id",
    )
    tags: Mapped[list[Tag]] = orm.relationship(secondary=recipes_to_tags)


class Part(Base):
    __tablename__ = "recipe_parts"

    position: Mapped[int | None] = mapped_column(sa.Integer, index=True)
    quantity: Mapped[float | None]
    recipe_id: Mapped[uuid.UUID | None] = mapped_column(GUID, sa.ForeignKey("recipes.id"))
    food_id: Mapped[uuid.UUID | None] = mapped_column(GUID, sa.ForeignKey("foods.id"), index=True)
    made_by_id: Mapped[uuid.UUID | None] = mapped_column(
        GUID, sa.ForeignKey("recipes.id"), index=True
    )
    food: Mapped[Food | None] = orm.relationship()


class PlanRule(Base):
    __tablename__ = "plan_rules"

    day: Mapped[str] = mapped_column(sa.String(20), server_default="unset")
    query: Mapped[str] = mapped_column(sa.String(500), server_default="")
    active: Mapped[bool | None] = mapped_column(server_default=sa.true())
    tags: Mapped[list[Tag]] = orm.relationship(secondary=plan_rules_to_tags)


AT = datetime(2024, 2, 29, 12, 30, tzinfo=UTC)


def fill(db: Any) -> None:
    group = Group(name="home", slug="home")
    db.add(group)
    db.flush()
    recipe = Recipe(
        id=uuid.UUID(int=7), slug="soup", name="Süppchen 🍲", group_id=group.id, last_made=AT
    )
    recipe.parts = [
        Part(quantity=1.5, food=Food(name="leek", aliases=[Alias(name="porree")])),
        Part(quantity=2),
    ]
    recipe.parts.insert(0, Part(quantity=0.25))
    recipe.tags = [Tag(name="warm"), Tag(name="cheap")]
    db.add(User(email="ada@x.org", group_id=group.id, login="oidc", favourites=[recipe]))
    db.add(PlanRule(tags=recipe.tags[:1]))


def read(db: Any) -> list[Any]:
    recipe = db.get(Recipe, uuid.UUID(int=7))
    user = db.scalars(sa.select(User)).one()
    rule = db.scalars(sa.select(PlanRule)).one()
    return [
        (recipe.name, recipe.servings, recipe.last_made),
        [part.quantity for part in recipe.parts],
        recipe.parts[1].food.aliases[0].name,
        sorted(tag.name for tag in recipe.tags),
        (user.login, user.favourites == [recipe]),
        (rule.day, rule.query, rule.active, rule.tags[0].name),
    ]


READ = [
    ("Süppchen 🍲", 0, AT), [0.25, 1.5, 2], "porree", ["cheap", "warm"], ("oidc", True),
    ("unset", "", True, "warm"),
]  # fmt: skip
