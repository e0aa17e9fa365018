"""The first schema: revisions and their resources, the journal, statuses, pauses, approvals."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UNICODE: dict[str, Any] = {
    f"{dialect}_{name}": value
    for dialect in ("mysql", "mariadb")
    for name, value in (("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}
ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    _desired()
    _journal()
    _conditions()


def _desired() -> None:
    op.create_table(
        "revision",
        sa.Column("node", sa.String(255), nullable=False),
        sa.Column("revision", sa.String(64), nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("applied", sa.Double),
        sa.Column("resources", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("node", "revision", name="pk_revision"),
        **UNICODE,
    )
    op.create_index("ix_revision_node_seq", "revision", ["node", "seq"])
    op.create_table(
        "resource",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("node", sa.String(255), nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("until", sa.BigInteger),
        sa.Column("digest", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("line", sa.Integer, nullable=False),
        sa.Column("column", sa.Integer, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_resource"),
        **UNICODE,
    )
    op.create_index("ix_resource_node_until", "resource", ["node", "until"])


def _journal() -> None:
    op.create_table(
        "journal",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("node", sa.String(255), nullable=False),
        sa.Column("pass_id", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("trigger", sa.Text, nullable=False),
        sa.Column("revision", sa.String(64), nullable=False),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("since_event", sa.Double, nullable=False),
        sa.Column("actions", sa.Integer, nullable=False),
        sa.Column("findings", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_journal"),
        **UNICODE,
    )
    op.create_index("ix_journal_node_id", "journal", ["node", "id"])
    op.create_index("ix_journal_node_at", "journal", ["node", "at"])
    op.create_index("ix_journal_node_pass_id", "journal", ["node", "pass_id"])
    op.create_table(
        "journal_line",
        sa.Column("journal_id", ROW_ID, nullable=False),
        sa.Column("part", sa.String(8), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("resource_key", sa.BigInteger),
        sa.Column("resource", sa.Text),
        sa.Column("verb", sa.String(32)),
        sa.Column("why", sa.Text),
        sa.Column("before", sa.Text),
        sa.Column("after", sa.Text),
        sa.Column("result", sa.String(32)),
        sa.Column("detail", sa.Text),
        sa.Column("gate", sa.String(64)),
        sa.Column("more", sa.JSON),
        sa.PrimaryKeyConstraint("journal_id", "part", "position", name="pk_journal_line"),
        sa.ForeignKeyConstraint(["journal_id"], ["journal.id"], name="fk_journal_line_journal_id", ondelete="CASCADE"),
        **UNICODE,
    )
    op.create_index("ix_journal_line_resource_key_journal_id", "journal_line", ["resource_key", "journal_id"])


def _conditions() -> None:
    op.create_table(
        "status",
        sa.Column("node", sa.String(255), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("resource", sa.Text, nullable=False),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("gate", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("node", "position", name="pk_status"),
        **UNICODE,
    )
    op.create_table(
        "pause",
        sa.Column("node", sa.String(255), nullable=False),
        sa.Column("what_key", sa.String(32), nullable=False),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("until", sa.Double),
        sa.Column("by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("node", "what_key", name="pk_pause"),
        **UNICODE,
    )
    op.create_table(
        "approval",
        sa.Column("node", sa.String(255), nullable=False),
        sa.Column("revision", sa.String(64), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("node", "revision", name="pk_approval"),
        **UNICODE,
    )
