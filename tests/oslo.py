"""OpenStack's own way to publish: `oslo.messaging` in a process of its own, with the virtualenv that Neutron runs in.

It has eventlet, which must not come into ours. The virtualenv is made by `tests/lab/bootstrap.sh` (need_neutron).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.server import tied

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv-neutron/bin/python"


class Publisher:
    """One publishing process; every call returns once the message was sent."""

    def __init__(self) -> None:
        if not PYTHON.exists():
            raise FileNotFoundError(f"{PYTHON} is not there: ./check makes it")
        self._process = subprocess.Popen(
            [*tied(), str(PYTHON), "-W", "ignore", str(ROOT / "tests/oslo_publisher.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/",
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def notify(
        self,
        url: str,
        event: str,
        payload: Any,
        *,
        exchange: str = "neutron",
        driver: str = "messagingv2",
        topics: Sequence[str] = ("notifications",),
        times: int | None = None,
    ) -> None:
        """`url` as kombu takes it."""
        order = {
            "url": url.replace("amqp://", "rabbit://", 1),
            "exchange": exchange,
            "driver": driver,
            "topics": list(topics),
            "event": event,
            "payload": payload,
        } | ({} if times is None else {"times": times})
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if answer != "ok\n":
            raise RuntimeError(f"the publisher ended instead of sending {event}: {answer}")
