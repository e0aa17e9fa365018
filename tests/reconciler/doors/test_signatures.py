"""Signatures recognise their own lines and nothing of one another, and tell what was asked."""

from __future__ import annotations

import pytest

from desired.kinds.probe import Probe
from reconciler.doors.doctor import Verdict
from reconciler.doors.doctor_journal import told
from reconciler.doors.signatures import SIGNATURES, Signature, sightings

HARMLESS = [
    "INFO neutron.agent.dhcp.agent [-] Synchronizing state complete",
    "INFO oslo.messaging._drivers.impl_rabbit [-] Connected to AMQP server on 10.0.0.11:5672",
    "Started Session 1 of user root.",
]


@pytest.mark.parametrize("signature", SIGNATURES, ids=lambda signature: signature.name)
def test_a_signature_knows_its_lines_and_says_what_to_do(signature: Signature) -> None:
    assert signature.lines
    for line in signature.lines:
        (found,) = sightings("quantum-l3-agent.service", [*HARMLESS, line, *HARMLESS])
        assert found.signature is signature
        assert "{" not in found.means + found.do
        assert found.means[0].islower()
        for ask in found.asks:
            Probe.model_validate(ask)


def test_harmless_lines_mean_nothing() -> None:
    assert list(sightings("x.service", HARMLESS)) == []


def test_the_line_s_own_host_is_named_and_asked() -> None:
    line = next(one for one in SIGNATURES if one.name == "broker-away").lines[0]
    (found,) = sightings("quantum-l3-agent.service", [line, line])
    check = told(found, lambda probe: f"{probe.words()}: refused")
    assert check.verdict is Verdict.WARNING
    assert "does not reach the message broker at 10.0.0.11:5672" in check.detail
    assert "seen 2 times" in check.detail
    assert "asked now: tcp 10.0.0.11:5672: refused" in check.detail
    assert "on 10.0.0.11" in check.advice


def test_the_configuration_of_the_right_product_is_named() -> None:
    line = "ERROR quantum.agent.dhcp_agent [-] Unable to sync network state."
    (found,) = sightings("quantum-dhcp-agent.service", [line])
    assert found.asks == ({"amqp": "ini:/etc/quantum/quantum.conf:DEFAULT/transport_url"},)
    (found,) = sightings("openvswitch-switch.service", [line])
    assert "/etc/neutron/neutron.conf" in found.do
