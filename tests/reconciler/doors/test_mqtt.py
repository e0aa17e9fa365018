"""The publisher on a real Mosquitto: what stands retained, what comes as it happens, a broker that goes and comes."""

import asyncio
import contextlib
import gc
import io
import json
import logging
from dataclasses import replace

import aiomqtt
import pytest
import structlog

from reconciler import logs
from reconciler.clock import SystemClock
from reconciler.contract import Outcome
from reconciler.doors import mqtt, mqtt_link, mqtt_looks, wire
from reconciler.doors.mqtt import Publisher
from reconciler.doors.mqtt_format import LARGEST, NodeEvent, Topics, offline, read_report, report_payload
from reconciler.errors import ConfigError
from reconciler.once import background
from reconciler.settings import Settings
from tests.mosquitto import PATIENCE, USERS, Mosquitto
from tests.reconciler.doors.fakes import REPAIR, FakeNode

TOPICS = Topics("reconciler")
STATUS, EVENTS = TOPICS.status("n1"), TOPICS.events("n1")


class Watched(FakeNode):
    """A node whose status changes when the test says so; `looked` is what it was asked to look at."""

    def __init__(self):
        super().__init__()
        self.looked = []

    def stamp(self):
        return self.current

    def check_selector(self, only):
        if only.partition("/")[0] not in {"port", "bridge", "flow"}:
            raise ConfigError(f"there is no kind {only!r}")

    def look(self, only, reason):
        self.looked.append(only)


@pytest.fixture
def watched():
    node = Watched()
    node.current = replace(node.current, node="n1")
    return node


@pytest.fixture
def log():
    """What was logged so far, as one text."""
    stream, root = io.StringIO(), logging.getLogger()
    before, level = root.handlers, root.level
    logs.configure("info", "json", stream)
    yield stream.getvalue
    logging.captureWarnings(capture=False)
    root.handlers = before
    root.setLevel(level)
    structlog.reset_defaults()


def build(settings, node):
    return Publisher(Settings(node="n1", mqtt=settings), node, SystemClock())


async def until(true, what):
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while not true():
                await asyncio.sleep(0.01)
            return
    raise AssertionError(f"not within {PATIENCE} s: {what}")


@contextlib.asynccontextmanager
async def listening(mosquitto, *topics):
    """Everything that comes under `topics` from now on, as (topic, retained, payload)."""
    heard = []

    async def listen(client):
        async for message in client.messages:
            heard.append((str(message.topic), message.retain, message.payload))

    async with mosquitto.client() as client:
        for topic in topics:
            await client.subscribe(topic, qos=1)
        async with background(listen(client), "test-listener"):
            yield heard


async def retained(mosquitto, topic=STATUS):
    """The payload that a newcomer is given."""
    while True:
        async with listening(mosquitto, topic) as heard:
            await until(lambda: heard, f"something is retained under {topic}")
            if heard[0][1]:  # else it came just now, and the next newcomer is given it
                return heard[0][2]


