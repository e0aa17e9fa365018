"""The mirror of another system's objects: what notifications and full reads told of them."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mirror",
        sa.Column("node", sa.String(255), nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("body", sa.JSON),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("revision", sa.BigInteger),
        sa.Column("more", sa.JSON),
        sa.PrimaryKeyConstraint("node", "source", "kind", "name", name="pk_mirror"),
    )
