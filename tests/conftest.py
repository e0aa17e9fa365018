"""Fixtures shared by all tests: a private Open vSwitch (for a test or a module), RabbitMQ, databases, Neutron.

They need root and their binaries and fail, saying so, without: a suite that tests nothing must not pass.
"""

from __future__ import annotations

import asyncio
import functools
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.mariadb import MariadbServer
from tests.neutron import NeutronServer
from tests.ovs import PrivateOvs
from tests.postgres import PostgresServer
from tests.rabbitmq import RabbitServer

hypothesis.settings.register_profile("shared", suppress_health_check=[hypothesis.HealthCheck.too_slow], deadline=None)
hypothesis.settings.load_profile("shared")
"""How long an example takes says how busy the machine is, not what is wrong with the code."""


ROOT = Path(__file__).parents[1]
NEUTRON = "neutron"
LONGEST = (NEUTRON, "tests/lab/", "tests/functional/")
"""What takes longest comes first: then the many small files at the end keep all test processes busy until the last."""


def pytest_configure(config: pytest.Config) -> None:
    """Say that no event loop is current: pytest-asyncio would have Python 3.11 make one, and never close it.

    And have pytest-xdist keep our order. Its own is by the number of tests, and a whole node has few and long ones.
    Ctrl-C is tested: a shell that runs us in the background has us, and what we start, ignore it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    asyncio.set_event_loop(None)
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    groups = {item: group_of(item.nodeid) for item in items}
    items.sort(key=lambda item: [not groups[item].startswith(long) for long in LONGEST])


class Groups(LoadScopeScheduling):
    """A file stays in one process, so that what its module starts is started once."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Groups:
    """Instead of ``--dist loadgroup``: with pytest 9.2 its marks do not reach the process that deals out the tests."""
    return Groups(config, log)


@functools.cache
def group_of(nodeid: str) -> str:
    """The file; all that need a Neutron server stay together: it takes longer to start than most files to run."""
    file = nodeid.partition("::")[0]
    return NEUTRON if "neutron_server" in (ROOT / file).read_text(encoding="utf-8") else file


@pytest.fixture
def ovs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateOvs]:
    """A fresh Open vSwitch with no bridge, for this test alone."""
    with PrivateOvs(tmp_path_factory.mktemp("ovs")) as switch:
        yield switch


@pytest.fixture(scope="module")
def ovs_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateOvs]:
    """One Open vSwitch for all tests of a module; they use bridges of different names."""
    with PrivateOvs(tmp_path_factory.mktemp("ovs")) as switch:
        yield switch


@pytest.fixture(scope="session")
def rabbit_server() -> Iterator[RabbitServer]:
    """The broker of this test process; tests that stop it have to start it again, or make their own."""
    server = RabbitServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The database server of this test process; tests that stop it have to start it again, or make their own."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """The URL of a fresh database."""
    return postgres_server.url(postgres_server.create_database())


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariadbServer]:
    """The database server of this test process; tests that stop it have to start it again, or make their own."""
    server = MariadbServer()
    yield server
    server.close()


@pytest.fixture
def mariadb_url(mariadb_server: MariadbServer) -> str:
    """The URL of a fresh database."""
    return mariadb_server.url(mariadb_server.create_database())


@pytest.fixture(scope="session")
def neutron_server(rabbit_server: RabbitServer, mariadb_server: MariadbServer) -> Iterator[NeutronServer]:
    """The server of this test process, seven to a page; tests that stop it have to start it again."""
    server = NeutronServer(rabbit_server, mariadb_server, page=7)
    yield server
    server.close()
