"""A job of systemd's is known by its path: others order jobs for the same unit at the same time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controllers.drivers.systemd.bus import Systemd

UNIT, OURS, OTHERS = "web.service", "/org/freedesktop/systemd1/job/8", "/org/freedesktop/systemd1/job/7"
pytestmark = pytest.mark.looptime


class Scripted(Systemd):
    """Answers an order with job `OURS`; `before` and `after` are the jobs that end before and after the answer."""

    def __init__(self, before: list[tuple[str, str]], after: list[tuple[str, str]]) -> None:
        super().__init__(lambda _names, _why: None, timeout=5.0)
        self._before, self._after = before, after

    async def _call(self, *_order: Any, **_more: Any) -> Any:
        for job, result in self._before:
            self._job_removed(job, UNIT, result)
        for number, (job, result) in enumerate(self._after, 1):
            asyncio.get_running_loop().call_later(0.1 * number, self._job_removed, job, UNIT, result)
        return [OURS]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ([], [(OTHERS, "canceled"), (OURS, "done")], "done"),
        ([(OTHERS, "done")], [(OURS, "failed")], "failed"),
        ([(OTHERS, "done"), (OURS, "done")], [], "done"),
        ([(OTHERS, "done")], [(OTHERS, "done")], ""),
    ],
    ids=["another's is cancelled first", "another's ended before the answer", "ours did", "ours never does"],
)
async def test_the_end_of_another_s_job_is_not_that_of_ours(
    before: list[tuple[str, str]], after: list[tuple[str, str]], said: str
) -> None:
    driver = Scripted(before, after)
    assert await driver.stop(UNIT, 1.0) == said
    assert not driver._jobs
