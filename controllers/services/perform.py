"""Taking one step for one unit: over systemd's D-Bus, or on its files."""

from __future__ import annotations

import asyncio
from pathlib import Path

from controllers.drivers.files import disk
from controllers.drivers.files.disk import Wanted
from controllers.drivers.systemd.bus import Systemd
from controllers.services.state import (
    Disable,
    Enable,
    Load,
    Mask,
    Reload,
    ReloadUnit,
    RemoveFile,
    Restart,
    Start,
    Step,
    Stop,
    Unmask,
    WriteFile,
)
from reconciler.errors import DriverError

PATIENCE = 1.0
"""Seconds that a pass waits for a job of systemd's; a unit that takes longer is heard of when it is there."""


async def perform(driver: Systemd, name: str, step: Step) -> None:
    """Raises DriverError when it was refused."""
    match step:
        case WriteFile():
            await asyncio.to_thread(_write, step)
        case RemoveFile():
            await asyncio.to_thread(_remove, step.path)
        case Start():
            await driver.reset_failed(name)
            await driver.start(name, PATIENCE)
        case Restart():
            await driver.restart(name, PATIENCE)
        case Stop():
            await driver.stop(name, PATIENCE)
        case ReloadUnit():
            result = await driver.reload_unit(name, PATIENCE)
            if result not in {"done", ""}:
                raise DriverError(f"reloading {name}: {result}; its journal says why (ExecReload); tried again")
        case Load() | Reload() | Mask() | Unmask() | Enable() | Disable():
            await _install(driver, name, step)


async def _install(driver: Systemd, name: str, step: Load | Reload | Mask | Unmask | Enable | Disable) -> None:
    match step:
        case Load():
            unit = await driver.read_again(name)
            if not unit.installed or unit.need_reload:
                await driver.reload()
        case Reload():
            await driver.reload()
        case Mask():
            await driver.mask(name)
        case Unmask():
            await driver.unmask(name)
        case Enable():
            await driver.enable(name)
        case Disable():
            await driver.disable(name)


def _write(step: WriteFile) -> None:
    state = disk.read(step.path, follow=False)
    disk.replace(state, Wanted(step.content, 0, 0, 0o644, step.mark))


def _remove(path: str) -> None:
    disk.delete(disk.read(path, follow=False))
    directory = Path(path).parent
    if directory.suffix == ".d" and not any(directory.iterdir()):
        directory.rmdir()
