"""Fixtures of the functional tests: one node with its own Open vSwitch, for a test or for a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.functional.daemon import Node
from tests.ovs import PrivateOvs


@pytest.fixture
def node(ovs: PrivateOvs) -> Iterator[Node]:
    """A node whose daemon is not started yet. At the end, the daemon must have had no surprise."""
    node = Node(ovs)
    yield node
    assert node.crashes() == []


@pytest.fixture(scope="module")
def node_module(ovs_module: PrivateOvs) -> Iterator[Node]:
    """One node for all tests of a module."""
    node = Node(ovs_module)
    yield node
    assert node.crashes() == []
