"""What systemd hears, on real datagram sockets."""

import os
import socket

import pytest

from reconciler.doors.notify import Notifier
from reconciler.errors import DriverError


@pytest.fixture(params=["path", "abstract"])
def systemd(request, short_dir):
    address = str(short_dir / "notify") if request.param == "path" else f"@rc-{os.getpid()}-notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + address[1:] if address.startswith("@") else address)
        receiver.settimeout(5)
        yield address, lambda: receiver.recv(4096).decode()


def test_every_message_arrives(systemd):
    address, heard = systemd
    notifier = Notifier({"NOTIFY_SOCKET": address})
    assert notifier
    notifier.ready("converged: 12 resources")
    assert heard() == "READY=1\nSTATUS=converged: 12 resources"
    notifier.alive()
    assert heard() == "WATCHDOG=1"
    notifier.status("a=b")
    assert heard() == "STATUS=a=b"
    notifier.reloading(17)
    assert heard() == "RELOADING=1\nMONOTONIC_USEC=17"
    notifier.stopping()
    assert heard() == "STOPPING=1"


def test_a_status_cannot_become_a_second_command(systemd):
    address, heard = systemd
    Notifier({"NOTIFY_SOCKET": address}).status("bad\nWATCHDOG=trigger")
    assert heard() == "STATUS=bad WATCHDOG=trigger"


def test_without_systemd_nothing_happens():
    notifier = Notifier({})
    assert not notifier
    notifier.ready()
    notifier.alive()
    assert notifier.watchdog_interval() is None


def test_a_socket_that_went_away_is_an_error_in_words(short_dir):
    with pytest.raises(DriverError, match="telling systemd"):
        Notifier({"NOTIFY_SOCKET": str(short_dir / "gone")}).ready()


@pytest.mark.parametrize(
    ("env", "interval"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_interval_is_the_one_meant_for_us(env, interval):
    assert Notifier(env).watchdog_interval() == interval
