"""A tree of YAML for one node whose roles its model may say: `desired.schema.load_tree`, once more with these."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from desired.network.model import NodeSpec
from desired.resource import ResourceId
from desired.schema import Cache, Loaded, Section, load_tree


def load(
    path: str | Path, *, node: str, roles: frozenset[str], sections: Sequence[Section], cache: Cache | None = None
) -> Loaded:
    """Load what is declared for `node`, whose roles are those given and those of its entry in the model."""
    cache = Cache() if cache is None else cache
    loaded = load_tree(path, node=node, roles=roles, sections=sections, cache=cache)
    own = ResourceId(NodeSpec.kind, node)
    more = {
        role
        for resource in loaded.resources
        if resource.id == own and isinstance(resource.spec, NodeSpec)
        for role in resource.spec.roles
    }
    if more <= roles:
        return loaded
    return load_tree(path, node=node, roles=roles | more, sections=sections, cache=cache)
