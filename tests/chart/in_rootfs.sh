#!/bin/sh
# Runs a command with another root, which it cannot write to but for /tmp, /var/cache/mobula and
# /var/lib/mobula, as the image's user where we are root and may choose one:
#
#   in_rootfs.sh ROOT COMMAND [ARGUMENT...]
#
# The process keeps its id, so that it can be told to end. Without user namespaces it says so
# and ends with 77.
set -eu
if [ "${1:-}" != --inside ]; then
    namespaces=--mount
    [ "$(id -u)" -eq 0 ] || namespaces="--mount --map-root-user"
    # shellcheck disable=SC2086
    unshare $namespaces true 2>/dev/null || { echo "no mount namespace may be made here" >&2; exit 77; }
    # shellcheck disable=SC2086
    exec unshare $namespaces "$0" --inside "$(id -u)" "$@"
fi
real_user=$2
root=$3
shift 3
mount --bind "$root" "$root"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
for place in tmp var/cache/mobula var/lib/mobula; do
    mount -t tmpfs -o mode=1777 tmpfs "$root/$place"
done
mount -o remount,bind,ro "$root"
cd /
user=
[ "$real_user" -ne 0 ] || user=--userspec=10001:10001
# shellcheck disable=SC2086
exec chroot $user "$root" "$@"
