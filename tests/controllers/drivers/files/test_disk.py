"""A file is replaced whole, keeps what it had, and is never written over a stranger's change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controllers.drivers.files import disk, marks
from controllers.drivers.files.disk import Kind, Wanted
from reconciler.errors import DriverError


def test_a_replaced_file_keeps_owner_mode_and_attributes(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("old")
    os.chown(file, 1234, 4321)
    file.chmod(0o640)
    os.setxattr(file, "user.label", b"x")
    disk.replace(disk.read(str(file), follow=True), Wanted(b"new"))
    status = file.stat()
    assert file.read_text() == "new"
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1234, 4321, 0o640)
    assert os.getxattr(file, "user.label") == b"x"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_missing_directories_are_for_everybody_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        disk.replace(disk.read(str(tmp_path / "a" / "b" / "f"), follow=True), Wanted(b"new"))
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o7777 for path in (tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/f")]
    assert modes == [0o755, 0o755, 0o644]


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    state = disk.read(str(tmp_path / "link"), follow=True)
    disk.replace(state, Wanted(b"new"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_link_made_by_a_user_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/shadow")
    os.chown(tmp_path / "link", 1234, 1234, follow_symlinks=False)
    with pytest.raises(DriverError, match="link made by uid 1234"):
        disk.read(str(tmp_path / "link"), follow=True)


def test_what_somebody_wrote_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("old")
    state = disk.read(str(file), follow=False)
    file.write_text("theirs")
    with pytest.raises(DriverError, match="somebody else"):
        disk.replace(state, Wanted(b"ours"))
    with pytest.raises(DriverError, match="somebody else"):
        disk.delete(state)
    assert file.read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_pipe_is_no_file_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p")
    assert disk.read(str(tmp_path / "p"), follow=True).kind is Kind.OTHER


def test_a_mark_names_the_path_so_that_a_copy_is_not_ours(tmp_path: Path) -> None:
    file, copy = tmp_path / "f", tmp_path / "copy"
    content = marks.with_header(b"#!/bin/sh\nexit 0\n", "me", str(file), "#")
    assert content.startswith(b"#!/bin/sh\n# X-Reconciler-Owner=me ")
    disk.replace(disk.read(str(file), follow=False), Wanted(content, mark=marks.xattr("me", str(file))))
    copy.write_bytes(content)
    assert marks.is_ours(disk.read(str(file), follow=False), "me")
    assert not marks.is_ours(disk.read(str(file), follow=False), "other")
    assert not marks.is_ours(disk.read(str(copy), follow=False), "me")
    assert list(marks.find("me", str(tmp_path))) == [str(file)]


def test_a_file_that_somebody_truncated_is_still_ours_by_its_attribute(tmp_path: Path) -> None:
    file = tmp_path / "f"
    disk.replace(disk.read(str(file), follow=False), Wanted(b"{}", mark=marks.xattr("me", str(file))))
    file.write_text("theirs")
    assert marks.is_ours(disk.read(str(file), follow=False), "me")
    assert list(marks.find("me", str(tmp_path))) == [str(file)]
