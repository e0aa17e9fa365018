"""Puts the questions of `desired.network.trace` to this node, by its own tools; nothing of the node is changed."""
