"""A vhost for each test, and the settings of a node that listens there."""

from __future__ import annotations

from itertools import count

import pytest

from reconciler.settings_sections import AmqpSettings
from tests.rabbitmq import RabbitServer

QUEUE = "reconciler.node-1"
_NUMBERS = count()


@pytest.fixture
def url(rabbit_server: RabbitServer) -> str:
    """A vhost of its own for each test."""
    rabbit_server.start()
    vhost = f"cloud {next(_NUMBERS)}"
    rabbit_server.add_vhost(vhost)
    rabbit_server.allow("guest", vhost)
    return rabbit_server.url(vhost=vhost)


@pytest.fixture
def settings(url: str) -> AmqpSettings:
    """As a node has them, with an exchange of our own making."""
    return AmqpSettings(url=url, queue=QUEUE, declare_exchanges=True)
