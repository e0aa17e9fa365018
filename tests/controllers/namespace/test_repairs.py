"""What others do to namespaces behind the daemon's back, on the real kernel: repaired by the event."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from controllers.namespace.state import Observed
from reconciler.contract import Focus, Group, GroupResult, Scope, View
from tests.controllers.drivers.netlink.private import ip, privately, sh
from tests.controllers.namespace.support import Node, running

ROUTER = """
namespaces:
  q:
    links:
      v: {type: veth, peer: {name: vh}, mac: "fa:16:3e:00:00:01", addresses: [10.0.0.1/24, 10.0.0.9/32, fd00::1/64]}
      w: {type: veth, peer: {name: wh, mac: "fa:16:3e:00:00:03"}, mtu: 1400, addresses: [192.0.2.2/24]}
    routes:
      - {to: default, via: 192.0.2.1}
      - {to: 10.5.0.0/16, via: 10.0.0.5, metric: 7}
      - {to: 10.6.0.0/16, dev: v, table: 100, src: 10.0.0.1}
      - {to: 203.0.113.9/32, via: 198.51.100.1, dev: w, onlink: true}
      - {to: "fd01::/64", via: "fd00::2"}
      - {to: "::/0", via: "fd00::3", metric: 50}
      - {to: 10.7.0.0/16, type: blackhole}
    rules:
      - {from: 10.0.0.0/8, table: 100, priority: 50}
      - {fwmark: 0x1/0xff, table: 100, priority: 60}
      - {to: "fd02::/16", table: 100, priority: 70}
    neighbours: [{ip: 10.0.0.77, mac: "fa:16:3e:00:00:77", dev: v}]
    sysctls: {net.ipv4.ip_forward: 1, net.ipv4.conf.v.rp_filter: 0, net.ipv6.conf.w.accept_ra: 0}
