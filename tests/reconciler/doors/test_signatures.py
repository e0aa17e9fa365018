"""Signatures recognise their own lines and nothing of one another, and tell what was asked."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from desired.kinds.probe import Probe
from reconciler.doors.doctor import Verdict
from reconciler.doors.doctor_journal import answer, meant, told
from reconciler.doors.signatures import SIGNATURES, Signature, sightings
from tests.rabbitmq import RabbitServer

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


def test_the_host_that_the_configuration_means_is_named_and_asked(tmp_path: Path) -> None:
    signature = next(one for one in SIGNATURES if one.name == "l3-loop")
    ini = tmp_path / "l3_agent.ini"
    ini.write_text("[DEFAULT]\nauth_url = http://10.0.0.11:35357/v2.0\n")
    places = (f"{tmp_path}/none.ini:DEFAULT/auth_url", f"{ini}:DEFAULT/auth_url")
    (found,) = sightings("quantum-l3-agent.service", [signature.lines[0]])
    there = meant(replace(found, signature=replace(signature, meant=places)))
    check = told(there, lambda probe: f"{probe.words()}: refused")
    assert "from the API (port 9696 of 10.0.0.11) or from identity (10.0.0.11:35357)" in check.detail
    assert "tcp 10.0.0.11:9696: refused; tcp 10.0.0.11:35357: refused; amqp ini:/etc/quantum" in check.detail
    assert "run on 10.0.0.11" in check.advice
    assert "127.0.0.1:9696" in told(found, lambda probe: probe.words()).detail


async def test_the_configured_credentials_were_tried_and_no_password_is_shown(
    rabbit_server: RabbitServer, tmp_path: Path
) -> None:
    rabbit_server.add_user("dhcp", "geheim")
    conf = tmp_path / "quantum.conf"
    conf.write_text(
        f"[DEFAULT]\nrabbit_host = 127.0.0.1\nrabbit_port = {rabbit_server.port}\n"
        "rabbit_userid = dhcp\nrabbit_password = falsch\n"
    )
    signature = next(one for one in SIGNATURES if one.name == "network-state")
    asked = replace(signature, asks=({"amqp": f"ini:{conf}:DEFAULT/transport_url"},))
    (found,) = sightings("quantum-dhcp-agent.service", [signature.lines[1]])
    check = await asyncio.to_thread(told, replace(found, signature=asked), answer)
    assert f"the broker refuses user dhcp at 127.0.0.1:{rabbit_server.port}: ACCESS_REFUSED" in check.detail
    assert "falsch" not in check.detail + check.advice


def test_what_rootwrap_refuses_is_looked_for_in_its_filters() -> None:
    signature = next(one for one in SIGNATURES if one.name == "rootwrap")
    (found,) = sightings("neutron-l3-agent.service", [signature.lines[0]])
    detail = told(found, lambda probe: probe.words()).detail
    assert "command grep -rlwe ip /etc/neutron/rootwrap.d /usr/share/neutron/rootwrap" in detail


def test_the_configuration_of_the_right_product_is_named() -> None:
    line = "ERROR quantum.agent.dhcp_agent [-] Unable to sync network state."
    (found,) = sightings("quantum-dhcp-agent.service", [line])
    assert found.asks == ({"amqp": "ini:/etc/quantum/quantum.conf:DEFAULT/transport_url"},)
    (found,) = sightings("openvswitch-switch.service", [line])
    assert "/etc/neutron/neutron.conf" in found.do
