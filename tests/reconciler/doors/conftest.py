"""A node behind real sockets, in the test's own loop."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from reconciler.doors.client import ControlClient
from reconciler.doors.control import ControlServer
from reconciler.metrics import Metrics
from tests.mosquitto import Mosquitto
from tests.reconciler.doors.fakes import FakeNode


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name."""
    path = Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(controllers=("ovsdb",), kinds=("port",))


@pytest.fixture
async def control(short_dir: Path, node: FakeNode, metrics: Metrics) -> AsyncIterator[ControlServer]:
    server = ControlServer(short_dir / "control.sock", node, metrics)
    await server.start()
    yield server
    await server.close()


@pytest.fixture
def client(short_dir: Path) -> ControlClient:
    return ControlClient(short_dir / "control.sock")


@pytest.fixture
def mosquitto() -> Iterator[Mosquitto]:
    """An MQTT broker for this test alone."""
    broker = Mosquitto()
    yield broker
    broker.close()
