"""What serves DHCP for a network: the whole of it as a golden text, and the laws that hold for any network."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from desired.kinds.file import FileSpec
from desired.kinds.namespace import AddressSpec
from desired.kinds.service import ServiceSpec
from desired.network import dhcp, dnsmasq
from desired.network.model import Owner, Via
from desired.network.topology import Address, Network, Port, Topology
from tests.desired.network import hand
from tests.desired.network.hand import NODE, ONE, TWO, named


def files(model: Topology, network: Network) -> dict[str, list[str]]:
    """The lines of each file, by the end of its name."""
    made = dhcp.fragment(model, network, NODE, 1)
    specs = [resource.spec for resource in made if isinstance(resource.spec, FileSpec)]
    return {spec.path.rpartition(".")[2]: (spec.content or "").splitlines() for spec in specs}


def test_what_dnsmasq_is_told() -> None:
    model = hand.topology()
    found = files(model, model.networks[ONE])
    name = f"qdhcp-{ONE}"
    at = f"/etc/reconciler-network/{name}"
    v4, v6 = f"subnet-{hand.ONE_V4}", f"subnet-{hand.ONE_V6}"
    routes = "10.9.0.0/16,172.16.1.9,0.0.0.0/0,172.16.1.1"
    assert found == {
        "conf": [
            "no-hosts",
            "no-resolv",
            "bind-dynamic",
            "interface=tap00000101-00",
            "except-interface=lo",
            "pid-file=",
            "log-facility=-",
            "domain=openstacklocal",
            f"dhcp-hostsfile={at}.hosts",
            f"dhcp-optsfile={at}.options",
            f"addn-hosts={at}.names",
            f"dhcp-leasefile=/var/lib/reconciler-network/{name}.leases",
            "dhcp-option-force=option:mtu,1458",
            "dhcp-authoritative",
            f"dhcp-range=set:{v4},172.16.1.0,static,255.255.255.0,86400s",
            f"dhcp-range=set:{v6},fd00:1::,static,64,86400s",
            "dhcp-lease-max=16777216",
        ],
        "hosts": [
            "fa:16:3e:00:01:02,host-172-16-1-5.openstacklocal,172.16.1.5",
            "fa:16:3e:00:01:02,host-fd00-1--5.openstacklocal,[fd00:1::5]",
            "fa:16:3e:00:01:03,host-172-16-1-6.openstacklocal,172.16.1.6",
            "fa:16:3e:00:04:01,host-172-16-1-1.openstacklocal,172.16.1.1",
            "fa:16:3e:00:04:02,host-fd00-1--1.openstacklocal,[fd00:1::1]",
        ],
        "names": [
            "172.16.1.2 host-172-16-1-2.openstacklocal host-172-16-1-2",
            "fd00:1::2 host-fd00-1--2.openstacklocal host-fd00-1--2",
            "172.16.1.5 host-172-16-1-5.openstacklocal host-172-16-1-5",
            "fd00:1::5 host-fd00-1--5.openstacklocal host-fd00-1--5",
            "172.16.1.6 host-172-16-1-6.openstacklocal host-172-16-1-6",
            "172.16.1.1 host-172-16-1-1.openstacklocal host-172-16-1-1",
            "fd00:1::1 host-fd00-1--1.openstacklocal host-fd00-1--1",
        ],
        "options": [
            f"tag:{v4},option:dns-server,9.9.9.9",
            f"tag:{v4},option:classless-static-route,{routes}",
            f"tag:{v4},249,{routes}",
            f"tag:{v4},option:router,172.16.1.1",
            f"tag:{v6},option6:dns-server,[fd00:1::2]",
            f"tag:{v6},option6:domain-search,openstacklocal",
        ],
    }


def test_only_where_its_port_is() -> None:
    model = hand.topology()
    assert list(dhcp.fragment(model, model.networks[ONE], "elsewhere", 1)) == []


def test_metadata_is_served_where_no_router_is_and_only_if_it_is_at_all() -> None:
    address = f"address/qdhcp-{TWO}/tap00000201-00/169.254.169.254/32"
    for settings, network, served in (({}, TWO, True), ({}, ONE, False), ({"metadata": None}, TWO, False)):
        model = hand.topology(**settings)
        made = named(dhcp.fragment(model, model.networks[network], NODE, 1))
        has = (address in made, f"service/qdhcp-{network}-metadata.service" in made)
        assert has == (served, served)
        route = any(
            "169.254.169.254/32,169.254.1.2" in line for line in files(model, model.networks[network])["options"]
        )
        assert route == served


def test_a_subnet_without_dhcp_is_neither_served_nor_routed_for() -> None:
    model = hand.topology()
    two = model.networks[TWO]
    (subnet,) = two.subnets
    silent = replace(two, subnets=(replace(subnet, spec=subnet.spec.model_copy(update={"dhcp": False})),))
    made = named(dhcp.fragment(hand.with_network(model, silent), silent, NODE, 1))
    assert not any(isinstance(resource.spec, ServiceSpec | FileSpec) for resource in made.values())


def test_stateless_and_slaac_give_no_addresses() -> None:
    for mode, ranges in (("dhcpv6-stateless", 2), ("slaac", 1)):
        model = hand.topology(v6=mode)
        found = files(model, model.networks[ONE])
        assert not [line for line in found["hosts"] if "[" in line]
        assert len([line for line in found["conf"] if line.startswith("dhcp-range")]) == ranges


def test_of_two_servers_none_speaks_for_the_network() -> None:
    model = hand.topology()
    one = model.networks[ONE]
    assert "dhcp-authoritative" not in files(model, replace(one, dhcp_nodes=(NODE, "other")))["conf"]


def test_without_a_gateway_nobody_is_told_one() -> None:
    model = hand.topology()
    two = model.networks[TWO]
    (subnet,) = two.subnets
    spec = subnet.spec.model_copy(update={"gateway": "none", "host_routes": (Via(to="10.0.0.0/8", via="169.254.1.9"),)})
    lines = files(model, replace(two, subnets=(replace(subnet, spec=spec),)))["options"]
    assert lines[-1].endswith("option:router"), "an empty one, or dnsmasq would name itself"
    assert all("0.0.0.0/0" not in line for line in lines)


hosts = st.integers(10, 200).map(
    lambda last: Port(
        hand.identity(0x1000 + last), f"vm {last}", ONE, f"fa:16:3e:01:00:{last:02x}",
        (Address(f"172.16.1.{last}", 24, hand.ONE_V4),), "compute", Owner.INSTANCE, "", "held", hand.origin(last),
    )
)  # fmt: skip


@given(hosts)
def test_one_more_instance_changes_only_what_is_read_again(fresh: Port) -> None:
    model = hand.topology()
    one = model.networks[ONE]
    more = replace(one, ports=(*one.ports, fresh))
    before = named(dhcp.fragment(model, one, NODE, 1))
    after = named(dhcp.fragment(hand.with_network(model, more), more, NODE, 1))
    changed = {name for name in after if before.get(name) != after[name]}
    (service,) = [r.spec for r in after.values() if isinstance(r.spec, ServiceSpec)]
    assert changed <= {f"file/{path}" for path in service.reload_on}
    assert before.keys() == after.keys()
    assert f"{fresh.mac},host-{fresh.addresses[0].ip.replace('.', '-')}.openstacklocal,{fresh.addresses[0].ip}" in (
        dnsmasq.hosts(model, more)
    )


@given(st.sampled_from(["slaac", "dhcpv6-stateless", "dhcpv6-stateful", None]), st.sampled_from([ONE, TWO]))
def test_everything_is_in_its_namespace_and_knows_where_it_was_declared(mode: str | None, own: str) -> None:
    model = hand.topology(v6=mode)
    made = named(dhcp.fragment(model, model.networks[own], NODE, 7))
    name = f"qdhcp-{own}"
    assert f"namespace/{name}" in made
    for resource in made.values():
        assert resource.origin.file == "model.yaml"
        assert getattr(resource.spec, "namespace", name) == name
        if isinstance(resource.spec, AddressSpec):
            assert not ip_address(resource.spec.address.partition("/")[0]).is_loopback
        if isinstance(resource.spec, ServiceSpec):
            assert f"NetworkNamespacePath=/run/netns/{name}\n" in (resource.spec.unit or "")
            read = {*resource.spec.restart_on, *resource.spec.reload_on}
            assert {f"file/{path}" for path in read} <= made.keys()
