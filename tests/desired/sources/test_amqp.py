"""Notifications from a real RabbitMQ, published by the real `oslo.messaging`: received, lost and found again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from desired.network.mirror import Mirror
from desired.network.openstack import NOTIFIED, Kind
from desired.resource import ResourceId
from desired.sources.amqp import AmqpSource, Batch
from reconciler.clock import SystemClock
from reconciler.settings_sections import AmqpSettings
from tests.desired.network.neutron import floating_ip, network, port, router, subnet, uid
from tests.desired.sources.broker import channel, publish, queued, told, until
from tests.desired.sources.conftest import QUEUE
from tests.oslo import Publisher
from tests.rabbitmq import RabbitServer
from tests.server import free_ports


class Impatient(SystemClock):
    """The real clock, with the shortest of all delays."""

    def chance(self) -> float:
        return 0.0


class Heard:
    """What a source gave, and its gaps. `acking` False keeps what comes unacknowledged."""

    def __init__(self, settings: AmqpSettings) -> None:
        self.batches: list[Batch] = []
        self.gaps: list[str] = []
        self.acking = True
        self.source = AmqpSource(settings, "node-1", clock=Impatient(), on_gap=self.gaps.append)

    async def listen(self) -> None:
        async with contextlib.aclosing(self.source.watch()) as batches:
            async for batch in batches:
                self.batches.append(batch)
                if self.acking:
                    self.source.ack(batch)

    @property
    def events(self) -> list[str]:
        return [notice.event for batch in self.batches for notice in batch.notices]

    @property
    def names(self) -> list[str]:
        """The names of the networks that were told of."""
        return [notice.payload["network"]["name"] for batch in self.batches for notice in batch.notices]


@contextlib.asynccontextmanager
async def listening(settings: AmqpSettings, *, ready: bool = True) -> AsyncIterator[Heard]:
    heard = Heard(settings)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(heard.listen())
        if ready:
            await until(lambda: heard.source.ready)
        yield heard
        task.cancel()


def fresh(settings: AmqpSettings, **more: Any) -> AmqpSettings:
    return AmqpSettings.model_validate(settings.model_dump() | more)


@pytest.fixture(scope="module")
def publisher() -> Iterator[Publisher]:
    with Publisher() as running:
        yield running


# -- what oslo.messaging says ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["messagingv2", "messaging"])
async def test_every_event_of_neutron_is_understood(settings: AmqpSettings, publisher: Publisher, driver: str) -> None:
    bodies = {
        Kind.NETWORK: network(1),
        Kind.SUBNET: subnet(2, 1),
        Kind.PORT: port(3, 1, 2),
        Kind.ROUTER: router(4),
        Kind.FLOATINGIP: floating_ip(5, 1),
    }
    inside = {"id": uid(4), "port_id": uid(6), "subnet_id": uid(2), "subnet_ids": [uid(2)], "tenant_id": "t"}
    mirror = Mirror()
    async with listening(settings) as heard:

        def send(event: str, payload: Any) -> None:
            publisher.notify(settings.url, event, payload, driver=driver)

        def taken() -> Mirror:
            for batch in heard.batches:
                mirror.take(batch.notices)
            heard.batches.clear()
            return mirror

        for kind in NOTIFIED:
            await asyncio.to_thread(send, f"{kind}.create.start", {kind: {"name": "wish"}})
            await asyncio.to_thread(send, f"{kind}.create.end", {kind: bodies[kind]})
            await asyncio.to_thread(send, f"{kind}.update.end", {kind: bodies[kind] | {"name": "changed"}})
        await asyncio.to_thread(send, "port.create.end", {"ports": [port(7, 1, 2), port(8, 1, 2)]})
        await asyncio.to_thread(send, "router.interface.create", {"router_interface": inside})
        await asyncio.to_thread(send, "security_group.create.end", {"security_group": {"id": uid(9)}})
        await until(lambda: taken().counts.total() == 18)
        assert mirror.counts == {"start": 5, "taken": 12, "ignored": 1}
        displays = {rid.kind: resource.spec.display for rid, resource in mirror.resources.items() if rid.name < uid(6)}
        assert set(displays.values()) == {"changed"}
        assert len(displays) == 5
        assert {uid(7), uid(8)} <= {rid.name for rid in mirror.resources if rid.kind == "neutron_port"}
        assert mirror.resources[ResourceId("router", uid(4))].spec.interfaces[0].subnet == uid(2)
        await asyncio.to_thread(send, "router.interface.delete", {"router.interface": inside})
        for kind in NOTIFIED:
            await asyncio.to_thread(send, f"{kind}.delete.end", {f"{kind}_id": bodies[kind]["id"]})
        await until(lambda: taken().counts.total() == 24)
        assert {rid.name for rid in mirror.resources} == {uid(7), uid(8)}
        assert heard.source.problem == ""


async def test_the_exchange_that_a_publisher_made_is_found_as_it_is(
    settings: AmqpSettings, publisher: Publisher
) -> None:
    """Not durable, as `oslo.messaging` makes it: nothing of ours is refused with 406."""
    await asyncio.to_thread(publisher.notify, settings.url, "network.create.end", {"network": network(1)})
    own = fresh(settings, declare_exchanges=True, durable_exchanges=True)
    async with listening(own) as heard:
        await asyncio.to_thread(publisher.notify, settings.url, "network.create.end", {"network": network(2)})
        await until(lambda: heard.names == ["net2"])


async def test_the_publishers_own_queue_is_never_consumed(settings: AmqpSettings, publisher: Publisher) -> None:
    async with listening(settings) as heard:
        await asyncio.to_thread(publisher.notify, settings.url, "network.create.end", {"network": network(1)})
        await until(lambda: heard.names == ["net1"])
    assert queued(settings.url, "notifications.info") == 1


async def test_exchanges_and_topics_of_another_release(settings: AmqpSettings, publisher: Publisher) -> None:
    old = fresh(settings, exchanges=("quantum", "openstack"), topics=("notifications", "for_us"))
    body = {"network": network(1)}
    async with listening(old) as heard:
        for exchange, topic in (("quantum", "notifications"), ("openstack", "for_us")):
            await asyncio.to_thread(
                publisher.notify, settings.url, "network.create.end", body, exchange=exchange, topics=[topic]
            )
        await until(lambda: len(heard.names) == 2)


# -- what a broker does to us ---------------------------------------------------------------------------------------


async def test_an_exchange_that_does_not_exist_is_waited_for(
    settings: AmqpSettings, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("desired.sources.amqp_link.RECHECK", 0.2)
    async with listening(fresh(settings, declare_exchanges=False), ready=False) as heard:
        await until(lambda: "has no exchange neutron" in heard.source.problem)
        assert not heard.source.ready
        await asyncio.to_thread(publisher.notify, settings.url, "network.create.end", {"network": network(1)})
        await until(lambda: heard.source.ready)
        assert heard.gaps[-1] == "exchange neutron was not there"
        await asyncio.to_thread(publisher.notify, settings.url, "network.create.end", {"network": network(2)})
        await until(lambda: "net2" in heard.names)


@pytest.mark.parametrize("ours", [True, False])
async def test_an_exchange_that_is_deleted_under_us_is_noticed(
    settings: AmqpSettings, monkeypatch: pytest.MonkeyPatch, *, ours: bool
) -> None:
    monkeypatch.setattr("desired.sources.amqp_link.RECHECK", 0.2)
    with channel(settings.url) as opened:
        opened.exchange_declare("neutron", "topic", durable=False, auto_delete=False)
    async with listening(fresh(settings, declare_exchanges=ours)) as heard:
        first = len(heard.gaps)
        with channel(settings.url) as opened:
            opened.exchange_delete("neutron")
        if not ours:
            await until(lambda: "has no exchange neutron" in heard.source.problem)
            with channel(settings.url) as opened:
                opened.exchange_declare("neutron", "topic", durable=False, auto_delete=False)
        await until(lambda: heard.gaps[first:] == ["exchange neutron was not there"])
        await until(lambda: heard.source.ready)
        await asyncio.to_thread(publish, settings.url, told("one"))
        await until(lambda: heard.names == ["one"])


async def test_a_broker_that_goes_and_comes_back(settings: AmqpSettings, rabbit_server: RabbitServer) -> None:
    async with listening(settings) as heard:
        first = len(heard.gaps)
        await asyncio.to_thread(rabbit_server.stop)
        await until(lambda: "tried again in" in heard.source.problem)
        assert not heard.source.ready
        rabbit_server.start()  # from the thread that outlives this test: the broker ends with the one that started it
        await until(lambda: heard.source.ready)
        assert heard.gaps[first:] == [f"queue {QUEUE} was not there"]
        assert heard.source.lost_count == 1
        await asyncio.to_thread(publish, settings.url, told("after"))
        await until(lambda: "after" in heard.names)


async def test_a_connection_that_breaks_loses_nothing_that_waits_at_the_broker(
    settings: AmqpSettings, rabbit_server: RabbitServer
) -> None:
    async with listening(settings) as heard:
        heard.acking = False
        first = len(heard.gaps)
        await asyncio.to_thread(publish, settings.url, told("one"))
        await until(lambda: heard.names == ["one"])
        heard.acking = True
        await asyncio.to_thread(rabbit_server.close_connections)
        await until(lambda: heard.source.lost_count == 1 and heard.source.ready)
        await asyncio.to_thread(publish, settings.url, told("two"))
        await until(lambda: heard.names == ["one", "one", "two"])
        assert heard.gaps[first:] == []
        await until(lambda: queued(settings.url) == 0)


async def test_a_half_open_connection_is_noticed_by_its_heartbeats(
    settings: AmqpSettings, rabbit_server: RabbitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And told at once: a good-bye would be waited for as long as any answer."""
    monkeypatch.setattr("desired.sources.broker.ANSWER_SECONDS", 600.0)
    async with listening(fresh(settings, heartbeat=1)) as heard:
        rabbit_server.freeze()
        try:
            await until(lambda: not heard.source.ready)
            assert "heartbeat" in heard.source.problem
        finally:
            rabbit_server.thaw()
        await until(lambda: heard.source.ready)


