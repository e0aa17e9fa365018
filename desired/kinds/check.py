"""Checks that repair nothing: conditions of a node, seen in its status, its metrics and its alerts."""

from __future__ import annotations

import hashlib
from typing import Annotated, ClassVar

from pydantic import Field

from desired.kinds.probe import Probe, Seconds
from desired.resource import Spec


class CheckSpec(Spec, Probe):
    """One question, asked again and again. Failing, it is a condition of the node and no more."""

    kind: ClassVar[str] = "check"

    interval: Seconds = Field(60.0, description="Seconds between two questions.")
    timeout: Seconds = Field(10.0, description="Seconds that an answer may take.")
    failures: Annotated[int, Field(ge=1, le=100)] = Field(2, description="Bad answers in a row that are a failure.")

    def generation(self) -> int:
        """As of every spec, and of the URL with its password, which no dump contains."""
        hidden = repr((self.amqp, self.sql))
        digest = hashlib.blake2b(f"{self.model_dump_json()}\0{hidden}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1
