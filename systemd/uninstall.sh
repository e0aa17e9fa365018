#!/bin/sh
# Takes the daemon off this node and leaves the node's network exactly as it is.
#
#   sh /opt/reconciler/uninstall.sh [--release] [--purge]
#
#   --release   first take the daemon's marks off what it made, for good (reconcile release). Without it the marks
#               stay, and a daemon that is installed again knows its own.
#   --purge     also remove /etc/reconciler, /var/lib/reconciler (journal, revisions) and the store's credential
set -eu

release=
purge=
for word; do
    case $word in
        --release) release=yes ;;
        --purge) purge=yes ;;
        *) sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"; [ "$word" = --help ] || [ "$word" = -h ] || exit 64; exit 0 ;;
    esac
done
[ "$(id -u)" = 0 ] || { echo "uninstall: needs root" >&2; exit 1; }

systemctl --quiet disable --now reconciler.service 2>/dev/null || true
if [ -n "$release" ]; then
    /opt/reconciler/current/bin/reconcile release || {
        echo "uninstall: the marks could not be taken off (see above); the daemon is stopped and still installed" >&2
        exit 1
    }
fi
rm -rf /etc/systemd/system/reconciler.service /etc/systemd/system/reconciler.service.d
systemctl daemon-reload
systemctl reset-failed reconciler.service 2>/dev/null || true
[ ! -L /usr/local/bin/reconcile ] || rm /usr/local/bin/reconcile
rm -rf /opt/reconciler /run/reconciler
[ -z "$purge" ] || rm -rf /etc/reconciler /var/lib/reconciler /etc/credstore/reconciler.*-password
echo "removed. The network is as it was${purge:+; settings, YAML and journal are gone}."
