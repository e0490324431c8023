"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision or "nothing" | comma,n}
Create Date: ${create_date}
"""
<%
    body = f"{upgrades or ''} {downgrades or ''}"
    unused = "" if body.strip() else "  # noqa: F401"
%>
% if unused or "sa." in body:
import sqlalchemy as sa${unused}
% endif
% if unused or "op." in body:
from alembic import op${unused}
% endif
${imports if imports else ""}
revision: str = ${repr(up_revision)}
down_revision: str | tuple[str, ...] | None = ${repr(down_revision)}
branch_labels: str | tuple[str, ...] | None = ${repr(branch_labels)}
depends_on: str | tuple[str, ...] | None = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
