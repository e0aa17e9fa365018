"""Rules on the real kernel with iptables-nft: what is declared comes to be, stays, and touches nothing else."""

from __future__ import annotations

import re

from tests.controllers.rules.support import Bench, inside, ns, sh

ROUTER = """
rules:
  q1:
    floating_ips: {203.0.113.5: 10.0.0.5, 203.0.113.6: 10.0.0.6}
    snat: [{source: 10.0.0.0/24, out: qg-1, to: 203.0.113.1}]
    redirects: [{destination: 169.254.169.254, port: 80, to_port: 9697}]
"""


def rules(namespace: str = "q1", table: str = "nat", tool: str = "iptables") -> str:
    """What is saved, without counters and comments of the tool."""
    said = ns(namespace, f"{tool}-save -t {table}")
    return "\n".join(line for line in said.splitlines() if line.startswith("-A"))


def why(result) -> list[str]:
    return sorted(change.why for change in result.done)


@inside
async def test_what_is_declared_comes_to_be_and_a_second_pass_plans_nothing():
    sh("ip netns add q1")
    async with Bench() as bench:
        bench.declare(ROUTER)
        result = await bench.converge("q1")
        assert len(result.done) == 4, result
        saved = rules()
        assert "-A PREROUTING -m comment --comment" in saved
        assert re.search(r"-A reconciler-OUTPUT -d 203.0.113.5/32 .*-j DNAT --to-destination 10.0.0.5", saved)
        assert re.search(r"-A reconciler-POSTROUTING -s 10.0.0.0/24 -o qg-1 .*-j SNAT --to-source 203.0.113.1", saved)


@inside
async def test_one_deleted_rule_is_put_back_by_its_event_in_its_place():
    sh("ip netns add q1")
    async with Bench() as bench:
        bench.declare(ROUTER)
        await bench.converge("q1")
        before = rules()
        await bench.forget()
        ns("q1", "iptables -t nat -D reconciler-PREROUTING 2")
        event = await bench.event("q1")
        assert "iptables (pid" in event.reason
        result = await bench.run("q1", event.focus)
        assert [(str(c.resource), c.why) for c in result.done] == [("floating_ip/q1/203.0.113.5", "rule is missing")]
        assert result.looked_at is not None
        assert rules() == before
        await bench.forget()
        assert bench.events == []


@inside
async def test_a_flushed_table_comes_back_whole_and_first_things_first():
    sh("ip netns add q1")
    async with Bench() as bench:
        bench.declare(ROUTER)
        await bench.converge("q1")
        before = rules()
        await bench.forget()
        ns("q1", "iptables -t nat -F")
        event = await bench.event("q1")
        result = await bench.run("q1", event.focus)
        assert len(result.done) == 4
        assert rules() == before
        ns("q1", "iptables -t nat -F; true")
        ns("q1", "iptables -t nat -X")
        await bench.run("q1")
        assert rules() == before


@inside
async def test_a_proof_finds_a_commit_that_no_event_told_of_and_a_namespace_made_anew():
    sh("ip netns add q1")
    async with Bench() as bench:
        bench.declare(ROUTER)
        controller, view = bench.controller, bench.view("q1")
        await bench.converge("q1")
        assert await controller.unchanged([view]) == {view.scope}
        before = rules()
        controller.tables._listener.stop()
        ns("q1", "iptables -t nat -D reconciler-PREROUTING 2")
        controller.tables._listener.start()
        assert not (await bench.run("q1")).done, "somebody told of it after all"
        assert await controller.unchanged([view]) == set()
        await controller.prove(view.scope)
        await bench.run("q1")
        assert rules() == before
        await bench.run("q1")
        assert await controller.unchanged([view]) == {view.scope}
        sh("ip netns del q1 && ip netns add q1")
        assert await controller.unchanged([view]) == set()


@inside
async def test_a_deleted_or_moved_or_changed_jump_is_put_back_first():
    sh("ip netns add q1")
    async with Bench() as bench:
        bench.declare(ROUTER)
        await bench.converge("q1")
        ns("q1", "iptables -t nat -A PREROUTING -s 9.9.9.9 -j ACCEPT")
        before = rules()
        for command, reason in (
            ("-D PREROUTING 1", "jump from nat PREROUTING to reconciler-PREROUTING is missing"),
            ("-I PREROUTING -s 8.8.8.8 -j ACCEPT", "to reconciler-PREROUTING is no longer first"),
            ("-R PREROUTING 1 -p tcp -m comment --comment '{}' -j reconciler-PREROUTING", "was changed"),
        ):
            comment = re.search(r'-A PREROUTING .*"(reconciler:\w+ jump)"', rules())
            assert comment is not None
            await bench.forget()
            sh(f"ip netns exec q1 iptables -t nat {command.format(comment[1])}")
            event = await bench.event("q1")
            result = await bench.run("q1", event.focus)
            assert len(result.done) == 1, why(result)
            assert reason in why(result)[0]
            assert rules().splitlines()[0].endswith("-j reconciler-PREROUTING")
        ns("q1", "iptables -t nat -D PREROUTING -s 8.8.8.8 -j ACCEPT")
        assert rules() == before


