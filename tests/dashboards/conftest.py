"""The node of the functional tests, here as well."""

from tests.functional.conftest import node_module

__all__ = ["node_module"]
