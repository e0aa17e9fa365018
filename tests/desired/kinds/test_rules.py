"""What may be declared as a rule: forms, raw text, and what is refused before anything is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from desired.kinds.rule_text import split_rule
from desired.kinds.sections import SECTIONS
from desired.schema.render import dump_resources
from desired.schema.tree import Loaded, load_tree

EVERYTHING = """
rules:
  qrouter-1:
    snat: [{source: 10.0.0.0/24, out: qg-1, to: 203.0.113.1}, {out: qg-1, to: 203.0.113.2}]
    masquerade: [{source: 10.0.0.0/24, out: eth0}, {out: eth1, family: ipv6}]
    floating_ips: {203.0.113.5: 10.0.0.5, "2001:db8::5": {fixed: "fd00::5", mode: observe}}
    port_forwards: [{address: 203.0.113.1, port: 80, to: 10.0.0.5, to_port: 8080}]
    redirects: [{destination: 169.254.169.254, port: 80, to_port: 9697, into: qr-1}]
    raw:
      nat:
        POSTROUTING:
          - '! -o qg-1 -m conntrack ! --ctstate DNAT -j ACCEPT'
          - {rule: -o qg-2 -j MASQUERADE, family: ipv6}
      filter:
        reconciler-mine: [-s 10.0.0.0/8 -j DROP]
        INPUT: [{rule: -j reconciler-mine, place: before_reject, order: 7}]
  host:
    open_ports: [{ports: [6082, 5900:5999], comment: SPICE}, {protocol: udp, ports: [53], source: 10.0.0.0/8}]
"""


def load(directory: Path, text: str) -> Loaded:
    (directory / "node.yaml").write_text(text)
    return load_tree(directory, node="n1", roles=frozenset(), sections=SECTIONS)


def test_every_form_is_read_and_what_is_rendered_reads_the_same(tmp_path: Path):
    loaded = load(tmp_path, EVERYTHING)
    assert loaded.ok, loaded.problems
    assert len(loaded.resources) == 14
    again = load(tmp_path, dump_resources(loaded.resources, SECTIONS))
    assert again.ok, again.problems
    assert {(r.id, r.generation) for r in again.resources} == {(r.id, r.generation) for r in loaded.resources}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raw: {nat: {FORWARD: [-j ACCEPT]}}", "table nat has no chain FORWARD"),
        ("raw: {natt: {PREROUTING: [-j ACCEPT]}}", "unknown table 'natt'"),
        ("raw: {filter: {mine: [-j ACCEPT]}}", "begins with 'reconciler-'"),
        ("raw: {filter: {reconciler-INPUT: [-j ACCEPT]}}", "choose another name"),
        ("raw: {filter: {INPUT: [-A INPUT -j ACCEPT]}}", "'-A' cannot be in a rule"),
        ("raw: {filter: {INPUT: [-j ACCEPT --modprobe=/bin/sh]}}", "cannot be in a rule"),
        ("raw: {filter: {INPUT: [-j ACCEPT --mod /bin/sh]}}", "cannot be in a rule"),
        ("raw: {filter: {INPUT: [-j ACCEPT -M /bin/sh]}}", "cannot be in a rule"),
        ("raw: {filter: {INPUT: [-t nat -j ACCEPT]}}", "cannot be in a rule"),
        ("raw: {filter: {INPUT: [-m set --match-set good src -j ACCEPT]}}", "'--match-set' names an ipset"),
        ("raw: {filter: {INPUT: [-m set ! --match-set=good src -j ACCEPT]}}", "names an ipset"),
        ("raw: {filter: {INPUT: [-j SET --add-set good src]}}", "'--add-set' names an ipset"),
        ("raw: {filter: {INPUT: [-ptcp -j ACCEPT]}}", "with a space"),
        ("raw: {filter: {INPUT: [-s 10.0.0.1]}}", "needs a target"),
        ('raw: {filter: {INPUT: ["-j ACCEPT\\n-F"]}}', "one printable line"),
        ("raw: {filter: {INPUT: ['-m comment --comment \"open -j ACCEPT']}}", "opened and not closed"),
        ("floating_ips: {203.0.113.5: fd00::5}", "mixes IPv4 and IPv6"),
        ("floating_ips: {203.0.113: 10.0.0.5}", "is no IPv4 or IPv6 address"),
        ("snat: [{to: 203.0.113.1}]", "needs 'source', 'out' or both"),
        ("snat: [{source: 10.0.0.1/24, to: 203.0.113.1}]", "is no address or network"),
        ("open_ports: [{ports: [70000]}]", "is no port"),
        ("open_ports: [{ports: [9:1]}]", "is an empty range"),
        ("open_ports: [{ports: ['1:2', '3:4', '5:6', '7:8', '9:10', '11:12', '13:14', '15:16']}]", "at most 15"),
        ("snats: [{out: a, to: 10.0.0.1}]", "unknown form of rules 'snats'"),
    ],
)
def test_what_is_wrong_is_said_at_its_place(tmp_path: Path, body: str, words: str):
    loaded = load(tmp_path, f"rules:\n  q1:\n    {body}\n")
    assert [words in str(problem) for problem in loaded.problems] == [True], loaded.problems
    assert loaded.problems[0].line == 3


def test_the_same_rule_twice_is_an_error_that_shows_both_places(tmp_path: Path):
    loaded = load(tmp_path, "rules:\n  q1:\n    raw:\n      filter:\n        INPUT: [-j ACCEPT, -j ACCEPT]\n")
    assert "declared twice" in str(loaded.problems[0])


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("-s 10.0.0.1  -j ACCEPT", ("-s", "10.0.0.1", "-j", "ACCEPT")),
        (r'--comment "a \"b\" \\" -j X', ("--comment", r'a "b" \\'[:-1], "-j", "X")),
        ("--comment 'a -j X", ("--comment", "'a", "-j", "X")),
        ('--string "" -j X', ("--string", "", "-j", "X")),
    ],
)
def test_a_text_is_cut_as_iptables_restore_cuts_it(text: str, tokens: tuple[str, ...]):
    assert split_rule(text) == tokens
