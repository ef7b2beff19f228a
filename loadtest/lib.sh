# shellcheck shell=bash
# Shell functions that the scripts of this folder share. Sourced, not run.

root=$(CDPATH="" cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
cache="${MOBULA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mobula}"
mobula="${MOBULA_BIN:-$root/target/release/mobula}"

say() { printf '%s\n' "$*" >&2; }
fail() { say "$0: $*"; exit 1; }

need_mobula() {
  [ -x "$mobula" ] || fail "no binary at $mobula; run 'make build', or set MOBULA_BIN"
}

# The load generator that counts outcomes at a constant rate; YARDSTICK names one that is built.
need_yardstick() {
  if [ -z "${YARDSTICK:-}" ]; then
    cargo build --quiet --release --locked --manifest-path "$root/Cargo.toml" -p mobula-router --example yardstick
    YARDSTICK="$root/target/release/examples/yardstick"
  fi
  export YARDSTICK
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# wait_for URL SECONDS PID: until it answers 200, or the process is gone.
wait_for() {
  local end=$((SECONDS + $2))
  until curl -fs -m 2 -o /dev/null "$1"; do
    kill -0 "$3" 2>/dev/null || return 1
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.1
  done
}

# tool NAME PACKAGE...: from the PATH, or unpacked from Debian packages into the cache (no root).
tool() {
  local name="$1"; shift
  local home="$cache/tools/$name" found
  found=$(PATH="$PATH:/usr/sbin" command -v "$name" || true)
  [ -n "$found" ] && { printf '%s\n' "$found"; return; }
  if [ ! -f "$home/.complete" ]; then
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    say "fetching $name into $home"
    rm -rf "$home" && mkdir -p "$home/packages" || return 1
    (cd "$home/packages" && apt-get download "$@" >/dev/null 2>&1) || { say "apt-get could not download: $*"; return 1; }
    for package in "$home"/packages/*.deb; do dpkg -x "$package" "$home/root" || return 1; done
    : >"$home/.complete"
  fi
  found=$(find "$home/root/usr/bin" "$home/root/usr/sbin" -name "$name" 2>/dev/null | head -1)
  [ -n "$found" ] || return 1
  # Libraries that came along are found by a wrapper, so that a caller needs to know nothing.
  printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s" "$@"\n' \
    "$(find "$home/root/usr/lib" -maxdepth 1 -name '*-linux-gnu' 2>/dev/null | head -1)" "$found" >"$home/$name"
  chmod +x "$home/$name"
  printf '%s\n' "$home/$name"
}

# What a number means depends on where it was measured.
machine_facts() {
  echo "date      $(date -u +%Y-%m-%dT%H:%MZ)"
  echo "cpu       $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) cores"
  echo "memory    $(awk '/MemTotal/ {printf "%.1f GiB", $2 / 1048576}' /proc/meminfo)"
  echo "kernel    $(uname -sr)"
  echo "load      $(cut -d' ' -f1-3 /proc/loadavg) before the run"
  echo "commit    $(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown)"
  echo "binary    $("$mobula" --version 2>/dev/null), $(stat -c %s "$mobula") bytes"
}
