"""What becomes of a state that cannot be made: the last one stays in force and says so."""

from __future__ import annotations

from typing import Any

import pytest

from desired.network.compose import Composed, Composer
from desired.network.model import NetworkSpec
from desired.schema import Loaded, Problem
from reconciler.cluster import Cluster
from reconciler.contract import Outcome
from reconciler.intake import Intake
from tests.desired.network.support import of
from tests.reconciler.fakes import Lab, thing

pytestmark = pytest.mark.looptime


class Fragile:
    """Breaks so many of the next calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        whole = Composer.compose

        def compose(composer: Composer, *args: Any, **more: Any) -> Composed:
            if self.left:
                self.left -= 1
                raise KeyError("a defect")
            return whole(composer, *args, **more)

        monkeypatch.setattr(Composer, "compose", compose)


@pytest.mark.parametrize("times", [1, 5])
async def test_a_defect_in_composing_leaves_the_last_state_in_force(
    monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    fragile, lab = Fragile(monkeypatch), Lab()
    intake = Intake(lab.engine, "files", 2.0, lambda _snapshot: None)
    cluster = Cluster("n1", intake, lambda _bridge: (), lambda _seconds: None)
    async with lab.running():
        cluster.take_files(Loaded((thing("a"),), digest="1"))
        await cluster.compose()
        await lab.settle(1.0)
        fragile.left = times
        cluster.take_files(Loaded((thing("a"), thing("b")), digest="2"))
        await cluster.compose()
        lab.world.lose("a")
        await lab.settle(1.0)
        assert lab.things() == ({"a": "v", "b": "v"} if times == 1 else {"a": "v"})
        if times > 1:
            assert "internal error in compiling the model" in intake.problem
            fragile.left = 0
            cluster.take_files(Loaded((thing("a"), thing("b")), digest="3"))
            await cluster.compose()
            await lab.settle(1.0)
            assert lab.things() == {"a": "v", "b": "v"}
            assert lab.engine.statuses.outcome() is Outcome.CONVERGED


async def test_while_the_yaml_is_wrong_the_model_in_force_is_the_last_good_one() -> None:
    """`explain` and `trace` answer from it, and what it made is still on the node."""
    lab, network = Lab(), of(NetworkSpec, "one", type="local")
    cluster = Cluster("n1", Intake(lab.engine, "files", 2.0, lambda _: None), lambda _: (), lambda _: None)
    async with lab.running():
        cluster.take_files(Loaded((thing("a"), network), digest="1"))
        assert await cluster.compose()
        good = cluster.model
        assert network.id in good.objects
        cluster.take_files(Loaded((thing("a"),), problems=(Problem("a mistake"),), digest="2"))
        assert await cluster.compose()
        assert cluster.model is good
