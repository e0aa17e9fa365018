"""Short turns on the real scheduler, in a thread of its own."""

from __future__ import annotations

import os
import threading

from reconciler.promptness import TURN, take_short_turns, turn_taken


def _since(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("-", maxsplit=1)[0].split(".")[:2])


ASKED = TURN if _since(os.uname().release) >= (6, 12) else 0.0
"""A kernel before that accepts the request and knows no turn but its own."""


def test_one_thread_takes_short_turns_and_keeps_its_niceness() -> None:
    before, found = turn_taken(), []

    def repairing() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 3)
        take_short_turns()
        found.append(turn_taken())

    thread = threading.Thread(target=repairing)
    thread.start()
    thread.join()
    assert found == [(ASKED, 3)]
    assert turn_taken() == before
