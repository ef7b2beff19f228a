#!/usr/bin/env bash
# Half of what a router can do, for SOAK_SECONDS (600), while replicas come and go and workers are
# killed: what every request was answered, and whether memory stays flat. See soak.py. Output is
# kept under loadtest/results/.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_mobula
need_yardstick
results="$root/loadtest/results"
mkdir -p "$results"
{
  machine_facts
  echo
  python3 "$root/loadtest/soak.py" "$mobula" "$YARDSTICK"
} | tee "$results/soak-$(date -u +%Y%m%d-%H%M%S).txt"
