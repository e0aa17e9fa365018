"""Every kind of flow syntax: what is compiled is, byte for byte, what the switch reports once it is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from controllers.drivers.openflow.compiler import Compiled, CompileFault, FlowCompiler
from controllers.drivers.openflow.flows import AddFlow, BundleError, Flow, FlowKey
from tests.controllers.drivers.openflow.support import MARK, Followed, following
from tests.ovs import PrivateOvs

CORPUS = Path(__file__).with_name("corpus.txt")
ODD = {
    "tun_metadata0=0x1234,actions=drop",
    "tun_metadata0=0x1200/0xff00,actions=drop",
    "tun_metadata0,actions=drop",
    "table=1,actions=move:tun_metadata0[0..15]->reg0[0..15]",
    "table=1,actions=delete_field:tun_metadata0",
}
"""Known to be reported in another form: ovs-ofctl does not know the bridge's TLV map, which sizes the fields."""


def corpus() -> dict[str, str]:
    """What is compiled, by the line it is of. Each gets a priority of its own, unless the line has one."""
    lines = [line for line in CORPUS.read_text().splitlines() if line.strip() and not line.startswith("# ")]
    return {f"priority={number},{line}": line for number, line in enumerate(lines, 1000)}


@pytest.fixture
def furnished(ovs_module: PrivateOvs) -> PrivateOvs:
    """A bridge with what flows refer to: ports, groups, a meter, tunnel options."""
    ovs_module.vsctl("--if-exists", "del-br", "br0")
    ovs_module.add_bridge("br0", "fail_mode=secure")
    for name in ("patch-tun", "p1"):
        ovs_module.vsctl("add-port", "br0", name, "--", "set", "interface", name, "type=internal")
    for group in (1, 2):
        ovs_module.ofctl("add-group", "br0", f"group_id={group},type=all,bucket=actions=output:1")
    ovs_module.ofctl("add-meter", "br0", "meter=1,kbps,band=type=drop,rate=1000")
    ovs_module.ofctl("add-tlv-map", "br0", "{class=0xffff,type=0,len=4}->tun_metadata0")
    ovs_module.ofctl("add-tlv-map", "br0", "{class=0xffff,type=1,len=8}->tun_metadata1")
    return ovs_module


async def install(followed: Followed, adds: list[AddFlow]) -> tuple[dict[FlowKey, tuple[FlowKey, Flow]], set[FlowKey]]:
    """Install all that the switch accepts. Returns the odd ones, and the keys that it refused."""
    refused: set[FlowKey] = set()
    while True:
        try:
            odd = await followed.switch.apply_and_read_back([add for add in adds if add.key not in refused])
        except BundleError as error:
            assert error.index is not None
            refused.add([add for add in adds if add.key not in refused][error.index].key)
        else:
            return dict(odd), refused


async def test_what_is_compiled_is_what_the_switch_reports(furnished: PrivateOvs) -> None:
    texts = corpus()
    async with following(furnished, "br0") as followed:
        results = await FlowCompiler().compile(texts, followed.switch.ports)
        good = {text: result for text, result in results.items() if isinstance(result, Compiled)}
        keys = {result.key: texts[text] for text, result in good.items()}
        assert len(keys) == len(good), "two lines mean the same flow"
        adds = [AddFlow(result.key, result.flow(MARK + number)) for number, result in enumerate(good.values())]
        odd, refused = await install(followed, adds)
        held = followed.switch.flows
        differing = {add.key: add for add in adds if add.key not in refused and held.get(add.key) != add.flow}
        print(
            f"\n{len(texts)} lines, {len(good)} compiled, {len(refused)} refused by the switch, "
            f"{len(good) - len(refused) - len(differing)} byte-identical, {len(differing)} not:"
        )
        for key, add in differing.items():
            print(f"  {keys[key]}\n    sent     {key} {add.flow}\n    reported {odd.get(key)}")
        assert {keys[key] for key in differing} == ODD
        assert odd.keys() == differing.keys(), "each odd one is known by what became of it"
        assert len(good) - len(refused) > 700
        assert len(held) == len(good) - len(refused)
        await followed.proven()


async def test_a_second_look_at_an_odd_flow_finds_it_as_it_was_reported(furnished: PrivateOvs) -> None:
    text = "tun_metadata0=0x1234,actions=drop"
    async with following(furnished, "br0") as followed:
        result = (await FlowCompiler().compile([text], followed.switch.ports))[text]
        assert isinstance(result, Compiled)
        (reported,) = (await followed.switch.apply_and_read_back([AddFlow(result.key, result.flow(MARK))])).values()
        assert followed.switch.flows == dict([reported])
        await followed.proven()
        assert await followed.switch.apply_and_read_back([AddFlow(*reported)]) == {}


async def test_a_changed_action_is_seen_for_every_flow() -> None:
    ports = {"patch-tun": 1, "p1": 2, "br0": 0xFFFFFFFE}
    texts = corpus()
    results = await FlowCompiler().compile(texts, ports)
    changed: dict[str, list[str]] = {}
    for text, result in results.items():
        if isinstance(result, Compiled):
            head, separator, actions = text.partition("actions=")
            if not separator:
                head, separator, actions = text.partition("action=")
            tail = "" if actions in {"drop", ""} else f",{actions}"
            instructions_first = f"{actions},note:99.99" if actions else ""
            changed[text] = [
                f"{head}actions=note:99.99{tail}",
                f"{head}actions={instructions_first}",
                f"{head}actions=drop",
            ]
    variants = await FlowCompiler().compile([variant for each in changed.values() for variant in each], ports)
    for text, each in changed.items():
        result = results[text]
        others = [variants[variant] for variant in each if isinstance(variants[variant], Compiled)]
        assert isinstance(result, Compiled)
        differing = [
            other for other in others if isinstance(other, Compiled) and other.instructions != result.instructions
        ]
        assert differing, f"no change of actions was found that compiles: {text}"
        assert all(other.key == result.key for other in differing)


async def test_every_fault_has_words(furnished: PrivateOvs) -> None:
    results = await FlowCompiler().compile(corpus(), {"patch-tun": 1, "p1": 2, "br0": 0xFFFFFFFE})
    faults = [result for result in results.values() if isinstance(result, CompileFault)]
    assert faults
    assert all(fault.message and "\n" not in fault.message.strip() for fault in faults)
