"""What is kept, as tables. Every row belongs to a node, so that a fleet can share one database.

`desired/migrations` builds the same in steps; a test holds the two equal. Names of resources (whole flows) may have
hundreds of characters, which neither MariaDB nor PostgreSQL can index: where a row is found by such a name, a
hash of it is the key and the name itself is compared afterwards. Wall-clock times are seconds since 1970.
"""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

HEAD = "0002"
"""The schema this program works with: the newest file in `desired/migrations/versions`."""

KNOWN = ("0001", HEAD)
"""All schemas this program can upgrade from, oldest first. Anything else was made by a newer program."""

VERSION_TABLE = "alembic_version"

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)

_ROW_ID = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself in an INTEGER column only

UNICODE: dict[str, Any] = {
    f"{dialect}_{name}": value
    for dialect in ("mysql", "mariadb")
    for name, value in (("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}
"""Given to every table: what the database's default is (latin1, and A equal to a) is not what names need."""

revision = Table(
    "revision",
    metadata,
    Column("node", String(255), primary_key=True),
    Column("revision", String(64), primary_key=True),
    Column("seq", BigInteger, nullable=False),  # grows each time a revision becomes the current one
    Column("at", Double, nullable=False),
    Column("author", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("applied", Double),
    Column("resources", Integer, nullable=False),
    Index(None, "node", "seq"),
    **UNICODE,
)

# A resource is of all revisions with since <= seq < until; until is NULL in what is declared now. So a revision that
# changes one flow of ten thousand writes two rows.
resource = Table(
    "resource",
    metadata,
    Column("id", _ROW_ID, primary_key=True),
    Column("node", String(255), nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("until", BigInteger),
    Column("digest", String(32), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("name", Text, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("source", Text, nullable=False),
    Column("file", Text, nullable=False),
    Column("line", Integer, nullable=False),
    Column("column", Integer, nullable=False),
    Column("path", Text, nullable=False),
    Index(None, "node", "until"),
    **UNICODE,
)

journal = Table(
    "journal",
    metadata,
    Column("id", _ROW_ID, primary_key=True),
    Column("node", String(255), nullable=False),
    Column("pass_id", BigInteger, nullable=False),  # not unique: it starts again when the store was away at a start
    Column("at", Double, nullable=False),
    Column("scope", Text, nullable=False),
    Column("trigger", Text, nullable=False),
    Column("revision", String(64), nullable=False),
    Column("outcome", String(32), nullable=False),
    Column("seconds", Double, nullable=False),
    Column("since_event", Double, nullable=False),
    Column("actions", Integer, nullable=False),  # how many lines of either part
    Column("findings", Integer, nullable=False),
    Index(None, "node", "id"),
    Index(None, "node", "at"),
    Index(None, "node", "pass_id"),
    **UNICODE,
)

journal_line = Table(
    "journal_line",
    metadata,
    Column("journal_id", ForeignKey("journal.id", ondelete="CASCADE"), primary_key=True),
    Column("part", String(8), primary_key=True),  # action or finding
    Column("position", Integer, primary_key=True),
    Column("resource_key", BigInteger),
    Column("resource", Text),
    Column("verb", String(32)),
    Column("why", Text),
    Column("before", Text),
    Column("after", Text),
    Column("result", String(32)),
    Column("detail", Text),
    Column("gate", String(64)),
    Column("more", JSON(none_as_null=True)),  # what else the mapping had
    Index(None, "resource_key", "journal_id"),
    **UNICODE,
)

status = Table(
    "status",
    metadata,
    Column("node", String(255), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("resource", Text, nullable=False),
    Column("outcome", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("since", Double, nullable=False),
    Column("gate", String(64), nullable=False),
    **UNICODE,
)

pause = Table(
    "pause",
    metadata,
    Column("node", String(255), primary_key=True),
    Column("what_key", String(32), primary_key=True),
    Column("what", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("until", Double),
    Column("by", Text, nullable=False),
    **UNICODE,
)

approval = Table(
    "approval",
    metadata,
    Column("node", String(255), primary_key=True),
    Column("revision", String(64), primary_key=True),
    Column("at", Double, nullable=False),
    Column("by", Text, nullable=False),
    **UNICODE,
)

# Objects of other systems as they were last known, each on every node by itself: a node that starts without its
# sources has nobody else to ask.
mirror = Table(
    "mirror",
    metadata,
    Column("node", String(255), primary_key=True),
    Column("source", String(64), primary_key=True),
    Column("kind", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("body", JSON(none_as_null=True)),  # NULL: deleted, and that is remembered
    Column("at", Double, nullable=False),
    Column("revision", BigInteger),
    Column("more", JSON(none_as_null=True)),
)


def resource_key(node: str, name: str) -> int:
    """A 63-bit key of one node's resource ``KIND/NAME``; the name is compared as well, so a collision does no harm."""
    digest = hashlib.blake2b(f"{node}\0{name}".encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def text_key(text: str) -> str:
    """32 hex digits that stand for `text` in a primary key."""
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=16).hexdigest()
