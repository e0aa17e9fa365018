"""What stands in front of an API in production and fails in its own ways: a proxy that hands on, or spoils answers.

`Front` forwards GET requests to a real server. What `spoil` returns for a request (its number, from 1, and its path)
says what becomes of it; everything else passes untouched.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Instead:
    """An answer that is not the server's."""

    status: int
    body: bytes = b"<html><body>Service unavailable</body></html>"


@dataclass(frozen=True)
class Cut:
    """The server's answer, promised whole, and the connection closed in the middle of it."""


@dataclass(frozen=True)
class Hang:
    """No answer, until the front is closed."""


@dataclass(frozen=True)
class Changed:
    """The server's answer after this."""

    change: Callable[[bytes], bytes]


Spoil = Callable[[int, str], Instead | Cut | Hang | Changed | None]


class Front:
    """Listens on a free port of 127.0.0.1; `certificate` and `key` make it speak TLS."""

    def __init__(self, behind: str, *, certificate: Path | None = None, key: Path | None = None) -> None:
        self.behind = behind
        self.spoil: Spoil = lambda _number, _path: None
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.closed = threading.Event()
        self._server = _Server(self)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if certificate is None else "https"
        self.endpoint = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.closed.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def nth(self, number: int, what: Instead | Cut | Hang | Changed) -> None:
        """Spoil the request of this number, counted from now, and no other."""
        already = len(self.asked)
        self.spoil = lambda each, _path: what if each == already + number else None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, front: Front) -> None:
        self.front = front
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is none of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        front = self.server.front
        front.asked.append(self.path)
        front.headers.append(dict(self.headers))
        what = front.spoil(len(front.asked), self.path)
        if isinstance(what, Hang):
            front.closed.wait()
            return
        if isinstance(what, Instead):
            self._answer(what.status, what.body, len(what.body))
            return
        if self.command != "GET":
            self._answer(405, b"only GET is handed on", 21)
            return
        status, body = self._forward()
        if isinstance(what, Changed):
            body = what.change(body)
        self._answer(status, body[: len(body) // 2] if isinstance(what, Cut) else body, len(body))

    do_POST = do_GET  # noqa: N815 (the name that http.server calls)

    def _forward(self) -> tuple[int, bytes]:
        request = urllib.request.Request(f"{self.server.front.behind}{self.path}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError as error:
            return 502, f"nobody is behind: {error}".encode()

    def _answer(self, status: int, body: bytes, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Content-Type", "application/json" if status < 400 else "text/html")
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Tests say what was asked, by `Front.asked`."""
