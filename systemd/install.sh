#!/bin/sh
# Puts the daemon on this node, or upgrades the one that is here. Run as root, from a checkout:
#
#   sh systemd/install.sh                    from PyPI, with the versions that constraints.txt pins
#   sh systemd/install.sh --wheels DIR       from wheels alone, for a node without internet; made elsewhere by
#                                            pip wheel --constraint constraints.txt --wheel-dir DIR .
#   options: --extra postgresql (may be repeated)   --no-start (only enable it)
#
# What it makes: /opt/reconciler/<version>-<time> (a virtualenv; `current` points to the one in use), the command
# /usr/local/bin/reconcile, /etc/systemd/system/reconciler.service, and, where there is none yet,
# /etc/reconciler/reconciler.toml. The service is enabled, and started when something is declared.
# An upgrade is made beside the old version; if the new one does not start, the old one is put back. The network is
# not touched by any of this, and no packet is lost. `sh /opt/reconciler/uninstall.sh` takes it away.
set -eu

here=$(dirname "$(dirname "$(readlink -f "$0")")")
root=/opt/reconciler
unit=/etc/systemd/system/reconciler.service
wheels=
extras=
start=yes

die() {
    echo "install: $*" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
        --wheels) wheels=$(readlink -f "${2:?"--wheels needs a directory"}"); shift 2 ;;
        --extra) extras=$extras${extras:+,}${2:?"--extra needs a name"}; shift 2 ;;
        --no-start) start=; shift ;;
        *) sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"; [ "$1" = --help ] || [ "$1" = -h ] || exit 64; exit 0 ;;
    esac
done

[ "$(id -u)" = 0 ] || die "needs root"
[ -d /run/systemd/system ] || die "systemd is not PID 1 of this machine"
[ -z "$wheels" ] || [ -n "$(find "$wheels" -name 'node_reconciler-*.whl' 2>/dev/null)" ] ||
    die "there is no wheel of node-reconciler in $wheels; nothing has changed on this node"
# -I: nothing of the current directory or of the environment is imported.
python=$(command -v python3) || die "needs Python 3.11 or newer: install python3 and python3-venv"
$python -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "needs Python 3.11 or newer; $python is older"
$python -I -c 'import ensurepip, venv' 2>/dev/null || die "needs Python's venv: install python3-venv"

# The new version, beside what is there. --------------------------------------------------------------------------
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$here/reconciler/__init__.py")
fresh=$root/$version-$(date -u +%Y%m%dT%H%M%S)
old=$(readlink "$root/current" 2>/dev/null || true)
umask 022
mkdir -p $root
build=$(mktemp -d)
trap 'rm -rf "$build"; [ -L $root/current ] && [ "$(readlink $root/current)" = "$fresh" ] || rm -rf "$fresh"' EXIT
$python -I -m venv "$fresh"
if [ -n "$wheels" ]; then
    set -- --no-index --find-links "$wheels" "node-reconciler${extras:+[$extras]}"
else
    # A copy: building leaves files behind, and the checkout is not ours to leave them in.
    for part in reconciler controllers desired pyproject.toml README.md LICENSE; do
        cp -r "$here/$part" "$build/"
    done
    set -- "$build${extras:+[$extras]}"
fi
"$fresh/bin/python" -I -m pip install -q --no-compile --disable-pip-version-check --constraint "$here/constraints.txt" "$@" </dev/null ||
    die "pip could not install it (its message is above); nothing has changed on this node"
# Compiles what the daemon uses, and nothing else: its start, and with it a restart, is short.
"$fresh/bin/python" -I -c 'import reconciler.daemon, desired.sql'
"$fresh/bin/reconcile" --version

# Put it in place. -------------------------------------------------------------------------------------------------
point_to() {
    ln -sfn "$1" $root/next
    mv -T $root/next $root/current
}
had_unit=
[ ! -e $unit ] || { had_unit=yes; cp -p $unit "$build/unit"; }
install -m 644 "$here/systemd/reconciler.service" $unit
install -m 755 "$here/systemd/uninstall.sh" $root/uninstall.sh
point_to "$fresh"
mkdir -p /usr/local/bin
ln -sfn $root/current/bin/reconcile /usr/local/bin/reconcile
install -d -m 750 /etc/reconciler /etc/reconciler/desired
[ -e /etc/reconciler/reconciler.toml ] ||
    install -m 640 "$here/systemd/reconciler.toml" /etc/reconciler/reconciler.toml
systemctl daemon-reload
systemctl --quiet enable reconciler.service

# Start it. --------------------------------------------------------------------------------------------------------
declared=$(find -L /etc/reconciler/desired -name '*.yaml' -o -name '*.yml' | head -n 1)
if [ -z "$start" ] || [ -z "$declared" ]; then
    if ! systemctl --quiet is-active reconciler.service; then
        echo "installed, not started. Declare the node in /etc/reconciler/desired (reconcile validate, reconcile plan);"
        echo "then: systemctl start reconciler"
        exit 0
    fi
fi
if ! systemctl restart reconciler.service; then
    journalctl -u reconciler.service -n 20 --no-pager >&2 || true
    if [ -n "$old" ] && [ -d "$old" ]; then
        point_to "$old"
        [ -z "$had_unit" ] || install -m 644 "$build/unit" $unit
        systemctl daemon-reload
        systemctl restart reconciler.service || true
        die "the new version did not start (its journal is above); $old runs again"
    fi
    die "it is installed and did not start (its journal is above)"
fi
find $root -mindepth 1 -maxdepth 1 -type d ! -path "$fresh" ! -path "$old" -exec rm -rf {} +
echo "running: $(systemctl show -P StatusText reconciler.service). Ask it with: reconcile status"
