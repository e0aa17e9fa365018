"""Fixtures shared by all tests: a private Open vSwitch (for a test or a module), RabbitMQ, databases, Neutron.

They need root and their binaries and fail, saying so, without: a suite that tests nothing must not pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import hypothesis
import pytest

from tests.mariadb import MariadbServer
from tests.neutron import NeutronServer
from tests.ovs import PrivateOvs
from tests.postgres import PostgresServer
from tests.rabbitmq import RabbitServer

hypothesis.settings.register_profile("shared", suppress_health_check=[hypothesis.HealthCheck.too_slow], deadline=None)
hypothesis.settings.load_profile("shared")
"""How long an example takes says how busy the machine is, not what is wrong with the code."""


NEUTRON = "neutron"
LONGEST = (NEUTRON, "tests/lab/", "tests/functional/")
"""What takes longest comes first: then the many small files at the end keep all test processes busy until the last."""


def pytest_configure(config: pytest.Config) -> None:
    """Say that no event loop is current: pytest-asyncio would have Python 3.11 make one, and never close it.

    And have pytest-xdist keep our order. Its own is by the number of tests, and a whole node has few and long ones.
    """
    asyncio.set_event_loop(None)
    config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With ``--dist loadgroup`` a file stays in one process, so that what its module starts is started once.

    All that need a Neutron server stay together: it takes longer to start than most files to run.
    """
    groups = {item: group_of(item) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: [not groups[item].startswith(long) for long in LONGEST])


def group_of(item: pytest.Item) -> str:
    return NEUTRON if "neutron_server" in getattr(item, "fixturenames", ()) else item.nodeid.partition("::")[0]


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
