"""A probe says what is: open or not, full or not, right or not; never later than its timeout, never a password."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from controllers.drivers.probes import amqp
from controllers.drivers.probes.ask import ask as ask_plainly
from desired.kinds.probe import Probe
from desired.sql.scalar import scalar
from reconciler.errors import NotReady
from tests.rabbitmq import RabbitServer

ask = partial(ask_plainly, scalar=scalar)
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(talk: Talk) -> AsyncIterator[int]:
    """Somebody who listens; the port."""

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
            await writer.drain()
        finally:
            writer.close()

    listening = await asyncio.start_server(served, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


def speaking(answer: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    return talk


async def test_an_open_port_is_open_and_a_closed_one_is_not() -> None:
    async with server(silent) as port:
        assert (await ask(Probe(tcp=f"127.0.0.1:{port}"), 2)).ok
    refused = await ask(Probe(tcp=f"127.0.0.1:{closed_port()}"), 2)
    assert not refused.ok
    assert "refused" in refused.words


@pytest.mark.parametrize(
    ("answer", "status", "ok"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", None, True),
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", None, True),
        (b"HTTP/1.1 503 Sorry\r\n\r\n", None, False),
        (b"HTTP/1.1 300 Multiple\r\n\r\n", 300, True),
        (b"HTTP/1.1 200 OK\r\n\r\n", 300, False),
        (b"220 smtp\r\n", None, False),
        (b"", None, False),
    ],
)
async def test_http_is_judged_by_its_status(answer: bytes, status: int | None, ok: bool) -> None:
    async with server(speaking(answer)) as port:
        assert (await ask(Probe(http=f"http://127.0.0.1:{port}/x", status=status), 2)).ok is ok


async def test_who_accepts_and_never_answers_has_failed_at_the_timeout() -> None:
    async with server(silent) as port:
        for probe in (Probe(http=f"http://127.0.0.1:{port}/"), Probe(amqp=f"amqp://u:pw@127.0.0.1:{port}/")):
            answer = await asyncio.wait_for(ask(probe, 0.1), 2)
            assert "no answer within 0.1 s" in answer.words
            assert "pw" not in answer.words


async def test_a_unix_socket_accepts_or_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert not (await ask(Probe(unix=str(path)), 1)).ok
    listening = await asyncio.start_unix_server(silent, path)
    async with listening:
        assert (await ask(Probe(unix=str(path)), 1)).ok


async def test_a_command_is_judged_by_its_exit_code_and_killed_with_its_children() -> None:
    assert (await ask(Probe(command=("true",)), 5)).ok
    failed = await ask(Probe(command=("sh", "-c", "echo went wrong; exit 3")), 5)
    assert not failed.ok
    assert "ended with 3 and said: went wrong" in failed.words
    assert (await ask(Probe(command=("sh", "-c", "exit 3"), exit_code=3), 5)).ok
    assert "no answer within" in (await ask(Probe(command=("sh", "-c", "sleep 100 & sleep 100")), 0.2)).words
    assert "not installed" in (await ask(Probe(command=("no-such-tool",)), 5)).words


async def test_disks_and_directories_are_measured(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"x" * 100_000)
    assert (await ask(Probe(disk=str(tmp_path), max_used=100), 5)).ok
    full = await ask(Probe(disk=str(tmp_path), max_used=0), 5)
    assert not full.ok
    assert "% of the inodes" in full.words
    assert (await ask(Probe(directory=str(tmp_path), max_bytes=1_000_000), 5)).ok
    large = await ask(Probe(directory=str(tmp_path), max_bytes=50_000), 5)
    assert not large.ok
    assert large.value is not None
    assert large.value >= 100_000
    assert not (await ask(Probe(directory=str(tmp_path / "none"), max_bytes=1), 5)).ok


async def test_a_value_of_a_database_is_compared(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with sqlite3.connect(path) as database:
        database.execute("create table status (name, value)")
        database.execute("insert into status values ('wsrep_cluster_size', '3')")
    database.close()
    asked: dict[str, Any] = {"sql": f"sqlite:///{path}", "query": "select name, value from status"}
    good = await ask(Probe(**asked, minimum=3), 5)
    assert (good.ok, good.value) == (True, 3.0)
    bad = await ask(Probe(**asked, minimum=4), 5)
    assert not bad.ok
    assert "is 3, wanted: minimum 4" in bad.words
    assert (await ask(Probe(**asked, equals="3"), 5)).ok
    assert "no such table" in (await ask(Probe(sql=f"sqlite:///{path}", query="select 1 from missing"), 5)).words


async def test_a_password_is_in_no_answer_and_one_that_is_not_known_is_not_tried() -> None:
    refused = await ask(Probe(sql=f"postgresql+psycopg://u:geheim@127.0.0.1:{closed_port()}/x", query="select 1"), 5)
    assert not refused.ok
    assert "geheim" not in refused.words
    restored = Probe.model_validate(Probe(amqp="amqp://u:geheim@h/").model_dump(mode="json"))
    with pytest.raises(NotReady, match="not stored"):
        await ask(restored, 1)


async def test_a_namespace_that_is_not_there_is_no_failure_of_what_is_asked() -> None:
    for probe in (
        Probe(tcp="127.0.0.1:1", namespace="no-such-ns"),
        Probe(ping="127.0.0.1", namespace="no-such-ns"),
    ):
        with pytest.raises(NotReady, match="no namespace no-such-ns"):
            await ask(probe, 1)


# -- AMQP -------------------------------------------------------------------------------------------------------


def frame(method: int, arguments: bytes = b"") -> bytes:
    payload = (10).to_bytes(2, "big") + method.to_bytes(2, "big") + arguments
    return b"\1\0\0" + len(payload).to_bytes(4, "big") + payload + b"\xce"


def broker(*, password: str, vhost: str, says_why: bool = True) -> Talk:
    """Interprets the opening of AMQP 0-9-1, and refuses as RabbitMQ does (3.x: 403 with the capability, 530)."""

    def close(code: int, text: bytes) -> bytes:
        return frame(50, code.to_bytes(2, "big") + bytes([len(text)]) + text + bytes(4))

    async def receive(reader: asyncio.StreamReader) -> bytes:
        head = await reader.readexactly(7)
        return (await reader.readexactly(int.from_bytes(head[3:], "big") + 1))[4:-1]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(8) == b"AMQP\0\0\x09\1"
        writer.write(frame(10, b"\0\x09" + bytes(4) + bytes(8)))
        login = await receive(reader)
        if f"\0neutron\0{password}".encode() not in login:
            if says_why:
                writer.write(close(403, b"ACCESS_REFUSED - Login was refused"))
            return
        writer.write(b"\x08\0\0\0\0\0\0\xce" + frame(30, b"\0\0\0\2\0\0\0\x3c"))
        assert (await receive(reader)) == b"\0\0\0\2\0\0\0\x3c"
        opened = await receive(reader)
        if opened[1 : 1 + opened[0]].decode() != vhost:
            writer.write(close(530, b"NOT_ALLOWED - vhost not found"))
            return
        writer.write(frame(41, b"\0"))
        await receive(reader)

    return talk


async def test_a_broker_accepts_or_says_whom_it_refuses() -> None:
    async with server(broker(password="right", vhost="/")) as port:
        at = f"127.0.0.1:{port}"
        good = await ask(Probe(amqp=f"rabbit://neutron:right@{at},neutron:right@10.0.0.9:5672//"), 2)
        assert good.ok, good.words
        wrong = await ask(Probe(amqp=f"amqp://neutron:wrong@{at}/%2F"), 2)
        assert "the broker refuses user neutron" in wrong.words
        assert "wrong" not in wrong.words
        other = await ask(Probe(amqp=f"amqp://neutron:right@{at}/nova"), 2)
        assert "refuses vhost nova" in other.words


async def test_a_real_broker_accepts_or_says_whom_it_refuses(rabbit_server: RabbitServer, tmp_path: Path) -> None:
    rabbit_server.add_user("neutron", "geheim")
    rabbit_server.add_vhost("nova")
    at = f"{amqp.parse(rabbit_server.url()).host}:{rabbit_server.port}"
    conf = tmp_path / "neutron.conf"
    conf.write_text(f"[DEFAULT]\ntransport_url = rabbit://neutron:geheim@{at}//\n")
    configured = Probe(amqp=f"ini:{conf}:DEFAULT/transport_url")
    good = await ask(configured, 10)
    assert good.ok, good.words
    assert f"user neutron logs in at {at}" in good.words
    refused = await ask(Probe(amqp=f"rabbit://neutron:falsch@{at}//"), 10)
    assert f"the broker refuses user neutron at {at}: ACCESS_REFUSED" in refused.words
    unknown = await ask(Probe(amqp=f"rabbit://nobody:geheim@{at}//"), 10)
    assert "the broker refuses user nobody" in unknown.words
    missing = await ask(Probe(amqp=f"rabbit://neutron:geheim@{at}/cinder"), 10)
    assert f"the broker refuses vhost cinder at {at}: NOT_ALLOWED" in missing.words
    forbidden = await ask(Probe(amqp=f"rabbit://neutron:geheim@{at}/nova"), 10)
    assert f"the broker refuses vhost nova at {at}: NOT_ALLOWED" in forbidden.words
    rabbit_server.set_password("neutron", "neu")
    changed = await ask(configured, 10)
    assert "refuses user neutron" in changed.words
    answers = (good, refused, unknown, missing, forbidden, changed)
    assert not any(answer.ok for answer in answers[1:])
    away = await ask(Probe(amqp=f"rabbit://neutron:geheim@127.0.0.1:{closed_port()}//"), 10)
    assert "no connection to 127.0.0.1:" in away.words
    assert not any(secret in answer.words for answer in (*answers, away) for secret in ("geheim", "falsch", "neu@"))


async def test_a_broker_that_hangs_up_has_refused() -> None:
    async with server(broker(password="right", vhost="/", says_why=False)) as port:
        assert (
            "closed the connection of user neutron"
            in (await ask(Probe(amqp=f"amqp://neutron:wrong@127.0.0.1:{port}//"), 2)).words
        )


async def test_the_credentials_may_stand_in_the_service_s_own_file(tmp_path: Path) -> None:
    async with server(broker(password="right", vhost="/")) as port:
        conf = tmp_path / "neutron.conf"
        conf.write_text(f"[DEFAULT]\ntransport_url = rabbit://neutron:right@127.0.0.1:{port}//\n")
        assert (await ask(Probe(amqp=f"ini:{conf}:DEFAULT/transport_url"), 2)).ok
        conf.write_text(
            f"[DEFAULT]\nrabbit_host = 127.0.0.1\nrabbit_port={port}\nrabbit_userid=neutron\nrabbit_password=right\n"
        )
        assert (await ask(Probe(amqp=f"ini:{conf}:DEFAULT/transport_url"), 2)).ok
        hosts = f"rabbit_hosts = 127.0.0.1:{port},10.0.0.9:5672\nrabbit_userid = neutron\nrabbit_password = right\n"
        conf.write_text(f"[DEFAULT]\nverbose = true\n[oslo_messaging_rabbit]\n{hosts}")
        assert (await ask(Probe(amqp=f"ini:{conf}:DEFAULT/transport_url"), 2)).ok
        missing = await ask(Probe(amqp=f"ini:{conf}:DEFAULT/other"), 2)
        assert "has no other in [DEFAULT]" in missing.words


@pytest.mark.parametrize(
    ("url", "login"),
    [
        ("amqp://u:p@h:1/v", ("h", 1, "u", "p", "v", False)),
        ("amqp://u:p@h", ("h", 5672, "u", "p", "/", False)),
        ("amqp://u:p@h//", ("h", 5672, "u", "p", "/", False)),
        ("rabbit://u:p%40@h1:1,u:q@h2:2/", ("h1", 1, "u", "p@", "/", False)),
        ("amqps://h/%2F", ("h", 5671, "guest", "guest", "/", True)),
    ],
)
def test_a_broker_s_url_is_read_as_its_users_read_it(url: str, login: tuple[Any, ...]) -> None:
    found = amqp.parse(url)
    assert (found.host, found.port, found.user, found.password, found.vhost, found.tls) == login
