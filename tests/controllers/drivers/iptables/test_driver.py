"""The driver on the real kernel: reading, events of all namespaces in one socket, the canonicaliser, the fast path."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from controllers.drivers.iptables import nftables, reading, writing
from controllers.drivers.iptables.netns import Visitor
from controllers.drivers.iptables.nftables import Delete, Insert
from controllers.drivers.iptables.rules import ChainKey, Family, Text, Variant, quoted
from controllers.drivers.iptables.scratch import Refusal, Scratch
from controllers.drivers.iptables.tables import Tables
from controllers.drivers.iptables.tools import Tools, detect
from controllers.drivers.iptables.writing import Refused, protocol_of
from reconciler.errors import DriverError, NotReady
from tests.controllers.rules.support import inside, ns, sh

KEY = ChainKey(Family.IPV4, "nat", "PREROUTING")


def text(mark: str, *tokens: str, key: ChainKey = KEY) -> Text:
    return Text(key, mark, ("-m", "comment", "--comment", f"reconciler:{mark} x", *tokens))


@inside
async def test_the_thread_is_back_in_its_namespace_whatever_a_visit_does():
    sh("ip netns add q1")
    visitor = Visitor()
    own = Path("/proc/self/ns/net").readlink()

    def fail() -> None:
        assert Path("/proc/thread-self/ns/net").readlink() != own
        raise ValueError

    with pytest.raises(ValueError):
        await visitor.visit("q1", fail)
    assert await visitor.visit("host", lambda: Path("/proc/thread-self/ns/net").readlink()) == own
    with pytest.raises(NotReady, match="nowhere is not there"):
        await visitor.visit("nowhere", fail)
    Path("/run/netns/empty").touch()
    with pytest.raises(NotReady):
        await visitor.visit("empty", fail)
    scratch = await visitor.fresh()
    assert await visitor.visit_fd(scratch, lambda: Path("/proc/thread-self/ns/net").readlink()) != own
    assert await visitor.visit("host", lambda: Path("/proc/thread-self/ns/net").readlink()) == own
    visitor.close()


@inside
async def test_one_socket_hears_every_namespace_and_tells_them_apart():
    heard: list[tuple[str, str]] = []
    tables = Tables(lambda name, touched, why: heard.append((name, why)), timeout=5.0)
    run = asyncio.create_task(tables.run())
    for name in ("a", "b", "c"):
        sh(f"ip netns add {name}")
        await asyncio.sleep(0.02)
        await tables.look(name)
    await tables.look("host")
    await asyncio.sleep(0.05)
    heard.clear()
    for name in ("a", "b", "c", "host"):
        ns(name, "iptables -t nat -A PREROUTING -j ACCEPT")
        await asyncio.sleep(0.02)
    assert [name for name, why in heard if "iptables (pid" in why] == ["a", "b", "c", "host"]
    sockets = [link for link in Path("/proc/self/fd").iterdir() if link.is_socket()]
    assert len(sockets) <= 3  # the loop's pair, and ours
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)


@inside
async def test_ten_thousand_commits_in_a_burst_end_in_a_true_picture():
    tables = Tables(lambda *_: None, timeout=5.0)
    run = asyncio.create_task(tables.run())
    await asyncio.sleep(0.05)
    await tables.look("host")
    lines = "\n".join(f"-A reconciler-x -s 10.0.{n >> 8}.{n & 255} -j ACCEPT" for n in range(5000))
    sh("iptables-restore --noflush", stdin=f"*filter\n:reconciler-x - [0:0]\n{lines}\nCOMMIT\n")
    sh("iptables -D reconciler-x 17; iptables -I reconciler-x 3 -j DROP; iptables -R reconciler-x 1 -j RETURN")
    space = await tables.look("host")
    truth = reading.read_nft()
    assert space.chains.held == truth.chains
    assert space.chains.generation == truth.generation
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)


@inside
async def test_the_canonicaliser_names_the_wrong_and_learns_the_rest_and_touches_nothing_real():
    before = sh("iptables-save")
    scratch = Scratch(Tools(Visitor(), Variant.NFT))
    texts = [text(f"m{n}", "-d", f"10.0.0.{n}", "-j", "DNAT", "--to-destination", "10.1.1.1") for n in range(40)]
    wrong = [
        text("w1", "-j", "NOSUCH"),
        text("w2", "-p", "tcp", "--dport", "no-such-service", "-j", "ACCEPT"),
        text("w3", "-j", "MASQUERADE"),
        text("w4", "-j", "ACCEPT", key=KEY._replace(table="filter")),  # a chain that this table does not have
        text("w5", "-h"),
        text("w6", "-s", "no.such.host.example", "-j", "ACCEPT"),
    ]
    mixed = [*texts[:20], *wrong, *texts[20:]]
    found = await scratch.meanings(mixed)
    assert {one.mark for one, meaning in found.items() if isinstance(meaning, Refusal)} == {one.mark for one in wrong}
    several = text("s", "-s", "10.0.0.1,10.0.0.2", "-j", "ACCEPT")
    meaning = (await scratch.meanings([several]))[several]
    assert not isinstance(meaning, Refusal)
    assert len(meaning) == 2
    assert sh("iptables-save") == before
    scratch.close()


@inside
async def test_a_canonicaliser_that_fails_says_so_and_claims_nothing():
    tools = Tools(Visitor(), Variant.NFT)
    tools._paths["iptables-nft-restore"] = "/nonexistent"
    with pytest.raises(DriverError, match="cannot run /nonexistent"):
        await Scratch(tools).meanings([text("a", "-j", "ACCEPT")])
    tools._paths["iptables-nft-restore"] = "/bin/cat"
    tools.timeout = 0.2
    Path("/run/slow").write_text("#!/bin/sh\nexec sleep 10\n")
    Path("/run/slow").chmod(0o755)
    tools._paths["iptables-nft-restore"] = "/run/slow"
    with pytest.raises(DriverError, match="did not end within"):
        await Scratch(tools).meanings([text("a", "-j", "ACCEPT")])


@inside
async def test_the_fast_path_puts_byte_by_byte_what_iptables_would_and_is_refused_when_the_world_moved():
    scratch = Scratch(Tools(Visitor(), Variant.NFT))
    rules = [
        text("a", "-p", "tcp", "--dport", "80", "-j", "DNAT", "--to-destination", "10.1.1.1:8080"),
        text("b", "-p", "udp", "-m", "multiport", "--dports", "1,2", "-j", "REDIRECT", "--to-ports", "9"),
        text("c", "!", "-p", "tcp", "-m", "mark", "--mark", "1", "-j", "ACCEPT"),
    ]
    found = await scratch.meanings(rules)
    sh("iptables -t nat -A PREROUTING -s 9.9.9.9 -j ACCEPT")
    before = reading.read_nft()
    (anchor,) = before.chains[KEY]
    inserts = []
    for one in rules:
        meaning, protocol = found[one], protocol_of(one.tokens)
        assert not isinstance(meaning, Refusal)
        assert protocol is not None
        inserts.append(Insert(KEY, meaning[0].body, anchor.handle, *protocol))
    assert writing.write(inserts, before.generation) is None
    after = reading.read_nft()
    forms = [found[one][0].form for one in rules]
    assert [rule.form for rule in after.chains[KEY]] == [*forms, anchor.form]
    assert isinstance(writing.write(inserts, before.generation), Refused)
    assert writing.write([Delete(KEY, anchor.handle)], after.generation) is None
    assert isinstance(writing.write([Delete(KEY, anchor.handle)], after.generation + 1), Refused)
    assert [rule.form for rule in reading.read_nft().chains[KEY]] == forms


@inside
async def test_the_variant_of_the_node_is_found():
    assert await detect(Visitor()) is Variant.NFT


def test_bodies_are_packed_without_loss():
    comment = nftables._COMMENT + b"\0" * 7 + b"\x01\x04\x03\x00\x00"
    expressions = b"before" + comment + b"reconciler:abc x".ljust(256, b"\0") + b"after\0\0"
    assert nftables.unpacked(nftables.packed(expressions)) == expressions
    assert len(nftables.packed(expressions)) < 120
    assert nftables.unpacked(nftables.packed(b"none")) == b"none"


@pytest.mark.parametrize(("token", "shown"), [("a", "a"), ("", '""'), ("a b", '"a b"'), ('a"b\\', '"a\\"b\\\\"')])
def test_a_token_is_one_token_for_iptables(token, shown):
    assert quoted(token) == shown


@pytest.mark.parametrize("token", ["a\nCOMMIT", "a\0", "\x1b", "a\r"])
def test_no_token_becomes_a_second_line(token):
    with pytest.raises(ValueError, match="not printable"):
        quoted(token)
