#!/bin/sh
# Runs inside the sandboxed node (./demo): declares what the example says for the network node, and runs the daemon.
# The files it writes are in the node's own layer in memory; the machine's /etc and /var do not see them.
set -eu

rm -rf /etc/reconciler /var/lib/reconciler
mkdir -p /etc/reconciler /var/lib/reconciler
cp -r desired/examples/three-node-gre /etc/reconciler/desired
cat >/etc/reconciler/reconciler.toml <<'TOML'
node = "network"
roles = ["network"]
datapath_type = "netdev"
desired = "/etc/reconciler/desired"
state_dir = "/var/lib/reconciler"
listen = "127.0.0.1:9464"
TOML

if [ "$SANDBOX" = demo ]; then name=; else name=" --name $SANDBOX"; fi
cat <<TEXT

  A sandboxed node is up: its own network, processes, /run and Open vSwitch. The daemon runs below.

  In a second terminal, enter the node:

      $PWD/demo shell$name

  and break something there:

      ovs-vsctl del-port patch-tun                      # one side of the patch between br-int and br-tun
      ovs-ofctl del-flows br-tun                        # every flow of the tunnel bridge
      ovs-appctl exit                                   # ovs-vswitchd; it is started again, without any flow

  Look:  ovs-vsctl show    ovs-ofctl dump-flows br-tun    reconcile status    reconcile history
  Edit:  /etc/reconciler/desired/   (takes effect when you save; a mistake is named and changes nothing)
  Stop:  Ctrl-C here. Everything above is gone then; this machine's own network was never touched.

TEXT
exec reconcile run
