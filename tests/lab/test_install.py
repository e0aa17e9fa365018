"""Packages are installed with nothing started or enabled, and the machine's start policy is as it was.

Runs apt-get for real, on a package made here whose scripts do what Debian's do, inside a sandboxed node: what is
installed there is gone with it.
"""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]

_PROBE = r"""set -e
mkdir -p probe/DEBIAN probe/etc/init.d probe/lib/systemd/system && cd probe
cat >DEBIAN/control <<'X'
Package: lab-probe
Version: 1
Architecture: all
Maintainer: nobody <nobody@localhost>
Description: probe
X
printf '[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n' >lib/systemd/system/lab-probe.service
cat >etc/init.d/lab-probe <<'X'
#!/bin/sh
### BEGIN INIT INFO
# Provides: lab-probe
# Required-Start:
# Required-Stop:
# Default-Start: 2 3 4 5
# Default-Stop: 0 1 6
### END INIT INFO
echo "$1" >>/var/lab-probe-was-asked
X
cat >DEBIAN/postinst <<'X'
#!/bin/sh
set -e
deb-systemd-helper unmask lab-probe.service >/dev/null || true
if deb-systemd-helper --quiet was-enabled lab-probe.service; then
    deb-systemd-helper enable lab-probe.service >/dev/null || true
else
    deb-systemd-helper update-state lab-probe.service >/dev/null || true
fi
update-rc.d lab-probe defaults >/dev/null
invoke-rc.d --skip-systemd-native lab-probe start || exit 1
deb-systemd-invoke start lab-probe.service || true
touch /var/lab-probe-configured
while [ -e /var/lab-probe-wait ]; do sleep 0.05; done
X
chmod 755 DEBIAN/postinst etc/init.d/lab-probe
cd .. && dpkg-deb -b probe lab-probe.deb >/dev/null
cd - >/dev/null && cd CHECKOUT
install() { unshare --mount --propagation private sh tests/lab/install.sh /tmp/lab-probe.deb; }
links() { find /etc/systemd /etc/rc?.d -name '*lab-probe*' | sort; }
"""


def test_an_installed_service_is_neither_started_nor_enabled_and_stays_so_on_upgrade() -> None:
    said = _in_a_node("""
        rm -f /usr/sbin/policy-rc.d
        install
        test -e /var/lab-probe-configured
        test ! -e /var/lab-probe-was-asked && echo not-started
        links | grep -v /K || echo not-enabled
        test ! -e /usr/sbin/policy-rc.d && echo policy-gone
        printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d
        dpkg-reconfigure lab-probe </dev/null >/dev/null 2>&1; links | grep -v /K || echo still-not-enabled
    """)
    assert said == ["not-started", "not-enabled", "policy-gone", "still-not-enabled"]


def test_a_start_policy_that_is_there_stays_untouched() -> None:
    said = _in_a_node("""
        rm -f /usr/sbin/policy-rc.d
        printf '#!/bin/sh\\nexit 0\\n' >/usr/sbin/policy-rc.d; chmod 750 /usr/sbin/policy-rc.d
        before=$(stat -c '%i %a %Y %Z' /usr/sbin/policy-rc.d)
        install
        test ! -e /var/lab-probe-was-asked && echo not-started
        test "$before" = "$(stat -c '%i %a %Y %Z' /usr/sbin/policy-rc.d)" && echo same
    """)
    assert said == ["not-started", "same"]


def test_a_killed_installation_forbids_nothing_afterwards_and_the_next_one_cleans_up() -> None:
    said = _in_a_node("""
        rm -f /usr/sbin/policy-rc.d
        touch /var/lab-probe-wait
        unshare --mount --propagation private sh tests/lab/install.sh /tmp/lab-probe.deb & installer=$!
        while [ ! -e /var/lab-probe-configured ]; do sleep 0.05; done
        sh /usr/sbin/policy-rc.d || echo forbids
        kill -9 $installer; wait $installer || true
        /usr/sbin/policy-rc.d && echo forbids-no-more
        links | grep -v /K || echo not-enabled
        rm /var/lab-probe-wait
        while ! flock -n /var/lib/dpkg/lock-frontend true || pgrep -x dpkg >/dev/null; do sleep 0.05; done
        install
        test ! -e /usr/sbin/policy-rc.d && test ! -e /var/lab-probe-was-asked && echo clean
    """)
    assert said == ["forbids", "forbids-no-more", "not-enabled", "clean"]


def _in_a_node(script: str) -> list[str]:
    whole = "cd /tmp\n" + _PROBE.replace("CHECKOUT", str(CHECKOUT)) + script
    done = subprocess.run(
        [sys.executable, "-m", "tests.lab.sandbox", "run", "--name", uuid.uuid4().hex[:8], "--", "sh", "-c", whole],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()
