"""The doctor's check of Neutron's API: does it answer, are the credentials an administrator's, how much is in it?"""

from __future__ import annotations

import os
from collections.abc import Iterator

from desired.sources.neutron_api import NeutronApi, ReadError
from reconciler.clock import SystemClock
from reconciler.credentials import NEUTRON_TOKEN, secret
from reconciler.doors.doctor import Check, Examiner, Verdict
from reconciler.doors.session import Session


def _neutron(session: Session) -> Iterator[Check]:
    settings = session.settings.neutron
    if not settings.used:
        detail = "neither neutron.cloud nor neutron.endpoint is set: the model is not read from OpenStack"
        yield Check("neutron", Verdict.SKIPPED, detail)
        return
    api = NeutronApi(settings, token=secret(NEUTRON_TOKEN, os.environ), wall=SystemClock().wall)
    try:
        counts = api.count()
    except ReadError as error:
        advice = (
            "the network stays as it was last known; check neutron.cloud and its clouds.yaml, or neutron.endpoint "
            "and /etc/credstore/reconciler.neutron-token"
        )
        yield Check("neutron", Verdict.BAD, str(error), advice)
        return
    found = ", ".join(f"{number} {kind}{'' if number == 1 else 's'}" for kind, number in counts.items())
    yield Check("neutron", Verdict.OK, f"{api.place} answers, and shows {found}")


EXAMINERS: tuple[Examiner, ...] = (_neutron,)
