"""What a message from OpenStack says: both envelopes of oslo.messaging opened, as a `Notice` of one event. Pure.

Nothing of a message is trusted. What cannot be read raises `Garbage`, whose `what` is one of few words (a reader
counts and logs by it). Called in the thread of the source, so that the event loop never decodes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

LARGEST = 4 * 1024 * 1024
"""Bytes of a message; a bulk create of a thousand ports has about one MiB."""

_EVENT = re.compile(r"[a-z0-9_.:-]{1,100}", re.IGNORECASE)
_WANTED = re.compile(r"(network|subnet|port|router|floatingip)\.((create|update|delete)\.end|interface\.\w+)")


class Garbage(ValueError):
    """A message that is no notification. `what` says why, in words that do not depend on its content."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


@dataclass(frozen=True, slots=True)
class Notice:
    """One notification. `at` is when it was sent, in seconds since 1970 by the sender's clock.

    `key` tells duplicates apart. The payload of an event that nobody here wants is empty.
    """

    event: str
    at: float
    key: str
    payload: Mapping[str, Any]


def parse(body: bytes | str | memoryview, heard: float) -> Notice:
    """Open a message that was `heard` then (seconds since 1970). Raises Garbage."""
    outer = _object(body, "no JSON")
    if "oslo.message" in outer:
        inner = outer["oslo.message"]
        outer = inner if isinstance(inner, dict) else _object(inner, "an envelope without JSON in it")
    event = outer.get("event_type")
    if not isinstance(event, str) or not _EVENT.fullmatch(event):
        raise Garbage("no event_type")
    key = outer.get("_unique_id") or outer.get("message_id")
    payload = outer.get("payload") if _WANTED.fullmatch(event) else {}
    if not isinstance(payload, dict):
        raise Garbage("a payload that is no object")
    sent = timestamp(outer.get("timestamp"))
    return Notice(event, heard if sent is None else sent, key if isinstance(key, str) else "", payload)


def timestamp(text: Any) -> float | None:
    """Seconds since 1970 of ``2026-05-28 12:00:00.123456`` or ``2026-05-28T12:00:00Z`` (UTC); None if it is neither."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (OverflowError, ValueError):
        return None


def _object(text: Any, otherwise: str) -> dict[str, Any]:
    if not isinstance(text, bytes | str | memoryview):
        raise Garbage(otherwise)
    if len(text) > LARGEST:
        raise Garbage(f"more than {LARGEST // 1024 // 1024} MiB")
    try:
        found = json.loads(bytes(text) if isinstance(text, memoryview) else text)
    except (ValueError, RecursionError) as error:
        raise Garbage(otherwise) from error
    if not isinstance(found, dict):
        raise Garbage("no JSON object")
    return found