@inside
async def test_a_rule_changed_in_place_with_our_comment_kept_is_seen_also_by_a_fresh_start():
    sh("ip netns add q1")
    async with Bench() as bench:
        bench.declare(ROUTER)
        await bench.converge("q1")
        before = rules()

        def change() -> None:
            line = next(line for line in before.splitlines() if "-s 10.0.0.5/32" in line)
            comment = re.search(r'"(reconciler:.*?)"', line)
            assert comment is not None
            number = [li for li in before.splitlines() if "-A reconciler-POSTROUTING" in li].index(line) + 1
            sh(
                f"ip netns exec q1 iptables -t nat -R reconciler-POSTROUTING {number} -s 10.0.0.5/32"
                f" -m comment --comment '{comment[1]}' -j SNAT --to-source 203.0.113.99"
            )

        await bench.forget()
        change()
        event = await bench.event("q1")
        result = await bench.run("q1", event.focus)
        assert why(result) == ["rule says something else (its comment is unchanged)"]
        assert rules() == before
        change()
    async with Bench() as fresh:
        fresh.declare(ROUTER)
        result = await fresh.converge("q1")
        assert why(result) == ["rule says something else (its comment is unchanged)"]
        assert rules() == before


@inside
async def test_a_restart_on_a_converged_namespace_plans_nothing():
    sh("ip netns add q1")
    for start in range(2):
        async with Bench() as bench:
            bench.declare(ROUTER)
            result = await bench.converge("q1")
            assert bool(result.done) == (start == 0)


@inside
async def test_other_tools_rules_and_all_counters_survive_what_we_do():
    sh("ip netns add q1")
    text = """rules: {q1: {raw: {filter: {OUTPUT: ["-d 127.0.0.0/8 -j ACCEPT", "-d 1.1.1.1/32 -j DROP"]}}}}"""
    async with Bench() as bench:
        bench.declare(text)
        await bench.converge("q1")
        ns("q1", "ip link set lo up")
        ns("q1", "iptables -A OUTPUT -p icmp -j ACCEPT")
        ns("q1", "iptables -N others")
        ns("q1", "iptables -A INPUT -j others")
        ns("q1", "iptables -A others -p icmp -j ACCEPT")
        ns("q1", "ping -c 3 -i 0.002 127.0.0.1")
        counted = ns("q1", "iptables-save -c -t filter")
        assert re.search(r"\[6:504\] -A reconciler-OUTPUT -d 127", counted), counted
        ns("q1", "iptables -D reconciler-OUTPUT 2")
        ns("q1", "iptables -D OUTPUT 1")
        result = await bench.run("q1")
        assert len(result.done) == 2, why(result)
        after = ns("q1", "iptables-save -c -t filter")
        lines = [line for line in counted.splitlines() if line.startswith("[") and " jump" not in line]
        assert [line for line in after.splitlines() if line.startswith("[") and " jump" not in line] == lines


@inside
async def test_a_rule_no_longer_declared_goes_and_the_last_one_takes_chain_and_jump_along():
    sh("ip netns add q1")
    async with Bench() as bench:
        bench.declare(ROUTER)
        await bench.converge("q1")
        bench.declare(ROUTER.replace(", 203.0.113.6: 10.0.0.6", ""))
        result = await bench.converge("q1")
        assert {str(change.resource) for change in result.done} == {"floating_ip/q1/203.0.113.6"}
        assert all(change.prune for change in result.done)
        bench.declare("")
        bench.gates.budget._minimum = 100
        await bench.converge("q1")
        saved = ns("q1", "iptables-save")
        assert "reconciler" not in saved, saved


@inside
async def test_a_foreign_rule_in_a_chain_of_ours_goes_and_rules_out_of_order_come_back_in_order():
    sh("ip netns add q1")
    listed = ", ".join(f'"-s 10.0.{n}.0/24 -j ACCEPT"' for n in range(9))
    async with Bench() as bench:
        bench.declare(f"rules: {{q1: {{raw: {{filter: {{FORWARD: [{listed}]}}}}}}}}")
        await bench.converge("q1")
        before = rules(table="filter")
        line = before.splitlines()[4].removeprefix("-A reconciler-FORWARD ")
        ns("q1", "iptables -I reconciler-FORWARD 3 -s 4.4.4.4 -j DROP")
        sh("ip netns exec q1 iptables -D reconciler-FORWARD 5")
        sh(f"ip netns exec q1 iptables -A reconciler-FORWARD {line}")
        result = await bench.run("q1")
        assert sorted(why(result)) == ["foreign rule in reconciler-FORWARD, which is ours", "rule is not in its place"]
        assert rules(table="filter") == before


