"""No change of a tracked path is missed, whatever happens to the directories and links that lead to it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controllers.drivers.files.watcher import PathWatcher


class Ears:
    def __init__(self) -> None:
        self.heard: asyncio.Queue[str] = asyncio.Queue()
        self.watcher = PathWatcher(lambda path, _why: self.heard.put_nowait(path))
        self.watcher.listen()

    async def hears(self, path: Path) -> None:
        while await asyncio.wait_for(self.heard.get(), 5) != str(path):
            pass

    async def quiet(self) -> None:
        """Forget what was heard until now."""
        await asyncio.sleep(0.02)
        while not self.heard.empty():
            self.heard.get_nowait()


@pytest.fixture
async def ears() -> AsyncIterator[Ears]:
    ears = Ears()
    yield ears
    ears.watcher.close()


async def test_writing_replacing_deleting_and_chmod_are_heard(ears: Ears, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("1")
    ears.watcher.track(str(file))
    for change in (
        lambda: file.write_text("2"),
        lambda: (tmp_path / "g").write_text("3") and (tmp_path / "g").rename(file),
        lambda: file.chmod(0o600),
        file.unlink,
        lambda: file.write_text("4"),
    ):
        await ears.quiet()
        change()
        await ears.hears(file)


async def test_a_file_whose_directories_come_later_is_heard_of(ears: Ears, tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "f"
    ears.watcher.track(str(file))
    file.parent.mkdir(parents=True)
    file.write_text("1")
    await ears.hears(file)
    await ears.quiet()
    file.write_text("2")
    await ears.hears(file)


async def test_a_directory_deleted_and_made_anew_or_moved_is_followed(ears: Ears, tmp_path: Path) -> None:
    file = tmp_path / "a" / "f"
    for _ in range(3):
        file.parent.mkdir()
        file.write_text("1")
        ears.watcher.track(str(file))
        await ears.quiet()
        shutil.rmtree(file.parent)
        await ears.hears(file)
    file.parent.mkdir()
    file.write_text("1")
    await ears.hears(file)
    await ears.quiet()
    file.parent.rename(tmp_path / "b")
    await ears.hears(file)
    await ears.quiet()
    file.parent.mkdir()
    file.write_text("2")
    await ears.hears(file)


async def test_a_link_is_heard_of_where_it_is_and_where_it_points(ears: Ears, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "f", tmp_path / "link"
    target.write_text("1")
    link.symlink_to("real/f")
    ears.watcher.track(str(link))
    target.write_text("2")
    await ears.hears(link)
    await ears.quiet()
    link.unlink()
    link.symlink_to("other")
    await ears.hears(link)
    await ears.quiet()
    (tmp_path / "other").write_text("3")
    await ears.hears(link)
    plain = tmp_path / "plain"
    plain.write_text("4")
    ears.watcher.track(str(plain))
    (tmp_path / "new").symlink_to("real/f")
    (tmp_path / "new").rename(plain)
    await ears.hears(plain)
    await ears.quiet()
    target.write_text("5")
    await ears.hears(plain)


async def test_a_neighbour_is_not_heard_and_a_forgotten_path_neither(ears: Ears, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    ears.watcher.track(str(one))
    ears.watcher.track(str(two))
    two.write_text("1")
    await ears.hears(two)
    await ears.quiet()
    ears.watcher.forget(str(two))
    two.write_text("2")
    one.write_text("1")
    await ears.hears(one)
    await asyncio.sleep(0.02)
    found = {ears.heard.get_nowait() for _ in range(ears.heard.qsize())}
    assert str(two) not in found


async def test_a_file_that_is_being_written_in_place_is_half_written_until_it_is_closed(
    ears: Ears, tmp_path: Path
) -> None:
    file = tmp_path / "f"
    file.write_text("whole")
    ears.watcher.track(str(file))
    assert not ears.watcher.half_written(str(file))
    with file.open("w") as writing:
        assert ears.watcher.half_written(str(file)), "truncated, and nothing in it yet"
        writing.write("who")
        writing.flush()
        assert ears.watcher.half_written(str(file))
    assert not ears.watcher.half_written(str(file))
    await ears.hears(file)
