"""``python -m tests.benchmarks [NAME ...]``: run benchmarks and print their tables."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.benchmarks import (
    breaker,
    compiling,
    drift,
    flood,
    footprint,
    notifications,
    notify,
    passes,
    restart,
    scale,
    services,
    storm,
)
from tests.benchmarks.drift_files import IniKey
from tests.benchmarks.drift_flows import All, OneOfFew, OneOfMany
from tests.benchmarks.drift_iptables import AllRules, Jump, OneRuleOfFew, OneRuleOfMany
from tests.benchmarks.drift_namespace import Address, LinkDown, NamespaceGone, StaticRoute
from tests.benchmarks.drift_ovsdb import Bridge, PatchPort, Tag
from tests.benchmarks.report import Table, heading, machine, say

SUBJECTS: dict[str, Callable[[], drift.Subject]] = {
    "patch": PatchPort,
    "tag": Tag,
    "flow": OneOfFew,
    "flow10k": OneOfMany,
    "flows10k": All,
    "bridge": Bridge,
    "rule": OneRuleOfFew,
    "rule10k": OneRuleOfMany,
    "rules": AllRules,
    "jump": Jump,
    "address": Address,
    "route": StaticRoute,
    "link": LinkDown,
    "namespace": NamespaceGone,
    "ini": IniKey,
}
ALL = (
    "drift",
    "passes",
    "footprint",
    "scale",
    "services",
    "storm",
    "compile",
    "notifications",
    "notify",
    "flood",
    "restart",
    "breaker",
)


def main() -> int:
    """Run what is named; all by default."""
    names = [*ALL, *SUBJECTS]
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; default: all")
    parser.add_argument("--breaks", type=int, default=200, metavar="N", help="per drift and side (default 200)")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="how long the random breaker breaks")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers, and every time measured")
    args = parser.parse_args()
    chosen = args.names or list(ALL)
    unknown = set(chosen) - set(names)
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    facts = machine()
    print(heading(facts), flush=True)
    tables: list[Table] = []
    with tempfile.TemporaryDirectory(prefix="bench") as directory:
        for table in _tables(chosen, Path(directory), args):
            tables.append(table)
            print(f"\n{table.text()}", flush=True)
            if args.json:
                args.json.write_text(json.dumps({"machine": facts, "tables": [t.data() for t in tables]}, indent=1))
    return 0


def _tables(chosen: list[str], directory: Path, args: argparse.Namespace) -> Iterator[Table]:
    subjects = list(SUBJECTS.values()) if "drift" in chosen else [SUBJECTS[n] for n in chosen if n in SUBJECTS]
    if subjects:
        say(f"drift, seed {args.seed}")
        yield drift.table(subjects, directory, args.breaks, args.seed)
    if "passes" in chosen:
        yield passes.table(directory)
    if "footprint" in chosen:
        yield footprint.table(directory)
    if "scale" in chosen:
        yield scale.table(directory)
    if "services" in chosen:
        yield services.table(directory, args.breaks, args.seed)
    if "storm" in chosen:
        yield storm.table(directory)
    if "compile" in chosen:
        yield compiling.table()
    if "notifications" in chosen:
        yield notifications.table(directory)
    if "notify" in chosen:
        yield notify.table(directory)
    if "flood" in chosen:
        yield flood.table(directory)
    if "restart" in chosen:
        yield restart.table(directory)
    if "breaker" in chosen:
        yield breaker.table(directory, args.seconds, args.seed)


if __name__ == "__main__":
    sys.exit(main())