async def test_credentials_that_are_refused_are_named_and_the_password_is_not(
    settings: AmqpSettings, rabbit_server: RabbitServer, capsys: pytest.CaptureFixture[str]
) -> None:
    rabbit_server.add_user("listener", "s3cret-right", "/")
    wrong = rabbit_server.url("listener", "s3cret-wrong")
    async with listening(fresh(settings, url=wrong), ready=False) as heard:
        await until(lambda: "refuses" in heard.source.problem)
        for part in (f"broker 127.0.0.1:{rabbit_server.port}", "user 'listener'", "vhost '/'"):
            assert part in heard.source.problem
        rabbit_server.set_password("listener", "s3cret-wrong")
        await until(lambda: heard.source.ready)
    output = capsys.readouterr()
    assert "s3cret" not in f"{heard.source.problem}{output.out}{output.err}{settings!r}"


@pytest.mark.parametrize("vhost", ["no such vhost", "not for us"])
async def test_a_vhost_that_is_refused_is_named(
    settings: AmqpSettings, rabbit_server: RabbitServer, vhost: str
) -> None:
    with contextlib.suppress(RuntimeError):
        rabbit_server.add_user("lonely", "p", "/")
    if vhost == "not for us":
        rabbit_server.add_vhost(vhost)
    async with listening(fresh(settings, url=rabbit_server.url("lonely", "p", vhost)), ready=False) as heard:
        await until(lambda: "refuses" in heard.source.problem)
        assert f"user 'lonely' and vhost '{vhost}'" in heard.source.problem


