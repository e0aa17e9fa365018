# Sourced by ./demo and ./check, in the checkout: what both need on a machine that has nothing of ours.
#
#   need_root            end with a message unless this is root on a Debian-like system
#   need_packages P…     install what is missing of these packages, with nothing started or enabled (install.sh)
#   example_packages E   what the example E needs besides BASE_PACKAGES
#   example_extra E      the extra of the project that it needs, if any
#   need_venv [EXTRA]    .venv with the project (editable) and its extra, as constraints.txt pins them
#   need_neutron         .venv-neutron with the Neutron server that tests follow, as tests/neutron-constraints.txt pins it
#
# Each does nothing, quickly, when it is done already.

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH
BASE_PACKAGES="python3 python3-venv ca-certificates openvswitch-switch iptables iproute2 iputils-ping procps systemd dbus ethtool dnsmasq-base mosquitto rabbitmq-server"
CHECK_PACKAGES="$BASE_PACKAGES postgresql prometheus mariadb-server openssl curl haproxy radvd udhcpc isc-dhcp-client ndisc6 keepalived tcpdump"

say() {
    echo "$(basename "$0"): $*" >&2
}

die() {
    say "$*"
    exit 69
}

need_root() {
    [ "$(id -u)" = 0 ] || die "needs root: it makes network namespaces and runs Open vSwitch in them (try: sudo $0)"
    command -v apt-get >/dev/null || die "needs Debian 12 or newer (or a relative): there is no apt-get here"
}

need_packages() {
    missing=
    for package; do
        case $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) in
            ?i*) ;;
            *) missing="$missing $package" ;;
        esac
    done
    [ -n "$missing" ] || return 0
    say "installing with apt-get, services stay stopped and disabled:$missing"
    # shellcheck disable=SC2086 # a list of words
    unshare --mount --propagation private sh tests/lab/install.sh $missing ||
        die "the packages above are needed and could not be installed"
}

example_packages() {
    case $1 in
        ha-services) echo keepalived mariadb-server ;;
    esac
}

example_extra() { # of pyproject.toml
    case $1 in
        ha-services) echo -mariadb ;;
    esac
}

need_python() {
    python=/usr/bin/python3
    $python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || python=$(command -v python3) ||
        die "needs Python 3.11 or newer"
    $python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "needs Python 3.11 or newer; $python is older"
}

need_venv() {
    extra=${1:-}
    need_python
    wanted=$({ pwd; $python -VV; cat constraints.txt pyproject.toml; } | sha256sum)
    exec 9<pyproject.toml # one run at a time prepares the virtualenv
    flock 9
    if ! grep -qsx "$wanted" ".venv/.installed$extra" .venv/.installed-test; then
        say "making .venv with what constraints.txt pins${extra:+ (and with its extra ${extra#-})}"
        if ! grep -qsx "$wanted" .venv/.installed; then
            rm -rf .venv
            $python -m venv .venv
        fi
        .venv/bin/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt \
            --editable ".${extra:+[${extra#-}]}" </dev/null ||
            die "pip could not install the project into .venv (its message is above)"
        echo "$wanted" >.venv/.installed
        echo "$wanted" >".venv/.installed$extra"
    fi
    exec 9<&-
}

need_neutron() {
    need_python
    pins=tests/neutron-constraints.txt
    wanted=$({ pwd; $python -VV; cat $pins; } | sha256sum)
    exec 8<$pins # one run at a time prepares the virtualenv
    flock 8
    if ! grep -qsx "$wanted" .venv-neutron/.installed; then
        say "making .venv-neutron with the Neutron server that $pins pins"
        rm -rf .venv-neutron
        $python -m venv .venv-neutron
        .venv-neutron/bin/python -m pip install -qq --disable-pip-version-check --constraint $pins neutron PyMySQL \
            </dev/null || die "pip could not install Neutron into .venv-neutron (its message is above)"
        echo "$wanted" >.venv-neutron/.installed
    fi
    exec 8<&-
}
