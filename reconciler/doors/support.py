"""What a bug report needs, in one archive and without secrets: `reconcile support` packs what is gathered here.

Read-only. Each part is had by itself: one that cannot be had says so in its place and ends no other. Everything passes
`redact` on its way in; the store, credentials and the web config's users are never read as they are.
"""

from __future__ import annotations

import importlib.metadata
import io
import os
import platform
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from controllers.drivers import tools
from desired.store import StoreError
from reconciler import __version__
from reconciler.credentials import MQTT_PASSWORD, STORE_PASSWORD, secret
from reconciler.doors import doctor, stored, wire, words
from reconciler.doors.client import DaemonAbsentError, DaemonSilentError
from reconciler.doors.redact import redact
from reconciler.doors.session import Session, now
from reconciler.doors.show import Line, status_lines, story_lines
from reconciler.errors import ReconcilerError, TerminalError

TOOL_SECONDS = 10.0
PASSES = 1000
JOURNAL_LINES = "5000"
LARGEST = 8 * 2**20
"""Bytes of one part; the rest is cut off, and says so."""

_TOOLS: Sequence[tuple[str, Sequence[str]]] = (
    ("ovs/show.txt", ("ovs-vsctl", "--timeout=8", "show")),
    ("ovs/bridges.txt", ("ovs-vsctl", "--timeout=8", "list", "Bridge")),
    ("ovs/ports.txt", ("ovs-vsctl", "--timeout=8", "list", "Port")),
    ("ovs/interfaces.txt", ("ovs-vsctl", "--timeout=8", "list", "Interface")),
    ("ovs/datapaths.txt", ("ovs-appctl", "--timeout=8", "dpif/show")),
    ("network/addresses.txt", ("ip", "-d", "address")),
    ("network/routes.txt", ("ip", "route", "show", "table", "all")),
    ("network/rules.txt", ("ip", "rule")),
    ("network/namespaces.txt", ("ip", "netns", "list")),
    ("network/iptables.txt", ("iptables-save", "-c")),
    ("service.txt", ("systemctl", "--no-pager", "status", "reconciler", "openvswitch-switch", "ovs-vswitchd")),
    ("journal.txt", ("journalctl", "--no-pager", "-n", JOURNAL_LINES, "-u", "reconciler", "-u", "ovs-vswitchd")),
)
_LIBRARIES = ("aiohttp", "pydantic", "SQLAlchemy", "alembic", "ovsdbapp", "pyroute2", "dbus-fast", "kombu", "aiomqtt")


@dataclass(frozen=True, slots=True)
class Packed:
    """The archive: where it is, its size, the names in it, and those of which nothing could be had."""

    path: str
    bytes: int
    parts: tuple[str, ...]
    missing: tuple[str, ...]


def pack(session: Session, path: Path) -> Packed:
    """Write the archive (mode 0600; it must not exist yet). Raises TerminalError when it cannot be written."""
    known = _known_secrets(session)
    names, missing = [], []
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            with tarfile.open(fileobj=out, mode="w:gz") as archive:
                top = path.name.partition(".")[0]
                for name, get in _parts(session):
                    text, had = _guarded(get)
                    names.append(name)
                    missing += [] if had else [name]
                    _add(archive, f"{top}/{name}", redact(text, known))
            size = out.tell()
    except OSError as error:
        raise TerminalError(f"writing the archive {path}: {error.strerror or error}; nothing is left to do") from error
    return Packed(str(path), size, tuple(names), tuple(missing))


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    content = text.encode()
    if len(content) > LARGEST:
        content = content[:LARGEST] + b"\n(cut off here)\n"
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = len(content), int(now()), 0o600
    archive.addfile(entry, io.BytesIO(content))


def _parts(session: Session) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "versions.txt", _versions
    yield "settings.txt", partial(_settings, session)
    yield "status.txt", lambda: _plain(status_lines(session.client.status(), now(), verbose=True))
    yield "status.json", lambda: wire.dumps(session.client.status())
    yield "history.txt", partial(_history, session)
    yield "doctor.txt", lambda: _plain(doctor.lines(doctor.examine(session)))
    yield from _desired(session.settings.desired)
    for name, argv in _TOOLS:
        yield name, partial(_said, argv)
    for bridge in _bridges():
        for what in ("dump-flows", "dump-groups", "show"):
            argv = ("ovs-ofctl", "--timeout=8", "-O", "OpenFlow14", "--names", what, bridge)
            yield f"ovs/{bridge}-{what}.txt", partial(_said, argv)


def _guarded(get: Callable[[], str]) -> tuple[str, bool]:
    try:
        return get(), True
    except (ReconcilerError, StoreError, OSError) as error:
        return f"could not be had: {error}\n", False


def _known_secrets(session: Session) -> frozenset[str]:
    given = {secret(name, os.environ) for name in (STORE_PASSWORD, MQTT_PASSWORD)}
    in_url = urlsplit(session.settings.store_url).password or ""
    return frozenset({*given, in_url, unquote(in_url), session.settings.mqtt.password} - {""})


def _versions() -> str:
    release = Path("/etc/os-release")
    lines = [f"reconcile {__version__}", f"python {sys.version}", f"kernel {platform.platform()}"]
    for name in _LIBRARIES:
        try:
            lines.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"{name} is not installed")
    asked = (("ovs-vsctl", "--version"), ("iptables", "--version"), ("ip", "-V"), ("systemctl", "--version"))
    lines += [_guarded(partial(_said, argv))[0].strip() for argv in asked]
    return "\n".join([*lines, release.read_text(encoding="utf-8") if release.is_file() else ""])


def _settings(session: Session) -> str:
    found = session.settings.effective()
    return "".join(f"{entry.name} = {entry.value!r}  # {entry.origin}\n" for entry in found)


def _history(session: Session) -> str:
    try:
        records = session.client.history(resource=None, since=None, limit=PASSES)
    except (DaemonAbsentError, DaemonSilentError):
        records = stored.history(session, None, None, PASSES)
    return _plain(line for record in records for line in story_lines(record, date=True))


def _desired(directory: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """The YAML as it stands, whether right or wrong."""
    root = directory if directory.is_dir() else directory.parent
    for path in sorted([directory] if directory.is_file() else directory.rglob("*.y*ml")):
        yield f"desired/{path.relative_to(root)}", partial(path.read_text, "utf-8", "replace")


def _bridges() -> Sequence[str]:
    try:
        return tools.run(("ovs-vsctl", "--timeout=8", "list-br"), timeout=TOOL_SECONDS).out.split()
    except ReconcilerError:
        return ()  # ovs/show.txt has the reason


def _said(argv: Sequence[str]) -> str:
    said = tools.run(argv, timeout=TOOL_SECONDS, check=False)
    return said.out + (f"\n(ended with {said.code}: {said.err.strip()})\n" if said.code else "")


def _plain(lines: Iterator[Line] | Sequence[Line]) -> str:
    return "".join(f"{line.text}\n" for line in lines)


def default_path(session: Session, at: float) -> Path:
    """In the current directory, by node and moment."""
    moment = words.moment(at).replace(" ", "T").replace(":", "").partition(".")[0]
    return Path.cwd() / f"reconciler-support-{session.settings.node.partition('.')[0]}-{moment}.tar.gz"
