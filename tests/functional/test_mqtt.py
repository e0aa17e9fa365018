"""A real daemon and a real Mosquitto in its namespaces: what the fleet sees of a node that works, dies, comes back."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Iterator

import pytest

from reconciler.contract import Outcome
from reconciler.credentials import MQTT_PASSWORD
from reconciler.doors import wire
from reconciler.doors.mqtt_format import NodeEvent, NodeReport
from reconciler.errors import DriverError
from tests.functional.daemon import PATIENCE, Node
from tests.mosquitto import USERS, Mosquitto

DESIRED = {"bridges": {"br0": {}}, "flows": {"br0": ["priority=1,actions=NORMAL", "priority=5,arp,actions=drop"]}}
FLOW = "flow/br0/priority=5,arp"
STATUS = "reconciler/nodes/n1/status"
FLOW_PASSES = 'reconciler_passes_total{controller="flow"'
SOON = 10.0
"""Seconds that a broker which does not answer may hold up an end, or a command."""
READY = 'reconciler_stream_ready{stream="mqtt"}'


@pytest.fixture
def broker(node: Node) -> Iterator[Mosquitto]:
    """A broker that the daemon can reach, and by its socket the test; the daemon's settings name it."""
    broker = Mosquitto(node.ovs.spawn)
    node.set(mqtt=broker.table(), listen="127.0.0.1:9464")
    yield broker
    broker.close()


def credentials(node: Node, password: str = USERS["n1"]) -> dict[str, str]:
    """As systemd hands them over."""
    directory = node.directory / "credentials"
    directory.mkdir(exist_ok=True)
    (directory / MQTT_PASSWORD).write_text(f"{password}\n")
    return {"CREDENTIALS_DIRECTORY": str(directory)}


@pytest.fixture
def up(node: Node, broker: Mosquitto) -> Iterator[Node]:
    node.declare(**DESIRED)
    node.start(env=credentials(node))
    yield node
    assert node.stop() == 0


