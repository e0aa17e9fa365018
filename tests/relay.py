"""A way for a daemon in a network namespace to a server on this machine's loopback: its connections, byte by byte.

Only sockets cross: the listener is made inside the namespace (setns in a thread of its own), the way out is not.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
CLONE_NEWNET = 0x40000000


class Relay:
    """``with Relay(ovs.netns, port):`` 127.0.0.1:port inside is 127.0.0.1:port here."""

    def __init__(self, netns: Path, port: int) -> None:
        self._port = port
        self._made: list[socket.socket] = []
        maker = threading.Thread(target=self._listen, args=(netns,))
        maker.start()
        maker.join(10)
        (self._listener,) = self._made

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for one in self._made:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _listen(self, netns: Path) -> None:
        """In a thread that ends afterwards: it stays in the namespace."""
        with netns.open() as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"setns {netns}")
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, self._port))
        listener.listen()
        self._made.append(listener)

    def _accept(self) -> None:
        while True:
            try:
                inside, _ = self._listener.accept()
            except OSError:
                return
            try:
                outside = socket.create_connection((HOST, self._port), 5)
            except OSError:
                inside.close()
                continue
            outside.settimeout(None)
            self._made += [inside, outside]
            for source, target in ((inside, outside), (outside, inside)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=_copy, args=(source, target), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
