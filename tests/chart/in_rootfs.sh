#!/bin/sh
# Runs a command with another root, which it cannot write to, as the image's user where we are
# root and may choose one:
#
#   in_rootfs.sh ROOT [--tmpfs PLACE]... [--bind SOURCE PLACE]... COMMAND [ARGUMENT...]
#
# --tmpfs: an empty folder that can be written to. --bind: a file or folder of this machine,
# read-only where its place ends in `:ro`. What the places need is made in ROOT. The process keeps
# its id, so that it can be told to end. Without user namespaces it says so and ends with 77.
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
while true; do
    case "$1" in
    --tmpfs)
        mkdir -p "$root$2"
        mount -t tmpfs -o mode=1777 tmpfs "$root$2"
        shift 2
        ;;
    --bind)
        place="$root${3%:ro}"
        if [ -d "$2" ]; then mkdir -p "$place"; else mkdir -p "${place%/*}" && touch "$place"; fi
        mount --bind "$2" "$place"
        [ "${3%:ro}" = "$3" ] || mount -o remount,bind,ro "$place"
        shift 3
        ;;
    *) break ;;
    esac
done
mount -o remount,bind,ro "$root"
cd /
user=
[ "$real_user" -ne 0 ] || user=--userspec=10001:10001
# shellcheck disable=SC2086
exec chroot $user "$root" "$@"