async def test_a_broker_that_is_not_there_is_named(settings: AmqpSettings) -> None:
    place = f"127.0.0.1:{free_ports(1)[0]}"
    async with listening(fresh(settings, url=f"amqp://guest:guest@{place}/"), ready=False) as heard:
        await until(lambda: f"broker {place} cannot be reached: Connection refused" in heard.source.problem)


async def test_the_next_broker_of_the_url_is_tried(settings: AmqpSettings) -> None:
    both = settings.url.replace("@", f"@127.0.0.1:{free_ports(1)[0]},")
    async with listening(fresh(settings, url=both)) as heard:
        await asyncio.to_thread(publish, settings.url, told("one"))
        await until(lambda: heard.names == ["one"])


async def test_something_that_is_no_broker_is_named(settings: AmqpSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = server.getsockname()[1]

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    client.close()

        threading.Thread(target=answer, daemon=True).start()
        async with listening(fresh(settings, url=f"amqp://u:p@127.0.0.1:{where}/"), ready=False) as heard:
            await until(lambda: heard.source.problem.startswith(f"broker 127.0.0.1:{where} "))
        server.shutdown(socket.SHUT_RDWR)


async def test_a_queue_that_is_deleted_under_us_is_made_again(settings: AmqpSettings) -> None:
    async with listening(settings) as heard:
        first = len(heard.gaps)
        with channel(settings.url) as opened:
            opened.queue_delete(QUEUE)
        await until(lambda: heard.source.lost_count == 1 and heard.source.ready)
        assert heard.gaps[first:] == [f"queue {QUEUE} was not there"]
        await asyncio.to_thread(publish, settings.url, told("one"))
        await until(lambda: heard.names == ["one"])


async def test_a_queue_of_other_settings_is_made_anew(settings: AmqpSettings) -> None:
    async with listening(settings):
        pass
    async with listening(fresh(settings, queue_length=7)) as heard:
        assert f"queue {QUEUE} was not there" in heard.gaps
        await asyncio.to_thread(publish, settings.url, told("one"))
        await until(lambda: heard.names == ["one"])


async def test_two_nodes_of_one_name_are_told_so(settings: AmqpSettings) -> None:
    async with listening(settings), listening(settings, ready=False) as second:
        await until(lambda: f"somebody else consumes queue {QUEUE}" in second.source.problem)


async def test_what_came_while_we_were_away_is_there_and_an_overflow_is_a_gap(settings: AmqpSettings) -> None:
    small = fresh(settings, queue_length=5)
    async with listening(small):
        pass
    publish(settings.url, *(told(f"n{number}") for number in range(3)))
    async with listening(small) as heard:
        await until(lambda: heard.names == ["n0", "n1", "n2"])
        assert heard.gaps == ["this process has just begun to listen"]
    await until(lambda: queued(settings.url) == 0)
    publish(settings.url, *(told(f"n{number}") for number in range(9)))
    async with listening(small) as heard:
        await until(lambda: len(heard.names) == 5)
        assert heard.gaps == [f"queue {QUEUE} was full: the oldest of its messages were dropped"]


@contextlib.asynccontextmanager
async def tls(directory: Path, port: int) -> AsyncIterator[int]:
    """A listener in front of the broker that speaks TLS, and wants a client's certificate: of the same authority."""
    files = {name: str(directory / f"{name}.pem") for name in ("cert", "key")}
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-days", "2", "-subj", "/CN=broker", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*argv, "-keyout", files["key"], "-out", files["cert"]], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files["cert"])
    context.load_cert_chain(files["cert"], files["key"])
    context.verify_mode = ssl.CERT_REQUIRED

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inside, outside = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, outside), pump(inside, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_tls_with_certificates_on_both_sides(
    settings: AmqpSettings, rabbit_server: RabbitServer, tmp_path: Path
) -> None:
    async with tls(tmp_path, rabbit_server.port) as place:
        url = settings.url.replace("amqp://", "amqps://").replace(str(rabbit_server.port), str(place))
        own = {"cert": tmp_path / "cert.pem", "key": tmp_path / "key.pem"}
        async with listening(fresh(settings, url=url, ca=tmp_path / "cert.pem", **own)) as heard:
            bodies = [told(f"n{number}") for number in range(300)]
            await asyncio.to_thread(publish, settings.url, *bodies)
            await until(lambda: len(heard.names) == 300)
        async with listening(fresh(settings, url=url, **own), ready=False) as heard:
            await until(lambda: "shows a certificate that is not trusted" in heard.source.problem)
        elsewhere = url.replace("127.0.0.1", "localhost")
        async with listening(fresh(settings, url=elsewhere, ca=tmp_path / "cert.pem", **own), ready=False) as heard:
            await until(lambda: "not trusted: Hostname mismatch" in heard.source.problem)


# -- what comes in --------------------------------------------------------------------------------------------------


async def test_garbage_is_counted_acknowledged_and_logged_once(
    settings: AmqpSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [b"\xff\xfe", b"", b"[" * 5000, json.dumps({"oslo.message": "x"}).encode(), b'{"event_type": 1}']
    async with listening(settings) as heard:
        await asyncio.to_thread(publish, settings.url, *bad, *bad, told("good"))
        await asyncio.to_thread(publish, settings.url, b"\x80\x04K\x01.", content_type="application/x-python-serialize")
        await asyncio.to_thread(publish, settings.url, told("zipped"), content_encoding="no-such-coding")
        await until(lambda: "zipped" in heard.names)
        assert heard.names == ["good", "zipped"]
        assert heard.source.garbage == {"no JSON": 7, "an envelope without JSON in it": 2, "no event_type": 2}
        await until(lambda: queued(settings.url) == 0)
    assert capsys.readouterr().out.count("amqp_garbage") <= 3


async def test_memory_is_bounded_by_what_is_not_acknowledged(settings: AmqpSettings) -> None:
    async with listening(fresh(settings, prefetch=50)) as heard:
        heard.acking = False
        await asyncio.to_thread(publish, settings.url, *(told(f"n{number}") for number in range(400)))
        await until(lambda: heard.source.received == 50)
        await until(lambda: queued(settings.url) == 350)
        assert heard.source.received == 50
        heard.acking = True
        heard.source.ack(heard.batches[-1])
        await until(lambda: heard.source.received == 400)
        assert heard.names == [f"n{number}" for number in range(400)]


async def test_nothing_is_left_of_a_source_that_was_closed(settings: AmqpSettings) -> None:
    before = set(threading.enumerate())
    async with listening(settings):
        assert {thread.name for thread in set(threading.enumerate()) - before} == {"amqp"}
    assert not {thread for thread in set(threading.enumerate()) - before if thread.name == "amqp"}
