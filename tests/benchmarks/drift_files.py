"""What is broken in files: the value of an INI key, by somebody who writes the file anew and renames it."""

from __future__ import annotations

import ctypes
import json
import os
import select
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.wire import NeverSeenError
from tests.ovs import PrivateOvs

WITHIN = 10.0
FILES = 10
_CLOSE_WRITE, _MOVED_TO = 0x8, 0x80


class IniKey:
    """One of three keys of one of 10 INI files gets another value."""

    title = "INI key, of 10 files"
    program = "floor_files.py"
    share = 1.0
    pause = (0.15, 0.3)

    def prepare(self, ovs: PrivateOvs) -> None:
        self.directory = ovs.directory / "etc"
        self.directory.mkdir()
        lines = "".join(f"# a comment\noption_{number} = {number}\n" for number in range(30))
        for number in range(FILES):
            (self.directory / f"f{number}.ini").write_text(f"[DEFAULT]\n{lines}\n[agent]\n{lines}")

    def desired(self) -> str:
        keys = {"external_network_bridge": "", "debug": "false", "interface_driver": "openvswitch"}
        return json.dumps(
            {"files": {str(self.directory / f"f{n}.ini"): {"ini": {"agent": keys}} for n in range(FILES)}}
        )

    def connect(self, ovs: PrivateOvs) -> None:
        self.right = {f"f{n}.ini": (self.directory / f"f{n}.ini").read_text() for n in range(FILES)}
        libc = ctypes.CDLL(None)
        self.inotify = libc.inotify_init1(os.O_NONBLOCK)
        libc.inotify_add_watch(self.inotify, os.fsencode(self.directory), _CLOSE_WRITE | _MOVED_TO)

    def close(self) -> None:
        if hasattr(self, "inotify"):
            os.close(self.inotify)

    def floor(self) -> tuple[Path, dict[str, Any]]:
        return self.directory, {"answers": self.right}

    def break_one(self, number: int) -> tuple[float, float]:
        name = f"f{number % FILES}.ini"
        path, beside = self.directory / name, self.directory / f".{name}.edited"
        beside.write_text(self.right[name].replace("debug = false", "debug = true"))
        beside.rename(path)
        seen = time.monotonic()
        while time.monotonic() < seen + WITHIN:
            select.select([self.inotify], [], [], WITHIN)
            at = time.monotonic()
            os.read(self.inotify, 65536)
            if path.read_text() == self.right[name]:
                return seen, at
        raise NeverSeenError(f"{name} is not as it was")
