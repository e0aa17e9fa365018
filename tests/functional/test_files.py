"""Files as their user has them: whole ones of ours, blocks and INI keys in files of others, broken and put back.

One node and one daemon for all tests of this module; each leaves it converged.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.functional.daemon import Node
from tests.ovs import PrivateOvs

INI = """# Sample
[DEFAULT]
# external_network_bridge = br-ex
interface_driver = ovs
[agent]
x=1
"""
PASSWORD = "correct-horse"


class Files:
    """A node, a directory of files, and what is declared of them."""

    revision = ""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.top = node.directory / "files"
        self.top.mkdir()
        self.ini, self.hosts, self.own = self.top / "l3.ini", self.top / "hosts", self.top / "conf.d" / "own.conf"
        self.ini.write_text(INI)
        self.ini.chmod(0o640)
        self.hosts.write_text("127.0.0.1 localhost\n")
        (self.top / "credential").write_text(f"{PASSWORD}-2\nrest\n")

    def declared(self, **more: Any) -> dict[str, Any]:
        keys = {"external_network_bridge": "", "gateway_external_network_id": None}
        secrets = {"admin_password": PASSWORD, "nova_key": {"source": str(self.top / "credential")}}
        return {
            str(self.ini): {"ini": {"DEFAULT": keys, "keystone_authtoken": secrets}, "mode": "0600"},
            str(self.hosts): {"blocks": {"cluster": "10.0.0.1 controller\n10.0.0.2 network"}},
            str(self.own): {"content": "a = 1\nb = 2\n", "mode": "0640"},
            **{str(self.top / name): body for name, body in more.items()},
        }

    def rid(self, key: str, section: str = "DEFAULT") -> str:
        return f"ini/{self.ini}:{section}/{key}"


@pytest.fixture(scope="module")
def files(node_module: Node) -> Iterator[Files]:
    files = Files(node_module)
    node_module.set(owner="test-files")
    node_module.declare(files=files.declared())
    node_module.start()
    files.revision = node_module.status().revision
    yield files
    assert node_module.stop() == 0


@pytest.fixture(autouse=True)
def as_declared(files: Files) -> Iterator[None]:
    yield
    files.node.declare(files=files.declared())
    files.node.until(lambda: files.node.status().revision == files.revision, "the first revision is in force again")
    files.node.converged()


def test_keys_are_written_beside_their_commented_default_and_all_else_stays(files: Files) -> None:
    text = files.ini.read_text()
    assert text.startswith("# Sample\n[DEFAULT]\n# external_network_bridge = br-ex\nexternal_network_bridge =\n")
    assert "[agent]\nx=1\n" in text
    assert f"nova_key = {PASSWORD}-2\n" in text
    assert files.ini.stat().st_mode & 0o777 == 0o600
    assert files.own.read_text().endswith("a = 1\nb = 2\n")


def test_a_key_edited_by_hand_is_put_back_and_the_journal_names_it(files: Files) -> None:
    before = files.ini.read_text()
    with files.node.repairs(files.rid("external_network_bridge")) as repair:
        files.ini.write_text(before.replace("\nexternal_network_bridge =", "\nexternal_network_bridge = br-ex"))
    assert files.ini.read_text() == before
    assert repair.done.why == "external_network_bridge in [DEFAULT] differs"
    assert (repair.done.before, repair.done.after) == ("'br-ex'", "''")


def test_a_key_that_must_not_be_there_is_taken_away(files: Files) -> None:
    before = files.ini.read_text()
    with files.node.repairs(files.rid("gateway_external_network_id")):
        files.ini.write_text(before.replace("[agent]", "gateway_external_network_id = 7\n[agent]"))
    assert files.ini.read_text() == before


def test_a_stranger_s_own_key_and_comment_survive_beside_a_repair(files: Files) -> None:
    with files.node.repairs(files.rid("external_network_bridge")):
        text = files.ini.read_text().replace("\nexternal_network_bridge =", "\nexternal_network_bridge = br-ex")
        files.ini.write_text(text.replace("x=1", "x=2\n# mine\ny=3"))
    assert "[agent]\nx=2\n# mine\ny=3\n" in files.ini.read_text()


def test_a_file_that_somebody_is_writing_is_not_written_by_us(files: Files) -> None:
    whole = files.ini.read_text()
    with files.ini.open("w") as writing:  # emptied by this
        files.ini.chmod(0o604)  # an event in the middle
        files.node.says(files.rid("external_network_bridge"), "pending", "writing the file")
        assert files.ini.stat().st_size == 0
        writing.write(whole.replace("x=1", "x=3"))
    files.node.converged()
    assert files.ini.read_text() == whole.replace("x=1", "x=3")


def test_a_file_of_others_that_goes_away_is_waited_for(files: Files) -> None:
    kept = files.ini.read_text()
    files.ini.unlink()
    files.node.says(files.rid("external_network_bridge"), "pending", "waited for")
    with files.node.repairs(files.rid("external_network_bridge")):
        files.ini.write_text(INI)
    assert PASSWORD in kept
    assert PASSWORD in files.ini.read_text()


def test_a_damaged_or_deleted_block_comes_back_once(files: Files) -> None:
    whole = files.hosts.read_text()
    for damaged in (
        whole.replace("10.0.0.2 network", "10.0.0.3 network"),
        whole.replace("# END reconciler: cluster\n", ""),
        "127.0.0.1 localhost\n",
    ):
        with files.node.repairs(f"block/{files.hosts}:cluster"):
            files.hosts.write_text(damaged)
        text = files.hosts.read_text()
        assert text.count("10.0.0.1 controller\n10.0.0.2 network\n") == 1
        assert text.count("reconciler: cluster") == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text("theirs\n"),
        lambda path: path.unlink(),
        lambda path: path.chmod(0o777),
        lambda path: os.chown(path, 1234, 1234),
        lambda path: subprocess.run(["sed", "-i", "s/a = 1/a = 2/", str(path)], check=True),
        lambda path: path.parent.rename(path.parent.with_name(f"moved-{time.monotonic_ns()}")),
    ],
    ids=["truncated", "deleted", "mode", "owner", "sed", "directory"],
)
def test_a_whole_file_is_put_back_whatever_was_done_to_it(files: Files, damage: Any) -> None:
    before = files.own.read_bytes()
    with files.node.repairs(f"file/{files.own}"):
        damage(files.own)
    status = files.own.stat()
    assert files.own.read_bytes() == before
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (0, 0, 0o640)


def test_a_brief_drift_leaves_no_trace_in_the_time_of_change(files: Files) -> None:
    """What restarts when a file is newer than the process would restart for nothing."""
    before = files.own.stat().st_mtime_ns
    with files.node.repairs(f"file/{files.own}"):
        files.own.write_text("theirs\n")
    assert files.own.stat().st_mtime_ns == before


def test_what_is_there_already_is_a_conflict_until_it_is_adopted(files: Files) -> None:
    path = files.top / "theirs.conf"
    path.write_text("theirs\n")
    files.node.declare(files=files.declared(**{"theirs.conf": {"content": "ours\n"}}))
    files.node.says(f"file/{path}", "conflict", "adopt: true")
    assert path.read_text() == "theirs\n"
    files.node.adopts(
        lambda: files.node.declare(files=files.declared(**{"theirs.conf": {"content": "ours\n", "adopt": True}}))
    )
    assert path.read_text().endswith("ours\n")


def test_an_undeclared_whole_file_is_deleted_also_after_a_restart_and_what_is_held_stays(files: Files) -> None:
    one, two, held = files.top / "one.conf", files.top / "two.conf", files.top / "held.ini"
    held.write_text("[a]\nk = 1\n")
    more = {"one.conf": {"content": "1"}, "two.conf": {"content": "2"}, "held.ini": {"ini": {"a": {"k": "2"}}}}
    files.node.adopts(lambda: files.node.declare(files=files.declared(**more)))
    copy = files.top / "copy.conf"
    copy.write_bytes(two.read_bytes())
    del more["one.conf"], more["held.ini"]
    files.node.adopts(lambda: files.node.declare(files=files.declared(**more)))
    files.node.until(lambda: not one.exists(), "one.conf is deleted")
    assert held.read_text() == "[a]\nk = 2\n"
    files.node.kill9()
    files.node.declare(files=files.declared(**{"three.conf": {"content": "3"}}))
    files.node.start()
    files.node.until(lambda: not two.exists(), "two.conf is deleted")
    assert copy.exists(), "a copy of our file is not ours"


def test_a_rotated_credential_is_taken_over(files: Files) -> None:
    with files.node.repairs(files.rid("nova_key", "keystone_authtoken")):
        (files.top / "credential").write_text("rotated\n")
    assert "nova_key = rotated\n" in files.ini.read_text()
    (files.top / "credential").write_text(f"{PASSWORD}-2\n")


def test_no_secret_is_in_the_journal_the_store_the_log_or_any_answer(files: Files) -> None:
    with files.node.repairs(files.rid("admin_password", "keystone_authtoken")) as repair:
        files.ini.write_text(files.ini.read_text().replace(f"= {PASSWORD}\n", "= guessed-horse\n"))
    assert (repair.done.before, repair.done.after) == ("(secret)", "(secret)")
    said = [files.node.cli(*verb).text for verb in (["status"], ["history"], ["render"], ["plan"], ["config"])]
    said.append(files.node.log.read_text())
    said += [path.read_bytes().decode(errors="replace") for path in files.node.state.glob("*.db*")]
    assert not [text for text in said if PASSWORD in text or "guessed-horse" in text]


def test_a_changed_secret_is_a_change_although_no_dump_shows_it(files: Files) -> None:
    changed = json.loads(json.dumps(files.declared()).replace(PASSWORD, "battery-staple"))
    files.node.adopts(lambda: files.node.declare(files=changed))
    assert "admin_password = battery-staple" in files.ini.read_text()


def test_a_converged_node_is_not_written_to_after_a_restart(files: Files) -> None:
    inodes = [path.stat() for path in (files.ini, files.hosts, files.own)]
    files.node.kill9()
    files.node.start()
    files.node.is_untouched()
    assert [path.stat().st_ino for path in (files.ini, files.hosts, files.own)] == [one.st_ino for one in inodes]


def test_yaml_says_what_is_wrong(ovs: PrivateOvs) -> None:
    node = Node(ovs)
    node.write(
        "files:\n  relative/path: {content: x}\n  /etc/x: {content: x, ini: {a: {b: c}}}\n"
        "  /etc/y: {mode: 999, content: x}\n  /etc/z: {}\n  /etc/v: {ini: {a: {'k=': 1}}}\n"
    )
    said = node.cli("validate").text
    for words in ("must be absolute", "declares the whole file", "'999' is no file mode", "says nothing", "no INI key"):
        assert words in said


def test_the_example_of_the_section_is_valid(tmp_path: Path) -> None:
    from desired.kinds.sections import SECTIONS  # noqa: PLC0415
    from desired.schema import load_tree  # noqa: PLC0415

    section = next(section for section in SECTIONS if section.name == "files")
    (tmp_path / "a.yaml").write_text(f"files: {section.example}\n")
    loaded = load_tree(tmp_path, node="n", roles=frozenset(), sections=SECTIONS)
    assert loaded.ok
    assert [str(resource.id) for resource in loaded.resources] == [
        "ini//etc/neutron/l3_agent.ini:DEFAULT/external_network_bridge"
    ]
