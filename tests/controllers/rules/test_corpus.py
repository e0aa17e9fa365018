"""Every match and target extension that this iptables and this kernel accept: installed once, never again."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

from controllers.drivers.iptables.rules import Variant
from reconciler.contract import Outcome
from tests.controllers.drivers.iptables import corpus
from tests.controllers.rules.support import Bench, inside, sh

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu/xtables")
NOT_EXTENSIONS = {"standard", "NAT", "tcp", "udp"}

SETS = {"--match-set", "--add-set"}
"""The YAML refuses rules with an ipset (DESIGN.md of the rules): they are not counted."""


def document() -> str:
    raw: dict[str, dict[str, list[dict[str, str]]]] = {"filter": {"reconciler-x": [{"rule": "-j RETURN"}]}}
    raw["filter"]["reconciler-x"].append({"rule": "-j RETURN", "family": "ipv6"})
    for family in ("ipv4", "ipv6"):
        for table, chain, rule in corpus.rules(family):
            if "neutron" not in rule and not SETS & {*rule.split()}:
                raw.setdefault(table, {}).setdefault(chain, []).append({"rule": rule, "family": family})
    return json.dumps({"rules": {"q1": {"raw": raw}}})


async def whole_corpus(variant: Variant) -> tuple[Bench, Counter, dict[str, set[str]]]:
    sh("ip netns add q1")
    counts: Counter[str] = Counter()
    refused: dict[str, set[str]] = {"ipv4": set(), "ipv6": set()}
    async with Bench(variant) as bench:
        bench.declare(document())
        bench.gates.rate._node.rate = 1e9
        result = await bench.run("q1")
        for finding in result.findings:
            assert finding.outcome is Outcome.FAILED
            counts["refused"] += 1
            family = "ipv6" if "/ipv6 " in finding.resource.name else "ipv4"
            refused[family] |= corpus.extensions(finding.resource.name) - NOT_EXTENSIONS
            print(f"refused: {finding.resource.name}: {finding.reason}", file=sys.stderr)
        for failure in result.failed:
            print(f"failed: {failure.change.resource}: {failure.error}", file=sys.stderr)
        assert not result.failed
        counts["accepted"] = len(bench.resources) - counts["refused"]
        print("second round needed for:", len(result.left))
        again = await bench.run("q1")
        changes = [(str(c.resource), c.why) for g in again.plan.groups for c in g.changes]
        assert not changes, (len(changes), changes[:10])
        counts["odd forms"] = len(bench.controller._namespaces["q1"].forms)
    async with Bench(variant) as fresh:
        fresh.declare(document())
        again = await fresh.run("q1")
        changes = [(str(c.resource), c.why) for g in again.plan.groups for c in g.changes]
        counts["rewritten after a restart"] = len(changes)
        assert not changes, changes[:10]
    return bench, counts, refused


@inside
async def test_every_extension_is_installed_once_and_never_again():
    _, counts, refused = await whole_corpus(Variant.NFT)
    report(counts, refused)
    assert counts["accepted"] > 300


@inside
async def test_with_iptables_legacy_too():
    _, counts, refused = await whole_corpus(Variant.LEGACY)
    report(counts, refused)
    assert counts["accepted"] > 300


def report(counts: Counter, refused: dict[str, set[str]]) -> None:
    texts = [rule for family in ("ipv4", "ipv6") for _, _, rule in corpus.rules(family)]
    named = {name for rule in texts for name in corpus.extensions(rule)}
    there = {re.sub(r"^lib(xt|ipt|ip6t)_|\.so$", "", path.name) for path in LIBRARIES.glob("lib*t*_*.so")}
    there -= {name for name in there if name.startswith(("libarpt", "libebt"))} | NOT_EXTENSIONS
    print(dict(counts))
    print("extensions in the corpus:", len(named), "; of this iptables and not in it:", sorted(there - named))
    print("refused by this kernel or needing what is not there:", {k: sorted(v) for k, v in refused.items()})
