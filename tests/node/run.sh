#!/usr/bin/env bash
# Runs a command as a machine of its own: own network, mounts and process ids, which end with it and
# leave nothing behind. Needs root.
#
#   run.sh COMMAND [ARGUMENT...]
set -euo pipefail

if [ "${1:-}" != --inside ]; then
  [ "$(id -u)" -eq 0 ] || { echo "a kubelet needs root; run it as root" >&2; exit 1; }
  for program in ip nsenter unshare; do
    command -v "$program" >/dev/null || { echo "$program is needed (iproute2, util-linux)" >&2; exit 1; }
  done
  export MOBULA_NODE_CGROUP="mobula-node-$$" MOBULA_NODE_DISK
  MOBULA_NODE_DISK="$(mktemp -d)"
  groups() { find /sys/fs/cgroup -maxdepth 2 -name "$MOBULA_NODE_CGROUP" -type d; }
  clean() {
    rm -rf "$MOBULA_NODE_DISK"
    groups | while read -r group; do find "$group" -depth -type d -exec rmdir {} +; done
  }
  trap clean EXIT
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mkdir "/sys/fs/cgroup/$MOBULA_NODE_CGROUP"
  else
    for hierarchy in /sys/fs/cgroup/*/; do mkdir "$hierarchy$MOBULA_NODE_CGROUP"; done
  fi
  # In the background, because a shell that waits for a command takes no signal until it ends.
  unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private "$0" --inside "$@" &
  machine=$!
  trap 'kill -9 $machine; wait $machine; exit 143' TERM INT
  wait $machine
  exit
fi
shift

# kubelet sets these for the whole kernel; here it writes into files of its own.
for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  [ -e "/proc/sys/$name" ] || continue
  copy="$(mktemp)"
  cat "/proc/sys/$name" >"$copy"
  mount --bind "$copy" "/proc/sys/$name"
  rm "$copy"
done
mount -t tmpfs tmpfs /var/log
mount -t tmpfs tmpfs /run

ip link set lo up
ip link add cni0 type bridge
ip address add 10.88.0.1/16 dev cni0
ip link set cni0 up
# Services' addresses are nobody's: the route is there for kube-proxy to see what is sent to them.
ip route add 10.96.0.0/16 dev cni0
echo 1 >/proc/sys/net/ipv4/ip_forward
# Answers of one pod to another pass the bridge, where the Service's address has to be put back.
echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables

# Not exec: this shell is process 1 and has to take note of the orphans that end.
"$@"
exit $?