"""


async def repairs(node: Node, resource: str, *breaking: str | Callable[[], object], ns: str = "q") -> None:
    """Break something with ip(8); it is repaired by the event, and nothing else is wrong afterwards."""
    since = len(node.journal.entries)
    for command in breaking:
        if isinstance(command, str):
            ip(*command.split(), ns=ns)
        else:
            command()

    def done() -> bool:
        actions = [a for entry in node.journal.entries[since:] for a in entry.actions]
        return any(str(a.resource) == resource and a.result == "done" for a in actions)

    await node.until(done, f"{resource} is repaired", 5.0)
    await node.converged(5.0)
    action = next(a for e in node.journal.entries[since:] for a in e.actions if str(a.resource) == resource)
    assert action.why
    assert action.drift, "the world changed, not what was declared"
    assert all("resync" not in entry.trigger for entry in node.journal.entries[since:])


@privately
async def test_everything_that_can_be_declared_is_made_and_a_second_look_finds_nothing_to_do() -> None:
    async with running(ROUTER) as node:
        assert "default via 192.0.2.1 dev w proto 94" in ip("route", ns="q")
        assert "blackhole 10.7.0.0/16" in ip("route", ns="q")
        assert "from 10.0.0.0/8 lookup 100 proto 94" in ip("rule", ns="q")
        assert "fwmark 0x1/0xff" in ip("rule", ns="q")
        assert "10.0.0.77 dev v lladdr fa:16:3e:00:00:77 PERMANENT" in ip("neigh", ns="q")
        assert sh("ip", "netns", "exec", "q", "sysctl", "-n", "net.ipv4.ip_forward").strip() == "1"
        assert "mtu 1400" in ip("link", "show", "w", ns="q")
        assert "mtu 1400" in ip("link", "show", "wh")
        await node.plans_nothing()
        done = len(node.journal.entries)
        await asyncio.sleep(0.3)
        assert len(node.journal.entries) == done


REPAIRS: dict[str, tuple[str, ...]] = {
    "address v4": ("address/q/v/10.0.0.1/24", "addr del 10.0.0.1/24 dev v"),
    "address v6": ("address/q/v/fd00::1/64", "addr del fd00::1/64 dev v"),
    "all addresses": ("address/q/w/192.0.2.2/24", "addr flush dev w"),
    "link down": ("link/q/v", "link set v down"),
    "routes of a link that was down": ("route/q/default", "link set w down", "link set w up"),
    "mac": ("link/q/v", "link set v address fa:16:3e:00:00:99"),
    "mtu": ("link/q/w", "link set w mtu 1300"),
    "link deleted": ("link/q/w", "link del w"),
    "link renamed": ("link/q/v", "link set v down", "link set v name other"),
    "route deleted": ("route/q/default", "route del default"),
    "route elsewhere": ("route/q/default", "route replace default via 192.0.2.77"),
    "route by another's hand": ("route/q/default", "route replace default via 192.0.2.1 proto static"),
    "route v6": ("route/q/fd01::/64", "-6 route del fd01::/64"),
    "route in another table": ("route/q/10.6.0.0/16@100", "route flush table 100"),
    "rule": ("policy_rule/q/50,from:10.0.0.0/8", "rule del priority 50"),
    "rule v6": ("policy_rule/q/70,to:fd02::/16", "-6 rule del priority 70"),
    "neighbour": ("neighbour/q/v/10.0.0.77", "neigh del 10.0.0.77 dev v"),
    "neighbour elsewhere": ("neighbour/q/v/10.0.0.77", "neigh replace 10.0.0.77 lladdr fa:16:3e:00:00:78 dev v"),
}


@privately
async def test_what_ip_breaks_is_repaired_by_the_event() -> None:
    async with running(ROUTER) as node:
        for number, (resource, *breaking) in enumerate(REPAIRS.values()):
            await repairs(node, resource, *breaking)
            if number % 6 == 5:
                await asyncio.sleep(0.2)
        await node.plans_nothing()


@privately
async def test_a_port_that_left_its_bridge_is_put_back() -> None:
    links = "{br: {type: bridge}, p: {type: veth, peer: {name: ph}, master: br}}"
    async with running(f"namespaces: {{q: {{links: {links}}}}}") as node:
        await repairs(node, "link/q/p", "link set p nomaster")
        await node.plans_nothing()


@privately
async def test_ends_on_the_host_are_repaired_too() -> None:
    async with running(ROUTER) as node:
        await repairs(node, "link/q/v", "link set vh down", ns="")
        await repairs(node, "link/q/v", "link set vh down", "link set vh name hv", ns="")
        await repairs(node, "link/q/w", "link set wh address fa:16:3e:00:00:09", ns="")
        await repairs(node, "link/q/w", "link del wh", ns="")
        await node.plans_nothing()


@privately
async def test_a_sysctl_that_the_kernel_tells_of_is_repaired_by_the_event() -> None:
    async with running(ROUTER) as node:
        key = "net.ipv4.ip_forward"
        await repairs(node, f"sysctl/q/{key}", lambda: sh("ip", "netns", "exec", "q", "sysctl", "-w", f"{key}=0"))
        assert sh("ip", "netns", "exec", "q", "sysctl", "-n", key).strip() == "1"


@privately
async def test_a_sysctl_that_the_kernel_is_silent_about_is_repaired_at_resync() -> None:
    async with running(ROUTER) as node:
        key = "net.ipv6.conf.w.accept_ra"
        sh("ip", "netns", "exec", "q", "sysctl", "-w", f"{key}=1")
        await node.engine.prove(node.engine.scopes(), "resync")
        await node.until(lambda: f"update sysctl/q/{key}" in node.journal.done()[-1:], "repaired")


@privately
async def test_a_proof_makes_no_pass_where_nothing_changed_and_finds_what_no_event_told() -> None:
    async with running(ROUTER) as node:
        await node.engine.prove(node.engine.scopes(), "once")
        await node.converged()
        observe, looked_at = node.controller.observe, []

        async def noting(view: View, focus: Focus) -> Observed:
            looked_at.append(view.scope.name)
            return await observe(view, focus)

        node.controller.observe = noting  # type: ignore[method-assign]
        await node.engine.prove(node.engine.scopes(), "again")
        await node.converged()
        assert looked_at == []
        driver = node.controller.driver
        driver._listen(on=False)
        sh("ip", "-n", "q", "addr", "flush", "dev", "w")
        assert driver._listener is not None
        assert list(driver._listener.take())
        driver._listen(on=True)
        before = len(node.journal.done())
        await asyncio.sleep(0.1)
        assert len(node.journal.done()) == before, "somebody told of it after all"
        await node.engine.prove(node.engine.scopes(), "resync")
        await node.until(lambda: len(node.journal.done()) > before, "repaired")
        await node.converged()


@privately
async def test_a_namespace_deleted_with_all_that_is_in_it_comes_back_whole() -> None:
    async with running(ROUTER) as node:
        for _ in range(3):
            await repairs(node, "namespace/q", lambda: sh("ip", "netns", "del", "q"))
            assert "10.0.0.1/24" in ip("addr", ns="q")
        await node.plans_nothing()


@privately
async def test_a_namespace_that_others_made_anew_is_taken_again_while_it_is_bare() -> None:
    async with running(ROUTER) as node:
        await repairs(node, "namespace/q", lambda: sh("sh", "-c", "ip netns del q; ip netns add q || true"))
        assert "reconciler=test" in ip("link", "show", "lo", ns="q")


@privately
async def test_a_namespace_that_others_made_anew_and_use_is_a_conflict() -> None:
    async with running(ROUTER) as node:
        node.engine.gates.paused.pause(_pause())
        sh("ip", "netns", "del", "q")
        sh("ip", "netns", "add", "q")
        ip("link", "add", "foreign", "type", "veth", "peer", "name", "fh", ns="q")
        node.engine.gates.paused.resume("all")
        node.engine.look(node.engine.scopes(), "resumed")
        await node.until(lambda: "conflict" in node.wrong().get("namespace/q", ""), "conflict")
        assert "foreign" in ip("link", ns="q")
        assert "10.0.0.1" not in ip("addr", ns="q")
        node.declare(ROUTER.replace("  q:\n", "  q:\n    adopt: true\n"))
        await node.converged()
        assert "foreign" in ip("link", ns="q")
        assert "10.0.0.1/24" in ip("addr", ns="q")


def _pause():
    from reconciler.report import Pause  # noqa: PLC0415

    return Pause("node", "test", 0.0)


@privately
async def test_a_name_without_a_namespace_does_not_stand_in_the_way() -> None:
    Path("/run/netns").mkdir()
    Path("/run/netns/q").touch()
    async with running(ROUTER) as node:
        await node.plans_nothing()
        assert "10.0.0.1/24" in ip("addr", ns="q")


@privately
async def test_unmounting_a_namespace_without_removing_its_name_is_seen() -> None:
    async with running(ROUTER) as node:
        await repairs(node, "namespace/q", lambda: sh("umount", "/run/netns/q"))


@privately
async def test_unmounting_a_namespace_in_which_a_process_lives_is_seen() -> None:
    """Neither inotify nor netlink tells of it: the namespace lives on without its name."""
    async with running("namespaces: {q: {sysctls: {net.ipv4.ip_forward: 1}}}") as node:
        tenant = subprocess.Popen(["nsenter", "--net=/run/netns/q", "sleep", "60"])
        try:
            await node.until(lambda: Path(f"/proc/{tenant.pid}/comm").read_text() == "sleep\n", "it lives there", 5.0)
            await repairs(node, "namespace/q", lambda: sh("umount", "-l", "/run/netns/q"))
        finally:
            tenant.kill()
            tenant.wait()


@privately
async def test_what_others_put_into_our_namespace_stays_unless_declared_exclusive() -> None:
    async with running(ROUTER) as node:
        ip("addr", "add", "10.9.9.9/24", "dev", "v", ns="q")
        ip("route", "add", "10.99.0.0/16", "dev", "v", ns="q")
        ip("rule", "add", "priority", "99", "table", "5", ns="q")
        ip("link", "add", "x", "type", "veth", "peer", "name", "y", ns="q")
        await asyncio.sleep(0.2)
        await node.converged()
        assert "10.9.9.9/24" in ip("addr", ns="q")
        assert "10.99.0.0/16" in ip("route", ns="q")
        node.declare(ROUTER.replace("  q:\n", "  q:\n    exclusive: [addresses, routes, rules, links]\n"))
        await node.converged()
        assert "10.9.9.9/24" not in ip("addr", ns="q")
        assert "10.99.0.0/16" not in ip("route", ns="q")
        assert "99:" not in ip("rule", ns="q")
        assert "x@y" not in ip("link", ns="q")
        assert "fe80" in ip("addr", ns="q"), "link-local addresses are the kernel's"
        await node.plans_nothing()


@privately
async def test_what_is_declared_no_longer_goes_and_the_rest_stays() -> None:
    async with running(ROUTER) as node:
        less = ROUTER.replace(", 10.0.0.9/32", "").replace("      - {to: 10.5.0.0/16, via: 10.0.0.5, metric: 7}\n", "")
        node.declare(less)
        await node.converged()
        assert "10.0.0.9" not in ip("addr", ns="q")
        assert "10.5.0.0" not in ip("route", ns="q")
        assert "10.0.0.1/24" in ip("addr", ns="q")
        node.declare("namespaces: {other: {}}")
        await node.converged()
        assert "q" not in ip("netns").split()
        await node.until(lambda: "vh" not in ip("link"), "the other ends are gone, too")
        assert not [done for done in node.journal.done() if done.startswith("delete link/host")]


@privately
async def test_a_restarted_daemon_knows_its_own_and_does_nothing() -> None:
    async with running(ROUTER) as node:
        await node.plans_nothing()
    async with running(ROUTER) as node:
        assert node.journal.done() == []
    async with running("namespaces: {other: {}}") as node:
        await node.until(lambda: "q" not in ip("netns").split(), "the left-over is pruned")


@privately
async def test_only_two_sockets_are_open_however_many_namespaces_there_are() -> None:
    text = "namespaces:\n" + "".join(f"  n{n}: {{links: {{lo: {{}}}}}}\n" for n in range(20))
    async with running(text):
        names = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        assert not [name for name in names if name.startswith("/run/netns")]
        sh("ip", "netns", "del", "n3")


@privately
async def test_a_burst_of_events_that_overflows_the_buffer_is_survived() -> None:
    async with running(ROUTER, buffer=4096) as node:
        lines = [
            f"addr add 10.77.{n >> 8}.{n & 255}/32 dev v\naddr del 10.77.{n >> 8}.{n & 255}/32 dev v"
            for n in range(5000)
        ]
        Path("/run/batch").write_text("\n".join(lines) + "\naddr del 10.0.0.1/24 dev v\nroute del default\n")
        sh("ip", "-n", "q", "-batch", "/run/batch")  # the loop stands still meanwhile
        await node.until(
            lambda: "10.0.0.1/24" in ip("addr", ns="q") and "default" in ip("route", ns="q"), "repaired", 5.0
        )
        await node.converged()
        assert node.controller.driver.lost > 0
        await node.plans_nothing()


@pytest.mark.parametrize("buffer", [8 << 20])
@privately
async def test_twenty_thousand_events_do_not_hold_up_the_loop(buffer: int) -> None:
    async with running(ROUTER, buffer=buffer) as node:
        lines = [
            f"addr add 10.77.{n >> 8}.{n & 255}/32 dev v\naddr del 10.77.{n >> 8}.{n & 255}/32 dev v"
            for n in range(5000)
        ]
        Path("/run/batch").write_text("\n".join(lines) + "\naddr del 10.0.0.1/24 dev v\n")
        breaking = asyncio.create_task(asyncio.to_thread(sh, "ip", "-n", "q", "-batch", "/run/batch"))
        worst = 0.0
        while not breaking.done():
            before = time.monotonic()
            await asyncio.sleep(0.001)
            worst = max(worst, time.monotonic() - before)
        await breaking
        await node.until(lambda: "10.0.0.1/24" in ip("addr", ns="q"), "repaired", 5.0)
        await node.converged()
        print("longest wait of the loop", worst)
        assert worst < 0.5


@privately
async def test_nothing_is_put_into_a_namespace_that_took_the_name_between_a_look_and_a_deed() -> None:
    """It would be neither bare nor marked afterwards: a conflict that we made ourselves."""
    async with running(ROUTER) as node:
        act, rivals = node.controller.act, ["ip netns del q; ip netns add q", "ip netns del q; ip netns add q"]

        async def late(scope: Scope, groups: Sequence[Group]) -> Sequence[GroupResult]:
            if rivals and scope.name == "q":
                sh("sh", "-c", rivals.pop())
            return await act(scope, groups)

        node.controller.act = late  # type: ignore[method-assign]
        ip("addr", "flush", "dev", "w", ns="q")
        await node.until(lambda: not rivals, "somebody was quicker")
        await node.converged(5.0)
        assert "192.0.2.2/24" in ip("addr", ns="q")
        await node.plans_nothing()
        rivals.append("ip netns add q; ip -n q link add x type bridge")
        ip("netns", "del", "q")
        await node.until(lambda: "is not ours" in str(node.wrong()), "what somebody made and uses is left alone")
        assert "10.0.0" not in ip("addr", ns="q")


@privately
async def test_whoever_deletes_a_namespace_gets_done_before_it_is_made_again() -> None:
    """``ip netns del`` unmounts, then removes the file: with a new namespace on it that would fail."""
    async with running("namespaces: {q: {}}") as node:
        for _ in range(5):
            since = len(node.journal.entries)
            await asyncio.to_thread(sh, "sh", "-ec", "umount -l /run/netns/q; sleep 0.01; rm /run/netns/q")
            await node.until(lambda since=since: len(node.journal.entries) > since, "it is made again")
            await node.converged(5.0)
        sh("ip", "netns", "del", "q")
        await node.converged(5.0)


@privately
async def test_a_file_that_somebody_left_behind_does_not_keep_a_namespace_from_being_made() -> None:
    sh("sh", "-c", "mkdir -p /run/netns; touch /run/netns/q")
    async with running("namespaces: {q: {}}") as node:
        await node.plans_nothing()
        assert "lo" in ip("link", ns="q")


@privately
async def test_a_device_that_died_with_its_namespace_is_told_of_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """vswitchd does not miss it; only one that is nowhere without such a reason is waited for."""
    monkeypatch.setattr("controllers.namespace.controller.LOST_AFTER", 60.0)
    sh("ip", "tuntap", "add", "t0", "mode", "tap")
    lost: list[str] = []
    async with running("namespaces: {q: {links: {t0: {type: ovs}}}}") as node:
        node.controller.on_lost.append(lost.append)
        assert "t0" in ip("link", ns="q")
        ip("netns", "del", "q")
        await node.until(lambda: lost == ["t0"], "the switch is told", 5.0)
        sh("ip", "tuntap", "add", "t0", "mode", "tap")
        await node.converged()
        sh("sh", "-ec", "ip netns del q; ip netns add q")
        await node.until(lambda: lost == ["t0", "t0"], "the switch is told again", 5.0)


@privately
async def test_a_route_that_goes_with_its_device_is_made_again_in_the_same_pass() -> None:
    """Beside twenty namespaces whose devices are replaced, a second pass would come after all the others."""
    sh("ip", "tuntap", "add", "t0", "mode", "tap")
    text = """
    namespaces:
      q:
        links: {t0: {type: ovs, addresses: [10.0.0.1/24]}}
        sysctls: {net.ipv4.conf.t0.rp_filter: 2}
        routes: [{to: default, via: 10.0.0.254}, {to: 10.9.0.0/16, via: 10.0.0.253, dev: t0}]
    """
    async with running(text) as node:
        await node.plans_nothing()
        since = len(node.journal.entries)
        sh("ip", "tuntap", "add", "t0", "mode", "tap")  # as vswitchd does when it is restarted
        await node.until(lambda: len(node.journal.entries) > since, "it is moved in", 5.0)
        done = {str(action.resource) for action in node.journal.entries[since].actions if action.result == "done"}
        assert done >= {"link/q/t0", "address/q/t0/10.0.0.1/24", "route/q/default", "route/q/10.9.0.0/16"}
        assert "sysctl/q/net.ipv4.conf.t0.rp_filter" in done
        await node.converged()
        assert "default via 10.0.0.254" in ip("route", ns="q")


@privately
async def test_a_setting_of_a_device_that_is_still_to_come_waits_for_it_and_does_not_fail() -> None:
    sh("ip", "tuntap", "add", "t0", "mode", "tap")
    text = "namespaces: {q: {links: {t0: {type: ovs}}, sysctls: {net.ipv4.conf.t0.proxy_arp: 1}}}"
    async with running(text) as node:
        sysctl, since = "sysctl/q/net.ipv4.conf.t0.proxy_arp", len(node.journal.entries)
        sh("ip", "netns", "del", "q")  # and the device with it
        await node.until(lambda: node.wrong().get(sysctl) == "pending: waits for link/q/t0", "it waits", 5.0)
        sh("ip", "tuntap", "add", "t0", "mode", "tap")
        await node.converged()
        actions = [a for entry in node.journal.entries[since:] for a in entry.actions if str(a.resource) == sysctl]
        assert [action.result for action in actions if action.result != "pending"] == ["done"]
        assert sh("ip", "netns", "exec", "q", "sysctl", "-n", "net.ipv4.conf.t0.proxy_arp").strip() == "1"
