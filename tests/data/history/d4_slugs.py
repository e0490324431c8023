"""slugs

Revision ID: d4
Revises: c3
"""

from typing import Sequence, Union

import sqlalchemy as sa
from alembic import op

revision: str = "d4"
down_revision: Union[str, None] = "c3"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    op.add_column("users", sa.Column("slug", sa.String(length=128), nullable=True))
    op.create_index(op.f("ix_users_slug"), "users", ["slug"])
    users = sa.table("users", sa.column("id"), sa.column("name"), sa.column("slug"))
    connection = op.get_bind()
    for user in connection.execute(sa.select(users)).fetchall():
        slug = user.name.lower().replace(" ", "-")
        connection.execute(users.update().where(users.c.id == user.id).values(slug=slug))


def downgrade() -> None:
    op.drop_index(op.f("ix_users_slug"), table_name="users")
    op.drop_column("users", "slug")
