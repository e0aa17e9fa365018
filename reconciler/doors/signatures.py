"""What known lines in the logs of OpenStack and its neighbours mean, and what to do: data, each with its test lines.

`doctor_journal` looks for them in the journals of the units that are held. A new signature is an entry here; its
`lines` are what the test feeds it with. `asks` are checks (fields of `desired.kinds.probe.Probe`) whose answers belong
to the diagnosis; ``{name}`` in them is a group of the pattern, or stands for what a configuration file says (`meant`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from desired.kinds.probe import without_passwords

_CONF = "/etc/{product}/{product}.conf"
_HERE = {"host": "127.0.0.1", "place": "127.0.0.1:5000"}
"""Whom an OpenStack service talks to when its configuration does not say."""


@dataclass(frozen=True, slots=True)
class Signature:
    """`means` and `do` are one sentence each, in which ``{name}`` is a group of the pattern."""

    name: str
    pattern: re.Pattern[str]
    means: str
    do: str
    lines: tuple[str, ...]
    asks: tuple[Mapping[str, str | tuple[str, ...]], ...] = ()
    meant: tuple[str, ...] = ()
    """Where a URL stands whose host is meant, the first that is there: ``FILE:SECTION/KEY``. Gives `host`, `place`."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A signature seen in the journal of `unit`: how often, and the last line."""

    signature: Signature
    unit: str
    count: int
    line: str
    words: Mapping[str, str]

    @property
    def means(self) -> str:
        return self.signature.means.format_map(self.words)

    @property
    def do(self) -> str:
        return self.signature.do.format_map(self.words)

    @property
    def asks(self) -> tuple[dict[str, str | tuple[str, ...]], ...]:
        """The checks to ask, with the names in them replaced."""
        return tuple({name: self._filled(text) for name, text in ask.items()} for ask in self.signature.asks)

    @property
    def meant(self) -> tuple[str, ...]:
        return tuple(place.format_map(self.words) for place in self.signature.meant)

    def _filled(self, text: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return text.format_map(self.words) if isinstance(text, str) else tuple(t.format_map(self.words) for t in text)


_AMQP = ({"amqp": f"ini:{_CONF}:DEFAULT/transport_url"},)

SIGNATURES: tuple[Signature, ...] = (
    Signature(
        "broker-login",
        re.compile(r"ACCESS_REFUSED|Login was refused|Socket closed.*authentic|AuthenticationFailure"),
        "the message broker refuses the credentials of {unit}",
        "compare transport_url (or rabbit_userid and rabbit_password) in {conf} with 'rabbitmqctl list_users' on the"
        " broker; 'rabbitmqctl authenticate_user USER PASSWORD' tries them",
        (
            (
                "ERROR oslo.messaging._drivers.impl_rabbit [-] Unable to connect to AMQP server on 10.0.0.11:5672 after"
                " inf tries: (0, 0): (403) ACCESS_REFUSED - Login was refused using authentication mechanism AMQPLAIN."
            ),
            "amqp.exceptions.AccessRefused: (0, 0): (403) ACCESS_REFUSED - Login was refused",
        ),
        asks=_AMQP,
    ),
    Signature(
        "broker-away",
        re.compile(r"AMQP server on (?P<host>[^\s:]+|\[[0-9a-f:]+\]):(?P<port>\d+) is unreachable"),
        "{unit} does not reach the message broker at {host}:{port}",
        "is the broker running on {host}, and does a filter rule let port {port} in?",
        (
            (
                "ERROR neutron.openstack.common.rpc.common [-] AMQP server on 10.0.0.11:5672 is unreachable:"
                " [Errno 111] ECONNREFUSED. Trying again in 1 seconds."
            ),
            "ERROR oslo.messaging._drivers.impl_rabbit [-] AMQP server on controller:5672 is unreachable: timed out.",
        ),
        asks=({"tcp": "{host}:{port}"},),
    ),
    Signature(
        "network-state",
        re.compile(r"Unable to sync network state"),
        "the DHCP agent gets no answer about its networks over the message broker: mostly refused credentials, or the"
        " server is not there",
        "see that the server of {product} runs, and that transport_url in {conf} is the same as on the server",
        (
            "ERROR neutron.agent.dhcp_agent [-] Unable to sync network state.",
            "2013-05-02 10:11:12    ERROR [quantum.agent.dhcp_agent] Unable to sync network state.",
        ),
        asks=_AMQP,
    ),
    Signature(
        "l3-loop",
        re.compile(r"Error running l3_nat daemon_loop|Failed synchronizing routers"),
        "the L3 agent gets no answer from the API (port 9696 of {host}) or from identity ({place}), so routers are not"
        " updated",
        "see that both run on {host} and that filter rules let them in, and that auth_url and admin_password in"
        " /etc/{product}/l3_agent.ini are those of the service user",
        (
            "ERROR quantum.agent.l3_agent [-] Error running l3_nat daemon_loop",
            "ERROR neutron.agent.l3.agent [-] Failed synchronizing routers due to RPC error: Timeout",
        ),
        asks=({"tcp": "{host}:9696"}, {"tcp": "{place}"}, *_AMQP),
        meant=(
            "/etc/{product}/l3_agent.ini:DEFAULT/auth_url",
            f"{_CONF}:keystone_authtoken/auth_url",
            f"{_CONF}:keystone_authtoken/auth_uri",
            f"{_CONF}:keystone_authtoken/www_authenticate_uri",
        ),
    ),
    Signature(
        "rootwrap",
        re.compile(r"Unauthorized command: (?P<command>(?P<program>[^\s()]+)[^()]*?)(?: \(no filter matched\))?$"),
        "rootwrap refuses '{command}' to {unit}: no filter allows it",
        "see that filters_path in /etc/{product}/rootwrap.conf names the directory with the filters of this release,"
        " and that its files are complete and owned by root",
        (
            "'/usr/bin/neutron-rootwrap: Unauthorized command: ip netns exec qrouter-1 ip addr (no filter matched)",
            "/usr/bin/quantum-rootwrap: Unauthorized command: ovs-vsctl --timeout=2 list-ports br-int",
        ),
        asks=(
            {"command": ("grep", "-rlwe", "{program}", "/etc/{product}/rootwrap.d", "/usr/share/{product}/rootwrap")},
        ),
    ),
    Signature(
        "sudo",
        re.compile(
            r"sudo: (sorry, you must have a tty|a password is required|no tty present)|command not allowed ; TTY="
        ),
        "sudo refuses a command of {unit}",
        "/etc/sudoers.d/{product} must let user {product} run {product}-rootwrap without a password and a terminal",
        (
            "Stderr: 'sudo: sorry, you must have a tty to run sudo\\n'",
            "sudo: a password is required",
            "neutron : command not allowed ; TTY=unknown ; PWD=/ ; USER=root ; COMMAND=/usr/bin/neutron-rootwrap",
        ),
        asks=({"command": ("sudo", "-n", "-l", "-U", "{product}")},),
    ),
    Signature(
        "floating-tenant",
        re.compile(r"Port (?P<port>\S+) is associated with a different tenant than Floating IP (?P<floating>\S+)"),
        "floating IP {floating} belongs to another tenant than port {port}, so it is not bound",
        "let the tenant of the port allocate its own floating IP, or let an administrator create it with --project",
        (
            (
                "Bad request: Port 5c2a is associated with a different tenant than Floating IP 9f01 and therefore"
                " cannot be bound."
            ),
        ),
    ),
    Signature(
        "disk-full",
        re.compile(r"No space left on device|\[Errno 28\]|Errcode: 28|disk_free_limit|Disk is full writing"),
        "a file system that {unit} writes to is full",
        "'df -h' and 'df -i' say which; logs and Ceilometer's database grow the most",
        (
            "OSError: [Errno 28] No space left on device: '/var/lib/neutron/dhcp/net-1/host'",
            "[ERROR] mysqld: Disk is full writing './ibdata1' (Errcode: 28). Waiting for someone...",
        ),
        asks=({"disk": "/"}, {"disk": "/var"}),
    ),
)


def product_of(unit: str) -> str:
    """Whose configuration a unit reads: quantum, nova…; neutron for what says nothing of it."""
    stem = unit.partition(".")[0].partition("-")[0]
    return stem if stem in {"quantum", "nova", "cinder", "glance", "heat", "ceilometer", "keystone"} else "neutron"


def sightings(unit: str, lines: Iterable[str]) -> Iterator[Sighting]:
    """The signatures seen in these lines, each once, with its last line."""
    found: dict[str, tuple[Signature, int, str, re.Match[str]]] = {}
    for line in lines:
        for signature in SIGNATURES:
            match = signature.pattern.search(line)
            if match is not None:
                count = found[signature.name][1] + 1 if signature.name in found else 1
                found[signature.name] = (signature, count, without_passwords(line.strip()), match)
    product = product_of(unit)
    common = {"unit": unit, "product": product, "conf": _CONF.format(product=product), **_HERE}
    for signature, count, line, match in found.values():
        said = {name: text for name, text in match.groupdict().items() if text}
        yield Sighting(signature, unit, count, line, {**common, **said})
