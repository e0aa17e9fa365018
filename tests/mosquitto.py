"""A private Mosquitto for the tests: own directory, own ports on loopback, passwords, TLS with its own authority.

It runs beside the test, or inside the namespaces of a sandbox (`start`'s `spawn`), and ends with whoever started it. A
unix socket in its directory reaches it from everywhere, so that a test may speak to a broker that lives in a sandbox.
The fixture `mosquitto` of the doors' tests is one for a test alone.
"""

from __future__ import annotations

import contextlib
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from hashlib import pbkdf2_hmac
from pathlib import Path

import aiomqtt

from reconciler.doors.mqtt_link import heed_loss
from reconciler.settings_sections import Mqtt
from tests.server import Child, Process, Server, call, free_ports, listens

PATIENCE = 15.0
USERS = {"n1": "s3cret-of-n1", "reader": "s3cret-of-reader", "deaf": "s3cret-of-deaf"}
"""Passwords are asserted to appear nowhere. With ``roles``, `deaf` may publish and is refused every subscription."""

_CONF = """
user root
per_listener_settings false
allow_anonymous false
{access}
persistence false
sys_interval 0
log_dest file {directory}/log
log_type all
listener {plain} 127.0.0.1
listener {tls} 127.0.0.1
cafile {directory}/ca.pem
certfile {directory}/server.pem
keyfile {directory}/server.key
listener {mutual} 127.0.0.1
cafile {directory}/ca.pem
certfile {directory}/server.pem
keyfile {directory}/server.key
require_certificate true
use_identity_as_username true
listener 0 {directory}/socket
"""
DOCUMENTED = Path(__file__).parents[1] / "reconciler/doors/MQTT.md"
"""Nodes may do what is recommended there, and nothing else; `reader` may do everything."""

_WRITE = {"acltype": "publishClientSend", "topic": "#", "allow": True}
_READ = {"acltype": "subscribePattern", "topic": "#", "allow": True}


class Mosquitto(Server):
    """One broker, without anything that lasts."""

    program = Path("/usr/sbin/mosquitto")
    package = "mosquitto"
    prefix = "mq-"

    def __init__(self, spawn: Callable[[Sequence[str], Path], Process] = Child, *, roles: bool = False) -> None:
        """`spawn` starts it somewhere else. `roles`: users come with what they may do, not from a password file."""
        self._spawn = spawn
        self._with_roles = roles
        super().__init__()

    def prepare(self) -> None:
        self.plain, self.tls, self.mutual = free_ports(3)
        self.ca = self.directory / "ca.pem"
        self._certificates()
        access = self._roles() if self._with_roles else self._passwords()
        conf = _CONF.format(directory=self.directory, plain=self.plain, tls=self.tls, mutual=self.mutual, access=access)
        (self.directory / "mosquitto.conf").write_text(conf)

    def spawn(self) -> Process:
        (self.directory / "socket").unlink(missing_ok=True)
        return self._spawn([str(self.program), "-c", str(self.directory / "mosquitto.conf")], self.directory / "out")

    def answers(self) -> bool:
        return listens(self.directory / "socket")

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Connections are accepted by the kernel, and nothing is answered."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def settings(self, user: str = "n1", *, tls: bool = False, prefix: str = "reconciler") -> Mqtt:
        """As the daemon's settings have it."""
        url = f"mqtts://{user}@127.0.0.1:{self.tls}" if tls else f"mqtt://{user}@127.0.0.1:{self.plain}"
        return Mqtt(url=url, prefix=prefix, ca=self.ca if tls else None, password=USERS[user])

    def certified(self) -> Mqtt:
        """Without user and password: a certificate says that it is n1."""
        files = {"ca": self.ca, "cert": self.directory / "n1.pem", "key": self.directory / "n1.key"}
        return Mqtt(url=f"mqtts://127.0.0.1:{self.mutual}", **files)

    def table(self, user: str = "n1", *, tls: bool = False) -> Mapping[str, str]:
        """The same as a table of ``reconciler.toml``, without the password."""
        found = self.settings(user, tls=tls)
        return {"url": found.url, **({"ca": str(found.ca)} if found.ca else {})}

    @contextlib.asynccontextmanager
    async def client(self, user: str = "reader") -> AsyncIterator[aiomqtt.Client]:
        """A client of the test's own."""
        path = str(self.directory / "socket")
        client = aiomqtt.Client(path, transport="unix", username=user, password=USERS[user])
        try:
            async with client:
                yield client
        finally:
            heed_loss(client)

    def _passwords(self) -> str:
        path = self.directory / "passwords"
        for user, password in USERS.items():
            call(["mosquitto_passwd", *(() if path.exists() else ("-c",)), "-b", str(path), user, password])
        acl = [line.strip() for line in DOCUMENTED.read_text().splitlines() if line.startswith("    pattern ")]
        (self.directory / "acl").write_text("\n".join([*acl, "user reader", "topic readwrite #", ""]))
        return f"password_file {path}\nacl_file {self.directory / 'acl'}"

    def _roles(self) -> str:
        """Mosquitto's own plugin, which answers a subscription that is not allowed with a refusal."""
        path = self.directory / "roles.json"
        roles = [{"rolename": "all", "acls": [_WRITE, _READ]}, {"rolename": "write", "acls": [_WRITE]}]
        clients = [
            {
                "username": user,
                "password": b64encode(pbkdf2_hmac("sha512", password.encode(), b"salt-of-test", 101)).decode(),
                "salt": b64encode(b"salt-of-test").decode(),
                "iterations": 101,
                "roles": [{"rolename": "write" if user == "deaf" else "all"}],
            }
            for user, password in USERS.items()
        ]
        default = {"publishClientSend": False, "publishClientReceive": True, "subscribe": False, "unsubscribe": True}
        path.write_text(json.dumps({"defaultACLAccess": default, "clients": clients, "roles": roles}))
        (plugin,) = Path("/usr/lib").glob("*/mosquitto_dynamic_security.so")
        return f"plugin {plugin}\nplugin_opt_config_file {path}"

    def _certificates(self) -> None:
        """An authority, and certificates of it for the broker and for a node."""
        ca, key = str(self.ca), str(self.directory / "ca.key")
        make = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "3",
        ]
        call([*make, "-subj", "/CN=authority of a test", "-keyout", key, "-out", ca])
        for name, subject in (("server", "/CN=127.0.0.1"), ("n1", "/CN=n1")):
            made = ["-keyout", str(self.directory / f"{name}.key"), "-out", str(self.directory / f"{name}.pem")]
            names = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
            call([*make, "-subj", subject, *names, "-CA", ca, "-CAkey", key, *made])
