"""Puts the gates in order and a plan through them: which groups may act, which wait, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from desired.resource import ResourceId
from reconciler.contract import Change, Group, Plan
from reconciler.gates.backoff import Backoff
from reconciler.gates.base import ChangeGate, Context, Withheld
from reconciler.gates.budget import Budget
from reconciler.gates.contention import Contention
from reconciler.gates.pauses import Paused
from reconciler.gates.rate import Rate
from reconciler.gates.refs import Refs
from reconciler.gates.sync import InSync
from reconciler.settings import Settings

_OF_GROUPS = (Refs, Rate)
"""Gates that judge a group whole."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A group, or the part of a divisible group, with the reason why it is withheld; None: it may act."""

    group: Group
    withheld: Withheld | None = None


@dataclass(slots=True)
class Gates:
    """All gates of a node. One set lives as long as the daemon; `plan` borrows it with one more gate mounted."""

    in_sync: InSync
    paused: Paused
    refs: Refs
    backoff: Backoff
    rate: Rate
    contention: Contention
    budget: Budget
    _order: tuple[Refs | Rate | ChangeGate, ...] = ()

    def __post_init__(self) -> None:
        self._order = (
            self.in_sync, self.paused, self.refs, self.backoff, self.rate, self.contention, self.budget
        )  # fmt: skip

    @classmethod
    def build(cls, settings: Settings, *, usable: Callable[[ResourceId], bool], chance: Callable[[], float]) -> Gates:
        return cls(
            in_sync=InSync(),
            paused=Paused(),
            refs=Refs(usable),
            backoff=Backoff(settings.backoff.first, settings.backoff.max, chance),
            rate=Rate(
                node=(settings.rates.node.per_second, settings.rates.node.burst),
                kind=(settings.rates.kind.per_second, settings.rates.kind.burst),
            ),
            contention=Contention(settings.contention.max_delay),
            budget=Budget(minimum=settings.budget.minimum, share=settings.budget.share, window=settings.budget.window),
        )

    def admit(self, plan: Plan, ctx: Context, mounted: Sequence[ChangeGate] = ()) -> Sequence[Decision]:
        """Judge every group of `plan`. `mounted` are this pass's extra gates (dry run, only).

        They come last, so that a plan shows what the other gates would say. Rates are not charged.
        """
        order = [gate for gate in self._order if isinstance(gate, _OF_GROUPS) or gate.active(ctx)]
        order += [gate for gate in mounted if gate.active(ctx)]
        decisions: list[Decision] = []
        for group in plan.groups:
            decisions.extend(_judge(group, order, ctx))
        return decisions


def _judge(group: Group, order: Sequence[Refs | Rate | ChangeGate], ctx: Context) -> list[Decision]:
    decisions: list[Decision] = []
    for gate in order:
        if isinstance(gate, _OF_GROUPS):
            withheld = gate.group(group, ctx)
            if withheld is not None:
                return [*decisions, Decision(group, withheld)]
            continue
        blocked, free = _part(group.changes, gate, ctx)
        if not blocked:
            continue
        if not group.divisible or not free:
            return [*decisions, Decision(group, blocked[0][1])]
        by_reason: dict[Withheld, list[Change]] = {}
        for change, why in blocked:
            by_reason.setdefault(why, []).append(change)
        decisions.extend(Decision(replace(group, changes=tuple(changes)), why) for why, changes in by_reason.items())
        group = replace(group, changes=tuple(free))
    return [*decisions, Decision(group)]


def _part(
    changes: Sequence[Change], gate: ChangeGate, ctx: Context
) -> tuple[list[tuple[Change, Withheld]], list[Change]]:
    blocked: list[tuple[Change, Withheld]] = []
    free: list[Change] = []
    for change in changes:
        withheld = gate.change(change, ctx)
        if withheld is None:
            free.append(change)
        else:
            blocked.append((change, withheld))
    return blocked, free
