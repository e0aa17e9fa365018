"""What the larger benchmarks declare: nodes of a given size, as YAML."""

from __future__ import annotations

from tests.benchmarks.drift_flows import flow_texts


def node(*, flows: int, pairs: int) -> str:
    """Two bridges joined by so many patch pairs (two ports each), and so many flows on br-int."""
    patches = "\n".join(f"  - {{br-int: pt{n}, br-tun: pi{n}}}" for n in range(max(1, pairs)))
    head = f"bridges:\n  br-int: {{}}\n  br-tun: {{}}\npatches:\n{patches}\n"
    return head + (flow_texts(flows) if flows else "")
