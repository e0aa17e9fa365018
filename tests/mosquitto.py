"""A private Mosquitto for the tests: own directory, own ports on loopback, passwords, TLS with its own authority.

It runs beside the test, or inside the namespaces of a sandbox (`start`'s `spawn`), and ends with whoever started it. A
unix socket in its directory reaches it from everywhere, so that a test may speak to a broker that lives in a sandbox.
The fixture `mosquitto` of the doors' tests is one for a test alone.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from hashlib import pbkdf2_hmac
from pathlib import Path
from typing import Protocol

import aiomqtt

from reconciler.settings_sections import Mqtt

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


class Process(Protocol):
    """What `subprocess.Popen` and a sandbox's `Spawned` have in common here."""

    def end(self, sig: signal.Signals) -> int: ...

    def send(self, sig: signal.Signals) -> None: ...

    def alive(self) -> bool: ...


class _Child:
    def __init__(self, argv: Sequence[str], output: Path) -> None:
        with output.open("ab") as log:
            self._process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *argv], stdout=log, stderr=log)

    def send(self, sig: signal.Signals) -> None:
        self._process.send_signal(sig)

    def end(self, sig: signal.Signals) -> int:
        self._process.send_signal(sig)
        return self._process.wait(PATIENCE)

    def alive(self) -> bool:
        return self._process.poll() is None


class Mosquitto:
    """One broker. `kill` breaks it off with all connections, `start` brings it back without what was retained."""

    def __init__(self, spawn: Callable[[Sequence[str], Path], Process] = _Child, *, roles: bool = False) -> None:
        """`spawn` starts it somewhere else. `roles`: users come with what they may do, not from a password file."""
        if shutil.which("mosquitto", path="/usr/sbin:/usr/bin") is None:
            raise FileNotFoundError("Mosquitto is not installed: ./check installs it (Debian: mosquitto)")
        self.directory = Path(tempfile.mkdtemp(prefix="mq-"))
        self.plain, self.tls, self.mutual = _free_ports(3)
        self.ca = self.directory / "ca.pem"
        self._spawn = spawn
        self._process: Process | None = None
        try:
            self._certificates()
            access = self._roles() if roles else self._passwords()
            conf = _CONF.format(
                directory=self.directory, plain=self.plain, tls=self.tls, mutual=self.mutual, access=access
            )
            (self.directory / "mosquitto.conf").write_text(conf)
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        (self.directory / "socket").unlink(missing_ok=True)
        argv = ["/usr/sbin/mosquitto", "-c", str(self.directory / "mosquitto.conf")]
        self._process = self._spawn(argv, self.directory / "out")
        deadline = time.monotonic() + PATIENCE
        while not self._listens():
            if not self._process.alive() or time.monotonic() > deadline:
                said = [path.read_text() for path in (self.directory / "out", self.directory / "log") if path.exists()]
                raise RuntimeError(f"Mosquitto did not start: {said}")
            time.sleep(0.01)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as knock, contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            knock.connect(str(self.directory / "socket"))
            return True
        return False

    def kill(self) -> None:
        """End it as a crash does; wait until it is gone."""
        process, self._process = self._process, None
        if process is not None and process.alive():
            process.end(signal.SIGKILL)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Connections are accepted by the kernel, and nothing is answered."""
        assert self._process is not None
        self._process.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send(signal.SIGCONT)

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
        async with aiomqtt.Client(path, transport="unix", username=user, password=USERS[user]) as client:
            yield client

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def _passwords(self) -> str:
        path = self.directory / "passwords"
        for user, password in USERS.items():
            _run("mosquitto_passwd", *(() if path.exists() else ("-c",)), "-b", str(path), user, password)
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
        make = (
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
        )
        _run(*make, "-subj", "/CN=authority of a test", "-keyout", key, "-out", ca)
        for name, subject in (("server", "/CN=127.0.0.1"), ("n1", "/CN=n1")):
            _run(
                *make, "-subj", subject, "-addext", "subjectAltName=IP:127.0.0.1", "-CA", ca, "-CAkey", key,
                "-addext", "basicConstraints=critical,CA:FALSE",
                "-keyout", str(self.directory / f"{name}.key"), "-out", str(self.directory / f"{name}.pem"),
            )  # fmt: skip


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(f"{argv[0]} ended with {done.returncode}: {done.stderr}{done.stdout}")


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as held:
        knocks = [held.enter_context(socket.socket()) for _ in range(number)]
        for knock in knocks:
            knock.bind(("127.0.0.1", 0))
        return [knock.getsockname()[1] for knock in knocks]
