"""awards go with their user

Revision ID: b2
Revises: a1
"""

from typing import Sequence, Union

import sqlalchemy as sa
from alembic import op

revision: str = "b2"
down_revision: Union[str, None] = "a1"
branch_labels: Union[str, Sequence[str], None] = None
depends_on: Union[str, Sequence[str], None] = None


def upgrade() -> None:
    url = str(op.get_bind().engine.url)
    if url.startswith("sqlite"):
        names = {"fk": "fk_%(table_name)s_%(column_0_name)s"}
        with op.batch_alter_table("awards", naming_convention=names) as batch_op:
            batch_op.drop_constraint("fk_awards_user_id", type_="foreignkey")
            batch_op.create_foreign_key(
                "fk_awards_user_id", "users", ["user_id"], ["id"], ondelete="CASCADE"
            )
        return
    old = "awards_ibfk_1" if url.startswith("mysql") else "awards_user_id_fkey"
    op.drop_constraint(old, "awards", type_="foreignkey")
    op.create_foreign_key(None, "awards", "users", ["user_id"], ["id"], ondelete="CASCADE")


def downgrade() -> None:
    pass
