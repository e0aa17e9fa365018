#!/bin/sh
# Installs Debian packages so that nothing starts: not now, and not at the next boot.
#
#   unshare --mount --propagation private sh tests/lab/install.sh PACKAGE…
#
# Debian's packages start and enable their services when they are installed. This runs apt-get in a mount namespace
# of its own where
#   - /usr/sbin/policy-rc.d, which Debian's tools ask before they start or restart anything, says no (101). Where the
#     machine has one, ours lies over it in this namespace only and the machine's is never touched. Where it has none,
#     a file has to be there for the time of the installation; it is removed at the end, and says no only as long as
#     this very process lives, so that it means nothing even if we are killed;
#   - /etc/systemd/system, /etc/systemd/user and /etc/rc?.d are copies, so the links that enable a service go with
#     the namespace. Debian's record that there should be such links stays, which is the state of a service that an
#     administrator has disabled: later upgrades of the package leave it disabled;
#   - PostgreSQL is told not to make a database cluster.
# What is left are the packages: their files, users and unit files. `systemctl enable --now` starts one by hand.
set -eu

stage=/srv # every Debian has it; covered in this mount namespace only
policy=/usr/sbin/policy-rc.d
marker='# Placed by node-reconciler'
ours=

main() {
    mount -t tmpfs -o mode=755 tmpfs $stage
    refuse_starts
    for directory in /etc/systemd/system /etc/systemd/user /etc/rc?.d; do
        [ -d "$directory" ] && show_copy "$directory"
    done
    dpkg-query -W -f '${Package}\n' | sort >$stage/before
    case " $* " in *" postgresql "*)
        apt_get postgresql-common
        printf 'create_main_cluster = false\n' >$stage/createcluster.conf
        mount --bind $stage/createcluster.conf /etc/postgresql-common/createcluster.conf
        ;;
    esac
    apt_get "$@"
    for directory in /etc/rc?.d; do
        [ -d "$directory" ] && umount "$directory"
    done
    dpkg-query -W -f '${Package}\n' | sort | comm -13 $stage/before - | while read -r package; do
        dpkg -L "$package" | sed -n 's,^/etc/init.d/,,p' | while read -r script; do
            update-rc.d "$script" defaults-disabled >/dev/null
        done
    done
}

refuse_starts() {
    printf '#!/bin/sh\nexit 101\n' >$stage/policy
    chmod 755 $stage/policy
    if [ -e $policy ] && sed -n 2p $policy | grep -q "^$marker" && $policy; then
        rm $policy # of a run that was killed; it says yes again
    fi
    if [ ! -e $policy ]; then
        started=$(cut -d' ' -f22 /proc/$$/stat)
        {
            echo '#!/bin/sh'
            echo "$marker for one installation (process $$); without effect once that has ended."
            echo "[ \"\$(cut -d' ' -f22 /proc/$$/stat 2>/dev/null)\" = $started ] && exit 101"
            echo 'exit 0'
        } >$policy.$$
        chmod 755 $policy.$$
        ours=$policy
        trap 'umount -l $ours; rm -f $ours' EXIT
        trap 'exit 130' INT TERM HUP
        mv $policy.$$ $policy
    fi
    mount --bind $stage/policy $policy
}

show_copy() {
    copy=$stage/$(echo "$1" | tr / _)
    cp -a "$1" "$copy"
    mount --bind "$copy" "$1"
}

apt_get() {
    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 APT_LISTCHANGES_FRONTEND=none
    install="apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold"
    if $install install "$@" >$stage/log 2>&1 </dev/null; then
        return
    fi
    # The usual reason: package lists are absent or older than the mirror.
    if apt-get -q -o DPkg::Lock::Timeout=300 update >>$stage/log 2>&1 </dev/null &&
        $install install "$@" >>$stage/log 2>&1 </dev/null; then
        return
    fi
    tail -n 30 $stage/log >&2
    echo "install: apt-get could not install: $*" >&2
    exit 1
}

main "$@"
