"""Secrets in the forms in which they stand on a node are taken out; everything else stays."""

import pytest

from reconciler.doors.redact import redact


@pytest.mark.parametrize(
    "text",
    [
        "password: hunter2",
        "rabbit_password = hunter2",
        'admin_password="hunter2 and more"',
        "  - {name: x, password: hunter2, port: 5}",
        "{psk: 'hunter2', in_key: flow}",
        "options             : {in_key=flow, psk=hunter2}",
        "connection = mysql+pymysql://neutron:hunter2@10.0.0.1/neutron?charset=utf8",
        "metadata_proxy_shared_secret = hunter2",
        "password: |\n  hunter2\n  hunter2\nnext: 1",
        "    auth_token: >-\n      hunter2\n    next: 1",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----",
        "ExecStart=/bin/x --password hunter2 --port 5",
        'basic_auth_users: {me: "$2y$10$hunter2hunter2hunter2hunter2hunter2hunter2hunter2hunt"}',
        '"RECONCILER_STORE_PASSWORD": "hunter2"',
        "it stands anywhere: XhunterXhunter2",
    ],
)
def test_a_secret_is_taken_out(text: str) -> None:
    assert "hunter2" not in redact(text, {"hunterXhunter2", "XhunterXhunter2"})


@pytest.mark.parametrize(
    "text",
    [
        "options: {in_key: flow, out_key: flow, local_ip: 10.0.0.1}",
        "priority=3,tun_id=1,dl_dst=fa:16:3e:11:00:02,actions=mod_vlan_vid:1,NORMAL",
        "store_url = sqlite:////var/lib/reconciler/state.db",
        "passes: 17\npass_id: 4",
        "http://10.0.0.1:9696/v2.0",
        "monkey: business",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text, {"", "no"}) == text


def test_what_surrounds_a_secret_stays() -> None:
    assert redact("{a: 1, password: x y z, b: 2}\nc: 3") == "{a: 1, password: ***, b: 2}\nc: 3"
    assert redact("x: 1\nsecret: |\n  abc\n\n  def\ny: 2\n") == "x: 1\nsecret: |\n  ***\ny: 2\n"
