"""Wheels for nodes, which have no internet: of the project as it is now, and of what it needs, as it is pinned.

Made once for each set of pins, where the virtualenv of the tests is. `another_version` makes a node's own checkout and
wheel of the same code under another version, for an upgrade.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.lab.cluster import CHECKOUT, Node

_SOURCE = ("reconciler", "controllers", "desired", "pyproject.toml", "README.md", "LICENSE")
_PIP = (sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check")


def directory() -> Path:
    """The wheels, made if need be, in a directory of this test process: another one may make its own meanwhile."""
    pins = (CHECKOUT / "constraints.txt").read_bytes() + (CHECKOUT / "pyproject.toml").read_bytes()
    place = Path(sys.prefix) / f"lab-wheels-{hashlib.sha256(pins).hexdigest()[:12]}"
    with (Path(sys.prefix) / "lab-wheels.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "complete").exists():
            shutil.rmtree(place, ignore_errors=True)
            subprocess.run([*_PIP, "--wheel-dir", str(place), "setuptools>=77"], check=True, timeout=110)
            _build(place, "--constraint", str(CHECKOUT / "constraints.txt"))
            (place / "complete").touch()
        for left in place.glob("of-*"):
            if not Path(f"/proc/{left.name.removeprefix('of-')}").exists():
                shutil.rmtree(left)
        mine = place / f"of-{os.getpid()}"
        shutil.rmtree(mine, ignore_errors=True)
        mine.mkdir()
        for wheel in place.glob("*.whl"):
            if not wheel.name.startswith("node_reconciler-"):
                os.link(wheel, mine / wheel.name)
        _build(mine, "--no-deps", "--no-index", "--find-links", str(place))
    return mine


def _build(place: Path, *options: str) -> None:
    """Wheels of this checkout, from a copy of it: building leaves files behind."""
    source = place / "source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    for part in _SOURCE:
        whole = CHECKOUT / part
        if whole.is_dir():
            shutil.copytree(whole, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(whole, source)
    subprocess.run([*_PIP, *options, "--wheel-dir", str(place), str(source)], check=True, timeout=110)
    shutil.rmtree(source)


def another_version(node: Node, wheels: Path, version: str) -> tuple[str, str]:
    """In the node: a checkout whose code calls itself `version`, and a directory with wheels of it."""
    place, made = f"/root/{version}", f"/root/{version}-wheels"
    parts = " ".join(str(CHECKOUT / part) for part in (*_SOURCE, "systemd", "constraints.txt"))
    pip = " ".join(_PIP)
    node.sh(
        f"""
        mkdir {place} {made}; cp -r {parts} {place}
        sed -i 's/^__version__ = .*/__version__ = "{version}"/' {place}/reconciler/__init__.py
        cp -r {place} {place}-build
        {pip} --no-deps --no-index --find-links {wheels} --wheel-dir {made} {place}-build
        find {wheels} -name '*.whl' ! -name 'node_reconciler-*' -exec ln -s {{}} {made} \\;
        """,
        timeout=110,
    )
    return place, made
