"""names are unique

Revision ID: c3
Revises: b2
"""

from typing import Sequence, Union

import sqlalchemy as sa
from alembic import op

revision: str = "c3"
down_revision: Union[str, None] = "b2"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    with op.batch_alter_table("awards") as batch_op:
        batch_op.alter_column(
            "name", new_column_name="title", existing_type=sa.String(length=80)
        )
    if op.get_bind().dialect.name == "sqlite":
        with op.batch_alter_table("users") as batch_op:
            batch_op.create_unique_constraint("unique_name", ["name"])
    else:
        op.create_unique_constraint(None, "users", ["name"])


def downgrade() -> None:
    name = {"sqlite": "unique_name", "postgresql": "users_name_key"}
    with op.batch_alter_table("users") as batch_op:
        batch_op.drop_constraint(name.get(op.get_bind().dialect.name, "name"), type_="unique")
    with op.batch_alter_table("awards") as batch_op:
        batch_op.alter_column(
            "title", new_column_name="name", existing_type=sa.String(length=80)
        )
