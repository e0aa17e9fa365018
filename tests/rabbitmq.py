"""A private RabbitMQ for the tests: own directory, own epmd, free ports on 127.0.0.1, started once a test process.

It runs as the user `rabbitmq` when the tests run as root, and asks the kernel to be ended with the process that
started it. The fixture `rabbit_server` (``tests/conftest.py``) is the one that the tests of a process share; a start
takes two to six seconds, everything else (users, passwords, vhosts) a few milliseconds.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from pathlib import Path
from urllib.parse import quote

from tests.server import HOST, PATIENCE, Child, Server, free_ports

_CONFIG = """\
listeners.tcp.1 = {host}:{port}
log.console = true
log.console.level = warning
log.file = false
loopback_users = none
"""


class RabbitServer(Server):
    """One broker, with the user guest/guest and the vhost ``/``.

    `stop` says good-bye to its clients and takes a few seconds. What is durable: users, vhosts, durable queues.
    """

    program = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    package = "rabbitmq-server"
    prefix = "mq-"
    user = "rabbitmq"
    _epmd: Child | None = None

    def prepare(self) -> None:
        self.port, self._dist, self._epmd_port = free_ports(3)
        self._cookie = secrets.token_hex(8)
        (self.directory / "rabbitmq.conf").write_text(_CONFIG.format(host=HOST, port=self.port))
        (self.directory / "plugins").write_text("[].")
        cookie = self.directory / ".erlang.cookie"
        cookie.write_text(self._cookie)
        cookie.chmod(0o400)
        self.own(*self.directory.iterdir())
        # RabbitMQ starts an epmd that outlives it, unless it finds one at this port.
        self._epmd = self.child(["epmd", "-port", str(self._epmd_port), "-address", HOST], self._env())
        self.until(lambda: _answers(self._epmd_port, b""), self._epmd)

    def spawn(self) -> Child:
        return self.child([str(self.program)], self._env())

    def answers(self) -> bool:
        """Whether it speaks AMQP."""
        return _answers(self.port, b"AMQP\x00\x00\x09\x01")

    @property
    def pids(self) -> tuple[int, ...]:
        assert isinstance(self._process, Child)
        assert self._epmd is not None
        return self._process.pid, self._epmd.pid

    def close(self) -> None:
        super().close()
        if self._epmd is not None:
            self._epmd.end(self.crash)

    # -- what is in it -------------------------------------------------------------------------------------------

    def url(self, user: str = "guest", password: str = "guest", vhost: str = "/") -> str:
        """As kombu takes it."""
        return f"amqp://{quote(user, safe='')}:{quote(password, safe='')}@{HOST}:{self.port}/{quote(vhost, safe='')}"

    def add_user(self, user: str, password: str, *vhosts: str) -> None:
        """A new user who may do everything in these vhosts (none given: in ``/``)."""
        self.call("rabbit_auth_backend_internal", "add_user", user, password, "tests")
        for vhost in vhosts or ("/",):
            self.allow(user, vhost)

    def allow(self, user: str, vhost: str) -> None:
        self.call("rabbit_auth_backend_internal", "set_permissions", user, vhost, ".*", ".*", ".*", "tests")

    def set_password(self, user: str, password: str) -> None:
        self.call("rabbit_auth_backend_internal", "change_password", user, password, "tests")

    def delete_user(self, user: str) -> None:
        """Its connections are left open, as RabbitMQ does."""
        self.call("rabbit_auth_backend_internal", "delete_user", user, "tests")

    def add_vhost(self, vhost: str) -> None:
        self.call("rabbit_vhost", "add", vhost, "tests")

    def close_connections(self, reason: str = "closed by the test") -> None:
        """Have the broker close every connection (320, CONNECTION_FORCED)."""
        self.call("rabbit_networking", "close_all_user_connections", "guest", reason)

    def call(self, module: str, function: str, *arguments: str) -> str:
        """Call a function of the broker with these texts; what it returned, printed. Raises RuntimeError."""
        binaries = ",".join(f"<<{','.join(map(str, text.encode()))}>>" for text in arguments)
        argv = ["erl_call", "-address", f"localhost:{self._dist}", "-c", self._cookie]
        asked = f"{module}:{function}({binaries}).\n"
        done = subprocess.run([*argv, "-e"], input=asked, capture_output=True, text=True, timeout=PATIENCE, check=False)
        if done.returncode or not done.stdout.startswith("{ok, ") or "{error," in done.stdout:
            raise RuntimeError(f"{module}:{function} failed: {done.stdout}{done.stderr}")
        return done.stdout

    # -- helpers -------------------------------------------------------------------------------------------------

    def _env(self) -> dict[str, str]:
        at = self.directory
        one_port = f"-start_epmd false -erl_epmd_port {self._dist} -kernel inet_dist_use_interface {{127,0,0,1}}"
        return {
            "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(at),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_ALLOW_INPUT": "1",  # the script becomes the broker instead of its parent
            "RABBITMQ_BASE": str(at),
            "RABBITMQ_NODENAME": "test@localhost",
            "RABBITMQ_CONFIG_FILE": str(at / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(at / "none.config"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(at / "plugins"),
            "RABBITMQ_PLUGINS_EXPAND_DIR": str(at / "expand"),
            "RABBITMQ_MNESIA_BASE": str(at / "mnesia"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(at / "features"),
            "RABBITMQ_LOG_BASE": str(at / "logs"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(at / "pid"),
            "RABBITMQ_DIST_PORT": str(self._dist),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{one_port} -noinput +S 1:1 -setcookie {self._cookie}",
        }


def _answers(port: int, hello: bytes) -> bool:
    """Whether somebody listens and, if there is a hello, answers it."""
    try:
        with socket.create_connection((HOST, port), timeout=2) as sock:
            sock.settimeout(2)
            if not hello:
                return True
            sock.sendall(hello)
            return sock.recv(1) == b"\x01"
    except OSError:
        return False