async def stands(mosquitto, right):
    """Wait until what is retained is `right`; the report."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = read_report("n1", await retained(mosquitto))
            if right(found):
                return found
            await asyncio.sleep(0.02)


async def test_the_status_stands_retained_and_follows_what_changes(mosquitto, watched):
    publisher = build(mosquitto.settings(), watched)
    async with background(publisher.run(), "publisher"):
        found = await stands(mosquitto, lambda r: r.online)
        assert (found.outcome, found.exit_code, found.revision) == (Outcome.CONFLICT, 4, "abc123")
        assert found.wrong == {"conflict": 1}
        assert found.config_problems == 1
        assert found.budget_waiting == 9
        assert publisher.stream().ready
        assert publisher.notices() == ()
        watched.current = replace(watched.current, outcome=Outcome.CONVERGED, exit_code=0, not_right=(), revision="b")
        found = await stands(mosquitto, lambda r: r.revision == "b")
        assert (found.exit_code, dict(found.wrong)) == (0, {})
    stopped = read_report("n1", await retained(mosquitto))
    assert (stopped.online, stopped.detail, stopped.exit_code) == (False, mqtt.STOPPED, 5)


async def test_statuses_come_at_most_as_often_as_is_said_and_the_newest_is_the_last(mosquitto, watched):
    async with background(build(mosquitto.settings(), watched).run(), "publisher"):
        await stands(mosquitto, lambda r: r.online)
        async with listening(mosquitto, STATUS) as heard:
            loop = asyncio.get_running_loop()
            began = loop.time()
            for number in range(100):
                watched.current = replace(watched.current, revision=f"r{number}")
                await asyncio.sleep(0.01)
            await until(lambda: heard and read_report("n1", heard[-1][2]).revision == "r99", "the newest")
            most = (loop.time() - began) / mqtt.STATUS_EVERY + 3
        assert len(heard) <= most


async def test_a_pass_comes_as_it_happens_and_is_what_the_journal_has(mosquitto, watched):
    publisher = build(mosquitto.settings(), watched)
    async with background(publisher.run(), "publisher"), listening(mosquitto, EVENTS) as heard:
        await until(lambda: publisher.stream().ready, "connected")
        publisher.record(REPAIR)
        await until(lambda: heard, "the event")
        topic, kept, payload = heard[0]
        assert (topic, kept) == (EVENTS, False)
        event = wire.loads(NodeEvent, payload)
        assert wire.encode(event.entry) == wire.encode(REPAIR)
        assert (event.node, event.omitted, event.missed) == ("n1", 0, 0)


async def test_a_pass_with_thousands_of_actions_stays_small_and_says_what_is_left_out(mosquitto, watched):
    action = replace(REPAIR.actions[0], why="w" * 5000, before="\u00e9" * 5000, after="\U0001f6a8" * 5000)
    publisher = build(mosquitto.settings(), watched)
    async with background(publisher.run(), "publisher"), listening(mosquitto, EVENTS) as heard:
        publisher.record(replace(REPAIR, actions=(action,) * 10_000))
        await until(lambda: heard, "the event")
        event = wire.loads(NodeEvent, heard[0][2])
        assert len(heard[0][2]) <= LARGEST
        assert len(event.entry.actions) + len(event.entry.findings) + event.omitted == 10_001


async def test_a_broker_that_restarts_loses_no_event_and_is_given_the_newest_status(mosquitto, watched):
    publisher = build(mosquitto.settings(), watched)
    async with background(publisher.run(), "publisher"):
        await until(lambda: publisher.stream().ready, "connected")
        mosquitto.kill()
        await until(lambda: not publisher.stream().ready, "the loss is noticed")
        assert f"mqtt://n1@127.0.0.1:{mosquitto.plain}" in publisher.notices()[0]
        assert publisher.stream().lost == 1
        for number in range(50):
            publisher.record(replace(REPAIR, pass_id=number))
        watched.current = replace(watched.current, revision="after")
        mosquitto.start()
        async with listening(mosquitto, EVENTS, STATUS) as heard:
            await until(lambda: len([h for h in heard if h[0] == EVENTS]) >= 50, "all events come")
        events = [wire.loads(NodeEvent, payload).entry.pass_id for topic, _, payload in heard if topic == EVENTS]
        assert events == list(range(50))
        assert (await stands(mosquitto, lambda r: r.online)).revision == "after"
        assert publisher.notices() == ()


async def test_a_loss_that_nobody_was_waiting_for_is_not_complained_of_by_the_loop(mosquitto):
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context["message"]))
    async with mqtt_link.connection(mosquitto.settings(), "idle") as client:
        mosquitto.kill()
        await until(client._disconnected.done, "the loss is noticed")
    del client
    gc.collect()
    assert complaints == []


async def test_a_broker_that_is_away_for_too_long_costs_the_oldest_events_and_says_how_many(mosquitto, watched):
    mosquitto.kill()
    publisher = build(mosquitto.settings(), watched)
    async with background(publisher.run(), "publisher"):
        await until(publisher.notices, "it is told")
        for number in range(mqtt.BUFFERED + 30):
            publisher.record(replace(REPAIR, pass_id=number))
        mosquitto.start()
        async with listening(mosquitto, EVENTS) as heard:
            await until(
                lambda: heard and json.loads(heard[-1][2])["entry"]["pass_id"] == mqtt.BUFFERED + 29, "the last"
            )
        first = wire.loads(NodeEvent, heard[0][2])
        if first.entry.pass_id == 30:  # else some had been sent before the test listened
            assert first.missed == 30
        assert sum(wire.loads(NodeEvent, payload).missed for _, _, payload in heard) in {0, 30}
        assert publisher._missed == 0


async def test_a_connection_of_before_that_is_half_open_does_not_make_the_node_offline(mosquitto, watched):
    will = aiomqtt.Will(STATUS, report_payload(offline("n1", mqtt.BROKE_OFF)), qos=1, retain=True)
    login = {"username": "n1", "password": USERS["n1"]}
    before = aiomqtt.Client("127.0.0.1", mosquitto.plain, **login, identifier="reconciler-n1", will=will)
    publisher = build(mosquitto.settings(), watched)
    with contextlib.suppress(aiomqtt.MqttError):  # it is pushed out
        async with before, listening(mosquitto, STATUS) as heard, background(publisher.run(), "publisher"):
            await until(lambda: publisher.stream().ready, "the new one is connected")
            await until(lambda: len(heard) >= 2, "the last will of the old one, and the status of the new one")
            await asyncio.sleep(0.3)
            assert [read_report("n1", payload).online for _, _, payload in heard] == [False, True]
            assert read_report("n1", await retained(mosquitto)).online
    mqtt_link.heed_loss(before)


async def test_a_broker_that_is_frozen_is_noticed_and_holds_up_nothing(mosquitto, watched, monkeypatch):
    monkeypatch.setattr(mqtt.link, "ANSWER_SECONDS", 0.5)
    publisher = build(mosquitto.settings(), watched)
    async with background(publisher.run(), "publisher"):
        await until(lambda: publisher.stream().ready, "connected")
        with mosquitto.frozen():
            watched.current = replace(watched.current, revision="while it is frozen")
            await until(publisher.notices, "it is noticed")
            assert "does not answer" in publisher.notices()[0]
        found = await stands(mosquitto, lambda r: r.revision == "while it is frozen")
        assert found.online


@pytest.mark.parametrize("user", ["n1", "stranger"])
async def test_wrong_credentials_are_said_as_such_and_no_password_is(mosquitto, watched, log, user):
    settings = mosquitto.settings().model_copy(
        update={"url": f"mqtt://{user}@127.0.0.1:{mosquitto.plain}", "password": "s3cret-but-wrong"}
    )
    publisher = build(settings, watched)
    async with background(publisher.run(), "publisher"):
        await until(publisher.notices, "it is told")
        said = f"{publisher.notices()} {publisher.stream()} {log()}"
    assert f"refuses user '{user}' with this password: wrong credentials" in said
    assert f"127.0.0.1:{mosquitto.plain}" in said
    assert "s3cret" not in said


async def test_a_user_who_may_not_listen_is_told_and_publishes_all_the_same(watched, request):
    mosquitto = Mosquitto(roles=True)
    request.addfinalizer(mosquitto.close)
    publisher = build(mosquitto.settings("deaf"), watched)
    async with background(publisher.run(), "publisher"):
        assert (await stands(mosquitto, lambda r: r.online)).outcome is Outcome.CONFLICT
        await until(publisher.notices, "it is told")
        assert "does not let user 'deaf' read reconciler/look" in publisher.notices()[0]
        assert publisher.stream().ready


@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket")  # paho leaves it to the collector
async def test_tls_is_checked_against_the_authority_of_the_settings(mosquitto, watched):
    async with background(build(mosquitto.settings(tls=True), watched).run(), "publisher"):
        await stands(mosquitto, lambda r: r.online)
    stranger = mosquitto.settings(tls=True).model_copy(update={"ca": None})
    publisher = build(stranger, watched)
    async with background(publisher.run(), "publisher"):
        await until(publisher.notices, "it is told")
        assert "is not trusted by the system's authorities (mqtt.ca is not set)" in publisher.notices()[0]
    missing = mosquitto.settings(tls=True).model_copy(update={"ca": mosquitto.directory / "none.pem"})
    publisher = build(missing, watched)
    async with background(publisher.run(), "publisher"):
        await until(publisher.notices, "it is told")
        assert "none.pem cannot be used: No such file or directory" in publisher.notices()[0]


async def test_a_certificate_of_its_own_stands_for_user_and_password(mosquitto, watched):
    async with background(build(mosquitto.certified(), watched).run(), "publisher"):
        await stands(mosquitto, lambda r: r.online)
    publisher = build(mosquitto.certified().model_copy(update={"key": mosquitto.directory / "server.key"}), watched)
    async with background(publisher.run(), "publisher"):
        await until(publisher.notices, "it is told")
        assert "n1.pem with mqtt.key" in publisher.notices()[0]


async def test_asked_to_look_it_looks(mosquitto, watched, log):
    publisher = build(mosquitto.settings(), watched)
    async with background(publisher.run(), "publisher"), mosquitto.client() as client:
        await stands(mosquitto, lambda r: r.online)
        await client.publish(TOPICS.look, qos=1)
        await until(lambda: watched.looked == [None], "everything is looked at")
        await client.publish(TOPICS.look_at("n1"), "port/tap0", qos=1)
        await until(lambda: watched.looked == [None, "port/tap0"], "one port is looked at")
        await client.publish(TOPICS.look_at("n2"), "bridge", qos=1)
        await client.publish(TOPICS.look_at("n1"), "flow", qos=1)
        await until(lambda: watched.looked == [None, "port/tap0", "flow"], "what others are asked is not ours")
        assert '"look_asked_for"' in log()


@pytest.mark.parametrize(
    ("payload", "keep", "said"),
    [
        (b"\xff\xfe\x00", False, "it is no text"),
        (b"x" * 5000, False, "5000 bytes are no KIND or KIND/NAME"),
        (b'{"node": "n1"}', False, "there is no kind"),
        (b"nonsense\x1b[31m", False, "there is no kind"),
        (b"port", True, "it is retained"),
    ],
)
async def test_garbage_is_refused_with_a_line_in_the_log(mosquitto, watched, log, payload, keep, said):
    publisher = build(mosquitto.settings(), watched)
    async with mosquitto.client() as client:
        if keep:
            await client.publish(TOPICS.look, payload, qos=1, retain=True)
        async with background(publisher.run(), "publisher"):
            await stands(mosquitto, lambda r: r.online)
            if not keep:
                await client.publish(TOPICS.look, payload, qos=1)
            await client.publish(TOPICS.look_at("n1"), "bridge", qos=1)
            await until(lambda: watched.looked, "what comes behind it is taken")
    assert watched.looked == ["bridge"]
    told = log()
    assert '"look_refused"' in told
    assert said in told
    assert "\x1b" not in told


async def test_a_flood_of_requests_is_a_look_a_second_and_the_status_goes_on(mosquitto, watched, log, monkeypatch):
    monkeypatch.setattr(mqtt, "FLOOD_PAUSE", 1.0)
    publisher = build(mosquitto.settings(), watched)
    async with background(publisher.run(), "publisher"), mosquitto.client() as client:
        await until(lambda: publisher.stream().ready, "connected")
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(5000):
            await client.publish(TOPICS.look, "port" if number % 2 else "rubbish", qos=0)
        watched.current = replace(watched.current, revision="in the flood")
        await stands(mosquitto, lambda r: r.revision == "in the flood")
        await until(lambda: None in watched.looked, "after the flood, everything is looked at")
        assert len(watched.looked) <= (loop.time() - began) / mqtt_looks.LOOK_EVERY + 2
        told = log()
        assert "look_flood" in told
        assert told.count("look_refused") <= (loop.time() - began) / mqtt_looks.REFUSED_EVERY + 1
        watched.looked.clear()
        await asyncio.sleep(1.2)
        await client.publish(TOPICS.look, "flow", qos=1)
        await until(lambda: "flow" in watched.looked or None in watched.looked, "it listens again")


def test_the_passwords_of_the_tests_are_ones_that_would_be_found():
    assert all(password.startswith("s3cret") for password in USERS.values())
