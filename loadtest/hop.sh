#!/usr/bin/env bash
# What a hop through mobula costs, beside nginx, HAProxy and Ray Serve, in one run: a no-op, an
# echo of 4 KB, bodies of other sizes, and latency at a constant rate.
#
#   SYSTEMS="nginx haproxy mobula ray ray-tuned" PARTS="noop echo bodies open" \
#   SECONDS_EACH=5 CONNECTIONS="1 8 32 100 1000" ROUNDS=3 loadtest/hop.sh
#
# Take the ratios, not the figures: the load generator shares the cores. The rounds take turns, so
# that a disturbance meets all alike; the tables show medians. Raw output and machine facts stay
# under loadtest/results/. wrk, nginx and haproxy come from the PATH or, unpacked, from Debian
# packages; Ray Serve from the tests' Python environment.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_mobula

export SYSTEMS="${SYSTEMS:-nginx haproxy mobula ray ray-tuned}"
WRK=$(tool wrk wrk libluajit-5.1-2) || fail "no wrk: not on the PATH, and not to be had as a Debian package"
NGINX=$(tool nginx nginx) || fail "no nginx: not on the PATH, and not to be had as a Debian package"
HAPROXY=$(tool haproxy haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1) ||
  HAPROXY=$(tool haproxy haproxy liblua5.3-0) || fail "no haproxy: not on the PATH, and not to be had as a Debian package"
need_yardstick
PYTHON=python3
case "$SYSTEMS" in *ray*) PYTHON="$("$root/tests/setup.sh")/bin/python" ;; esac
MOBULA="$mobula"
export WRK NGINX HAPROXY MOBULA

out="$root/loadtest/results/hop-$(date -u +%Y%m%d-%H%M%S)"
mkdir -p "$out"
machine_facts >"$out/machine.txt"
"$PYTHON" "$root/loadtest/hop" "$out" | tee "$out/table.md"
