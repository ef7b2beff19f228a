#!/usr/bin/env bash
# Memory of idle connections and of large streams: see connections.py. Output is kept under
# loadtest/results/.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_mobula
# Both ends of 10,000 connections; the server inherits the limit.
ulimit -n 16384 || fail "needs 16384 open files; the hard limit here is $(ulimit -Hn)"
results="$root/loadtest/results"
mkdir -p "$results"
{
  machine_facts
  echo
  python3 "$root/loadtest/connections.py" "$mobula" "$@"
} | tee "$results/connections-$(date -u +%Y%m%d-%H%M%S).txt"
