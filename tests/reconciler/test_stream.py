"""An event is heard in the callback that reports it, and is not lost when nobody listens yet."""

from __future__ import annotations

from reconciler.contract import Event, Scope
from reconciler.stream import EventStream

EVENT = Event(Scope("flow", "br-int"), frozenset({"a"}), "flows changed")


async def test_an_event_is_heard_before_put_returns() -> None:
    heard: list[Event] = []
    stream = EventStream()
    stream.listener = heard.append
    stream.put_nowait(EVENT)
    assert heard == [EVENT]
    assert stream.empty()


async def test_what_came_before_anybody_listened_is_still_there_to_be_got() -> None:
    heard: list[Event] = []
    stream = EventStream()
    stream.put_nowait(EVENT)
    stream.listener = heard.append
    assert heard == []
    assert await stream.get() == EVENT
