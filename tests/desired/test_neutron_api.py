"""Reading a real Neutron server whole; and that whatever goes wrong, on whichever page, there is no read at all."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from desired.sources.neutron_api import COLLECTIONS, FullRead, NeutronApi, ReadError
from reconciler.doors.doctor import Verdict
from reconciler.doors.doctor_neutron import EXAMINERS
from reconciler.doors.session import Session
from reconciler.settings import Settings
from reconciler.settings_sections import NeutronSettings
from tests.front import Changed, Cut, Front, Hang, Instead
from tests.neutron import NeutronServer

pytestmark = pytest.mark.timeout(600)  # the first one may have to install Neutron

NETWORKS = 9
SECRET = "gAAAAABl-very-secret"


def api_of(endpoint: str, *, token: str = "", **settings: Any) -> NeutronApi:
    given = NeutronSettings(**{"endpoint": endpoint, "timeout": 20.0, **settings})
    return NeutronApi(given, token=token, wall=time.time)


def read(api: NeutronApi) -> FullRead:
    return api.full_read(threading.Event())


def refused(api: NeutronApi) -> str:
    """Why there was no read."""
    with pytest.raises(ReadError) as raised:
        read(api)
    assert SECRET not in str(raised.value)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture(scope="module")
def neutron(neutron_server: NeutronServer) -> NeutronServer:
    """The server of this test process, with one of everything in it.

    Each type of network, both families, a router with a gateway, a floating IP, two nodes, and more than seven (a
    page of this server) networks and ports. Whoever changes it sees to it that the others can go on.
    """
    neutron = neutron_server
    neutron.start()
    neutron.clear()
    neutron.report_agent("compute-1", tunnel_ip="10.10.10.11", mappings={"physnet1": "br-ex"})
    neutron.report_agent("network-1", tunnel_ip="10.10.10.20", mappings={"physnet1": "br-ex"})
    neutron.report_l3_agent("network-1")
    blue = neutron.create("network", name="blue", provider__network_type="gre", provider__segmentation_id=999)["id"]
    ext = neutron.create("network", name="ext", provider__network_type="flat", provider__physical_network="physnet1",
                         router__external=True)["id"]  # fmt: skip
    neutron.create("network", name="vlan", provider__network_type="vlan", provider__segmentation_id=101,
                   provider__physical_network="physnet1")  # fmt: skip
    neutron.create("network", name="vx", provider__network_type="vxlan", provider__segmentation_id=2001)
    neutron.create("network", name="local", provider__network_type="local")
    neutron.call("POST", "networks", {"networks": [{"name": f"more-{each}"} for each in range(4)]})
    four = neutron.create("subnet", network_id=blue, ip_version=4, cidr="172.16.1.0/24", dns_nameservers=["10.6.0.2"])
    neutron.create("subnet", network_id=blue, ip_version=6, cidr="fd00:16::/64", ipv6_ra_mode="slaac",
                   ipv6_address_mode="slaac")  # fmt: skip
    neutron.create("subnet", network_id=ext, ip_version=4, cidr="10.6.0.0/15", enable_dhcp=False)
    vm = neutron.create("port", network_id=blue, name="vm", device_owner="compute:nova", binding__host_id="compute-1")
    router = neutron.create("router", name="r", external_gateway_info={"network_id": ext})
    neutron.add_interface(router["id"], subnet_id=four["id"])
    address = next(fixed["ip_address"] for fixed in vm["fixed_ips"] if "." in fixed["ip_address"])
    neutron.create("floatingip", floating_network_id=ext, port_id=vm["id"], fixed_ip_address=address)
    return neutron


@pytest.fixture
def front(neutron: NeutronServer) -> Iterator[Front]:
    with Front(neutron.endpoint) as front:
        yield front


# -- what is there ----------------------------------------------------------------------------------------------------


def test_a_full_read_is_what_the_api_has(neutron: NeutronServer) -> None:
    before = time.time()
    found = read(api_of(neutron.endpoint))
    assert found.counts["network"] == NETWORKS
    assert found.counts["subnet"] == 3
    assert found.counts["router"] == found.counts["floatingip"] == 1
    assert found.counts["port"] == 4  # the instance's, the router's two, the floating IP's
    for kind, collection in COLLECTIONS.items():
        assert sorted(found.objects[kind], key=by_id) == sorted(neutron.all(collection), key=by_id), kind
    assert before - 1 <= found.started_at <= time.time()

    port = next(each for each in found.objects["port"] if each["name"] == "vm")
    assert port["binding:host_id"] == "compute-1"
    assert len(port["fixed_ips"]) == 2
    network = next(each for each in found.objects["network"] if each["name"] == "blue")
    assert (network["provider:network_type"], network["provider:segmentation_id"]) == ("gre", 999)
    tunnels = {agent["host"]: agent["configurations"].get("tunneling_ip") for agent in found.objects["agent"]
               if agent["agent_type"] == "Open vSwitch agent"}  # fmt: skip
    assert tunnels == {"compute-1": "10.10.10.11", "network-1": "10.10.10.20"}


@pytest.mark.parametrize("page", [1, 3, 500])
def test_pages_add_up(neutron: NeutronServer, front: Front, page: int) -> None:
    """Also where the server gives fewer than were asked for: this one gives seven at most."""
    found = read(api_of(front.endpoint, page=page))
    assert [each["id"] for each in found.objects["network"]] == [each["id"] for each in neutron.all("networks")]
    assert len([path for path in front.asked if "/networks" in path]) == {1: 10, 3: 4, 500: 2}[page]


def test_what_goes_between_two_pages_is_no_mistake(neutron: NeutronServer, front: Front) -> None:
    """The object after which the next page begins is deleted meanwhile: Neutron answers 404 then."""
    before = [each["id"] for each in neutron.all("networks")]
    spare = neutron.create("network", name="spare")["id"]
    place = neutron.all("networks").index(neutron.call("GET", f"networks/{spare}")["network"])
    deleted: list[str] = []

    def delete(body: bytes) -> bytes:
        neutron.delete("network", spare)
        deleted.append(spare)
        return body

    def at_its_page(_number: int, path: str) -> Changed | None:
        asked = len([each for each in front.asked if "/networks" in each])
        return Changed(delete) if "/networks" in path and asked == place + 1 and not deleted else None

    front.spoil = at_its_page
    found = read(api_of(front.endpoint, page=1))
    assert deleted
    assert [each["id"] for each in found.objects["network"]] == before


def test_counting_reads_ids_alone(neutron: NeutronServer, front: Front) -> None:
    assert api_of(front.endpoint).count() == read(api_of(neutron.endpoint)).counts
    assert all("fields=id" in path for path in front.asked)


def test_the_doctor_tells_how_much_is_there(neutron: NeutronServer) -> None:
    session = Session()
    session.settings = Settings(neutron=NeutronSettings(endpoint=neutron.endpoint, timeout=20.0))
    (found,) = (check for examine in EXAMINERS for check in examine(session))
    assert found.verdict is Verdict.OK
    shown = f"3 agents, {NETWORKS} networks, 3 subnets, 4 ports, 1 router, 1 floatingip"
    assert found.detail == f"{neutron.endpoint} answers, and shows {shown}"


def test_a_cloud_of_clouds_yaml_is_read(neutron: NeutronServer, tmp_path: Path) -> None:
    clouds = tmp_path / "clouds.yaml"
    clouds.write_text(
        f"clouds:\n  here:\n    auth_type: none\n    auth: {{endpoint: '{neutron.endpoint}'}}\n"
        f"    network_endpoint_override: {neutron.endpoint}\n"
    )
    found = read(api_of("", cloud="here", clouds_file=clouds))
    assert found.counts["network"] == NETWORKS


def test_the_token_of_the_credential_is_sent(neutron: NeutronServer, front: Front) -> None:
    read(api_of(front.endpoint, token=SECRET))
    assert {headers["X-Auth-Token"] for headers in front.headers} == {SECRET}


def test_over_tls_only_the_named_authority_is_believed(neutron: NeutronServer, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]  # fmt: skip
    subprocess.run([*make, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True, timeout=60)
    with Front(neutron.endpoint, certificate=certificate, key=key) as front:
        assert read(api_of(front.endpoint, ca=certificate)).counts["network"] == NETWORKS
        assert "certificate verify failed" in refused(api_of(front.endpoint))


# -- what goes wrong --------------------------------------------------------------------------------------------------

AGAIN = b'{"networks": [], "networks_links": [{"rel": "next", "href": "x"}]}'
WRONG: Mapping[str, tuple[Instead | Cut | Changed, str]] = {
    "unavailable": (Instead(503), "it answered 503 Service Unavailable"),
    "an error of the server": (Instead(500), "it answered 500 Internal Server Error"),
    "unauthorised": (Instead(401), "it refuses the credentials (401)"),
    "forbidden": (Instead(403), "not an administrator's (403)"),
    "not there": (Instead(404), "there is no such collection (404)"),
    "a page for people": (Instead(200, b"<html>maintenance</html>"), "something else than JSON"),
    "no list": (Instead(200, b'{"error": "later"}'), "something else than a list of objects"),
    "a list of something else": (
        Instead(200, b'{"networks": ["x"], "agents": [1], "ports": [[]]}'),
        "something else than a list of objects",
    ),
    "no object": (Instead(200, b"[]"), "something else than a list of objects"),
    "half an answer": (Cut(), "Connection broken"),
    "half an answer that looks whole": (Changed(lambda body: body[: len(body) // 2]), "something else than JSON"),
}


@pytest.mark.parametrize("name", WRONG)
def test_one_bad_answer_is_no_read(front: Front, neutron: NeutronServer, name: str) -> None:
    """Whichever collection it is of."""
    what, sentence = WRONG[name]
    api = api_of(front.endpoint)
    for collection in COLLECTIONS.values():
        front.spoil = lambda _number, path, its=collection: what if f"/{its}?" in path else None
        problem = refused(api)
        assert problem.startswith(f"{front.endpoint}: ")
        assert sentence in problem
    front.spoil = lambda _number, _path: None
    assert read(api).counts["network"] == NETWORKS  # and goes on by itself


def test_a_missing_page_is_no_read(front: Front, neutron: NeutronServer) -> None:
    front.spoil = lambda _number, path: Instead(503) if "/networks" in path and "marker" in path else None
    assert "503" in refused(api_of(front.endpoint, page=2))


def test_a_server_that_gives_one_page_for_ever_is_noticed(front: Front, neutron: NeutronServer) -> None:
    front.spoil = lambda _number, path: Instead(200, AGAIN) if "/networks" in path else None
    assert "the same page of networks again and again" in refused(api_of(front.endpoint))


def test_a_server_that_does_not_answer_is_waited_for_no_longer_than_said(front: Front, neutron: NeutronServer) -> None:
    front.nth(3, Hang())
    began = time.monotonic()
    assert "timed out" in refused(api_of(front.endpoint, timeout=0.5))
    assert time.monotonic() - began < 20


def test_a_server_that_ends_in_the_middle_is_no_read(neutron: NeutronServer) -> None:
    """Behind a proxy that stays, and without one."""
    with Front(neutron.endpoint) as front:

        def end(body: bytes) -> bytes:
            neutron.stop()
            return body

        front.nth(2, Changed(end))
        assert "it answered 502" in refused(api_of(front.endpoint))
        direct = refused(api_of(neutron.endpoint))
        assert direct.endswith("Connection refused")
        neutron.start()
        assert read(api_of(front.endpoint)).counts["network"] == NETWORKS


def test_a_frozen_server_is_no_read_until_it_goes_on(neutron: NeutronServer) -> None:
    api = api_of(neutron.endpoint, timeout=1.0)
    neutron.freeze()
    try:
        assert "timed out" in refused(api)
    finally:
        neutron.thaw()
    assert read(api_of(neutron.endpoint)).counts["network"] == NETWORKS


def test_who_is_shown_only_a_part_is_told_so(front: Front, neutron: NeutronServer) -> None:
    """What a member of a project is shown of a shared network: without its provider fields."""

    def hide(body: bytes) -> bytes:
        found = json.loads(body)
        shown = [{key: value for key, value in each.items() if "provider:" not in key} for each in found["networks"]]
        return json.dumps({**found, "networks": shown}).encode()

    front.spoil = lambda _number, path: Changed(hide) if "/networks" in path else None
    assert "not an administrator's" in refused(api_of(front.endpoint))


def test_a_read_that_is_stopped_ends_before_the_next_page(front: Front, neutron: NeutronServer) -> None:
    stopped = threading.Event()

    def stop(body: bytes) -> bytes:
        stopped.set()
        return body

    front.nth(2, Changed(stop))
    api = api_of(front.endpoint)
    with pytest.raises(ReadError, match="stopped before its end"):
        api.full_read(stopped)
    assert len(front.asked) == 2


def test_a_secret_is_in_no_message(front: Front, neutron: NeutronServer, tmp_path: Path) -> None:
    front.spoil = lambda _number, _path: Instead(401, SECRET.encode())
    assert "refuses the credentials" in refused(api_of(front.endpoint, token=SECRET))
    front.spoil = lambda _number, path: Instead(401 if path.endswith("/tokens") else 503, SECRET.encode())
    clouds = tmp_path / "clouds.yaml"
    clouds.write_text(
        f"clouds:\n  here:\n    auth: {{auth_url: '{front.endpoint}/v3', username: u, password: '{SECRET}',"
        " project_name: p, user_domain_name: d, project_domain_name: d}\n"
    )
    assert "(HTTP 401)" in refused(api_of("", cloud="here", clouds_file=clouds))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"cloud": "there", "clouds_file": "{}/none.yaml"}, "there is no file"),
        ({"cloud": "there", "clouds_file": "{}/clouds.yaml"}, "Cloud there was not found"),
    ],
)
def test_a_cloud_that_is_not_described_is_named(settings: Mapping[str, str], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "clouds.yaml").write_text("clouds: {here: {auth_type: none}}\n")
    given = {name: value.format(tmp_path) for name, value in settings.items()}
    assert sentence in refused(api_of("", **given))


def test_without_the_extra_it_says_which_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openstack", None)
    monkeypatch.setitem(sys.modules, "openstack.exceptions", None)
    assert "pip install 'node-reconciler[openstack]'" in refused(api_of("http://127.0.0.1:9"))


def by_id(body: Mapping[str, Any]) -> str:
    return str(body["id"])