@inside
async def test_open_ports_stand_before_the_final_reject_and_come_back_before_it():
    sh("iptables -A INPUT -s 9.9.9.9 -j ACCEPT; iptables -A INPUT -j REJECT --reject-with icmp-host-prohibited")
    async with Bench() as bench:
        bench.declare("rules: {host: {open_ports: [{ports: [6082], comment: SPICE}]}}")
        await bench.converge()
        before = sh("iptables-save -t filter | grep ^-A")
        jump = before.splitlines()[1]
        assert "reconciler-INPUT-end" in jump
        sh(f"iptables {jump.replace('-A', '-D', 1)}; iptables {jump}")
        result = await bench.run()
        assert why(result) == ["jump from filter INPUT to reconciler-INPUT-end stands after the final REJECT"]
        assert sh("iptables-save -t filter | grep ^-A") == before
        assert "6082" in sh("ip6tables-save -t filter")


@inside
async def test_a_wrong_rule_is_named_and_does_not_stop_the_others():
    async with Bench() as bench:
        bench.declare(
            """rules: {host: {raw: {filter: {INPUT: [
              "-s 10.0.0.1 -j ACCEPT", "-p tcp --dport http-no-such -j ACCEPT", "-j NOSUCHTARGET",
              "-s 10.0.0.2 -j ACCEPT",
              "-m nosuchmatch -j ACCEPT", "-j MASQUERADE", "-s 10.0.0.3 -j ACCEPT"]}}}}"""
        )
        result = await bench.run()
        assert {f.resource.name.partition("INPUT ")[2] for f in result.findings} == {
            "-p tcp --dport http-no-such -j ACCEPT",
            "-j NOSUCHTARGET",
            "-m nosuchmatch -j ACCEPT",
            "-j MASQUERADE",
        }
        assert sh("iptables -S reconciler-INPUT").count("-A ") == 3
        assert any("http-no-such" in f.reason for f in result.findings)


@inside
async def test_ipv6_rules_are_held_as_ipv4_rules_are():
    sh("ip netns add q1")
    async with Bench() as bench:
        bench.declare(
            """rules: {q1: {floating_ips: {"2001:db8::5": "fd00::5"},
                snat: [{source: "fd00::/64", to: "2001:db8::1"}],
                port_forwards: [{address: "2001:db8::1", port: 80, to: "fd00::7", to_port: 8080}]}}"""
        )
        await bench.converge("q1")
        before = rules(tool="ip6tables")
        assert "-j DNAT --to-destination [fd00::7]:8080" in before
        await bench.forget()
        ns("q1", "ip6tables -t nat -D reconciler-PREROUTING 1")
        event = await bench.event("q1")
        assert len((await bench.run("q1", event.focus)).done) == 1
        assert rules(tool="ip6tables") == before


@inside
async def test_a_namespace_that_is_not_there_is_waited_for_and_one_made_anew_is_filled_anew():
    async with Bench() as bench:
        bench.declare(ROUTER)
        result = await bench.pipeline.run(bench.view("q1"), None)
        assert "network namespace q1 is not there" in str(result.blind)
        for _ in range(2):
            await bench.forget()
            sh("ip netns add q1")
            await bench.event("q1")
            await bench.converge("q1")
            assert "203.0.113.5" in rules()
            sh("ip netns del q1")


@inside
async def test_what_others_do_while_we_read_and_while_events_are_lost_is_not_missed():
    sh("ip netns add q1")
    async with Bench() as bench:
        bench.declare(ROUTER)
        await bench.converge("q1")
        before = rules()
        bench.controller.tables._lost()
        ns("q1", "iptables -t nat -D reconciler-PREROUTING 1")
        await bench.run("q1")
        assert rules() == before
        for _ in range(10):
            ns("q1", "iptables -t nat -D reconciler-PREROUTING 1")
            ns("q1", "iptables -t nat -I PREROUTING -j ACCEPT")
            ns("q1", "iptables -t nat -D PREROUTING -j ACCEPT")
            await bench.run("q1")
            assert rules() == before


@inside
async def test_no_descriptor_of_a_namespace_stays_open():
    async with Bench() as bench:
        bench.declare(ROUTER)
        await bench.pipeline.run(bench.view("q1"), None)
        for _ in range(3):
            sh("ip netns add q1; ip -n q1 link add v0 type veth peer name v1")
            await bench.event("q1")
            await bench.converge("q1")
            sh("ip netns del q1")
            await bench.forget()
        sh("sleep 0.1; ! ip netns list-id | grep -q .")
