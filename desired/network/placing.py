"""On which of several nodes a thing lives that was put on none: always the same one, while it is there.

Rendezvous hashing: each node has a score for each thing and the highest wins, so that a node that comes or goes moves
only what is its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def ranked(key: str, nodes: Iterable[str]) -> list[str]:
    """The nodes in the order in which they would serve `key`."""
    salt = key.encode()
    return sorted(nodes, key=lambda node: (_score(salt, node), node), reverse=True)


def placed(key: str, nodes: Iterable[str]) -> str:
    """The node that serves `key`, '' when there is none."""
    return next(iter(ranked(key, nodes)), "")


def _score(salt: bytes, node: str) -> bytes:
    return hashlib.blake2b(salt + b"\0" + node.encode(), digest_size=8).digest()