def status(broker: Mosquitto) -> NodeReport | None:
    """What stands retained now."""

    async def ask() -> NodeReport | None:
        async with broker.client() as client:
            await client.subscribe(STATUS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    async for message in client.messages:
                        assert isinstance(message.payload, bytes)
                        return wire.loads(NodeReport, message.payload)
        return None

    return asyncio.run(ask())


def publish(broker: Mosquitto, topic: str, payload: str | bytes = "", times: int = 1) -> None:
    async def say() -> None:
        async with broker.client() as client:
            for _ in range(times - 1):
                await client.publish(topic, payload)
            await client.publish(topic, payload, qos=1)

    asyncio.run(say())


def stands(node: Node, broker: Mosquitto, **wanted: object) -> NodeReport:
    """Wait until the retained status has these values."""
    found: list[NodeReport] = []

    def right() -> bool:
        now = status(broker)
        found[:] = [] if now is None else [now]
        return now is not None and all(getattr(now, name) == value for name, value in wanted.items())

    node.until(right, f"the retained status says {wanted}")
    return found[0]


def passes(node: Node) -> float:
    """How many passes there were over flows."""
    return sum(value for name, value in node.metrics().items() if name.startswith(FLOW_PASSES))


def listens(node: Node) -> bool:
    return next(each.ready for each in node.status().streams if each.name == "mqtt")


def test_the_fleet_sees_a_repair_and_the_last_will_of_a_daemon_that_is_killed(node: Node, broker: Mosquitto) -> None:
    node.declare(**DESIRED)
    node.start(env=credentials(node))
    found = stands(node, broker, online=True, outcome=Outcome.CONVERGED)
    assert found.resources == {"bridge": 1, "flow": 2}
    assert found.revision == node.status().revision
    events: list[NodeEvent] = []

    async def watch() -> None:
        async with broker.client() as client:
            await client.subscribe("reconciler/nodes/n1/events", qos=1)
            await asyncio.to_thread(node.ovs.ofctl, "del-flows", "br0", "arp")
            async with asyncio.timeout(PATIENCE):
                async for message in client.messages:
                    assert isinstance(message.payload, bytes)
                    events.append(wire.loads(NodeEvent, message.payload))
                    if any(str(action.resource) == FLOW for action in events[-1].entry.actions):
                        return

    asyncio.run(watch())
    (journal,) = node.entries(FLOW, since=events[-1].entry.at - 0.001)
    assert wire.encode(journal) == wire.encode(events[-1].entry), "the event is what the journal has"
    node.until(lambda: node.metrics().get(READY) == 1, "the metric says that it is connected")
    assert time.time() - node.metrics()['reconciler_stream_last_event_timestamp_seconds{stream="mqtt"}'] < 60

    node.kill9()
    node.daemon = None
    found = stands(node, broker, online=False)
    assert "broke off" in found.detail
    said = node.cli("fleet", "--once", env=credentials(node))
    assert said.code == 5
    assert "offline" in said.out

    node.start(env=credentials(node))
    stands(node, broker, online=True, outcome=Outcome.CONVERGED)
    assert node.stop() == 0
    assert stands(node, broker, online=False).detail == "the daemon was stopped"
    assert not [line for line in node.log.read_text().splitlines() if "s3cret" in line]


def test_the_fleet_shows_this_node_beside_others(up: Node, broker: Mosquitto) -> None:
    stands(up, broker, online=True, outcome=Outcome.CONVERGED)
    other = {"node": "n2", "online": True, "time": time.time(), "every": 10, "outcome": "conflict", "exit_code": 4}

    async def speak() -> None:
        async with broker.client() as client:
            await client.publish("reconciler/nodes/n2/status", json.dumps(other), qos=1, retain=True)

    asyncio.run(speak())
    said = up.cli("fleet", "--once", "--output", "json", env=credentials(up))
    assert said.code == 4
    assert [(row["node"], row["state"]) for row in said.json] == [("n2", "conflict"), ("n1", "converged")]
    said = up.cli("fleet", "--once", "n1", env=credentials(up))
    assert (said.code, "fleet: 1 node: 1 converged" in said.out) == (0, True)


def test_a_status_follows_a_pause_a_mistake_and_what_waits(up: Node, broker: Mosquitto) -> None:
    assert up.cli("pause", "flow", "--reason", "a test").code == 0
    assert stands(up, broker, pauses=("flow",)).online
    assert up.cli("resume", "all").code == 0
    up.write("bridgs: {}\n", "wrong.yaml")
    assert stands(up, broker, config_problems=1).exit_code == 1
    (up.desired / "wrong.yaml").unlink()
    stands(up, broker, config_problems=0, exit_code=0)


def test_a_node_on_which_nothing_happens_says_so_only_now_and_then(up: Node, broker: Mosquitto) -> None:
    stands(up, broker, online=True, outcome=Outcome.CONVERGED)
    time.sleep(1.0)
    heard: list[bytes] = []

    async def listen() -> None:
        async with broker.client() as client:
            await client.subscribe("reconciler/nodes/#")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(15.0):
                    async for message in client.messages:
                        assert isinstance(message.payload, bytes)
                        heard.append(message.payload)

    asyncio.run(listen())
    times = [wire.loads(NodeReport, payload).time for payload in heard]
    assert 2 <= len(times) <= 3, "what stood retained, and the heartbeat"
    assert all(7.5 < later - earlier < 15 for earlier, later in itertools.pairwise(times))


def test_asked_to_look_a_node_looks_and_refuses_garbage(up: Node, broker: Mosquitto) -> None:
    before = passes(up)
    assert before > 0
    publish(broker, "reconciler/nodes/n1/look", "flow")
    up.until(lambda: passes(up) > before, "a pass over the flows")
    publish(broker, "reconciler/look", b"\xff\x00 rubbish")
    up.until(lambda: any(line["event"] == "look_refused" for line in up.log_lines()), "garbage is refused")


def test_a_flood_of_requests_holds_up_no_repair(up: Node, broker: Mosquitto) -> None:
    stands(up, broker, online=True)
    publish(broker, "reconciler/look", times=20_000)
    with up.repairs(FLOW):
        up.ovs.ofctl("del-flows", "br0", "arp")
    up.until(lambda: any(line["event"] == "look_flood" for line in up.log_lines()), "the flood is told")
    looks = [line for line in up.log_lines() if line["event"] == "look_asked_for"]
    assert len(looks) < 20
    assert up.get("/healthz")[0] == 200


def test_without_its_broker_the_daemon_repairs_and_tells_it_when_it_is_back(node: Node, broker: Mosquitto) -> None:
    broker.kill()
    node.declare(**DESIRED)
    node.start(env=credentials(node))
    where = f"mqtt://n1@127.0.0.1:{broker.plain}"
    node.until(lambda: any(where in notice for notice in node.status().notices), "it is told")
    said = node.cli("status")
    assert said.code == 0, "a broker that is away is no reason for another exit code"
    assert f"note: the MQTT broker {where} does not answer" in said.out
    with node.repairs(FLOW):
        node.ovs.ofctl("del-flows", "br0", "arp")
    node.until(lambda: node.metrics().get(READY) == 0, "the metric says that it is not connected")
    broker.start()
    node.until(lambda: listens(node), "it is connected", 60)
    assert node.status().notices == ()
    stands(node, broker, online=True, outcome=Outcome.CONVERGED)
    assert node.stop() == 0


def test_wrong_credentials_are_told_by_status_and_doctor_and_not_shown(node: Node, broker: Mosquitto) -> None:
    env = credentials(node, "s3cret-but-wrong")
    node.declare(**DESIRED)
    node.start(env=env)
    node.until(lambda: node.status().notices, "it is told")
    told = [node.cli("status").text, node.cli("doctor", env=env).text, node.log.read_text()]
    assert all("refuses user 'n1' with this password: wrong credentials" in each for each in told)
    config = node.cli("config", env=env).out
    assert "mqtt.password = ***" in config
    assert "s3cret" not in f"{told}{config}"
    assert node.stop() == 0


def test_doctor_says_whether_the_broker_lets_us_in(node: Node, broker: Mosquitto) -> None:
    node.set(mqtt=broker.table(tls=True))
    node.declare(**DESIRED)
    env = credentials(node)
    said = {check["name"]: check for check in node.cli("doctor", "--output", "json", env=env).json}
    assert said["mqtt"]["verdict"] == "ok"
    assert f"mqtts://n1@127.0.0.1:{broker.tls} lets us in" in said["mqtt"]["detail"]
    broker.kill()
    said = {check["name"]: check for check in node.cli("doctor", "--output", "json", env=env).json}
    assert said["mqtt"]["verdict"] == "bad"
    assert "Connection refused" in said["mqtt"]["detail"]
    assert said["mqtt"]["advice"]


def test_a_broker_that_is_frozen_holds_up_neither_repairs_nor_the_stop(node: Node, broker: Mosquitto) -> None:
    node.declare(**DESIRED)
    node.start(env=credentials(node))
    node.until(lambda: listens(node), "it is connected")
    with broker.frozen():
        for _ in range(3):
            with node.repairs(FLOW):
                node.ovs.ofctl("del-flows", "br0", "arp")
        began = time.monotonic()
        assert node.stop() == 0
        assert time.monotonic() - began < SOON
    with pytest.raises(DriverError):
        node.client.ping()


def test_a_network_that_swallows_all_for_the_broker_holds_up_nothing(node: Node, broker: Mosquitto) -> None:
    node.ovs.run("iptables", "-A", "OUTPUT", "-p", "tcp", "--dport", str(broker.plain), "-j", "DROP")
    node.declare(**DESIRED)
    node.start(env=credentials(node))
    with node.repairs(FLOW):
        node.ovs.ofctl("del-flows", "br0", "arp")
    node.until(lambda: any("does not answer" in notice for notice in node.status().notices), "it is told", 20)
    began = time.monotonic()
    assert node.stop() == 0
    assert time.monotonic() - began < SOON
    node.daemon = None
    began = time.monotonic()
    assert node.cli("fleet", "--once", "--timeout", "1", env=credentials(node)).code == 5
    assert time.monotonic() - began < SOON
