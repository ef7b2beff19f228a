#!/usr/bin/env bash
# Start-up time and memory: see footprint.py. Output is kept under loadtest/results/.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_mobula
results="$root/loadtest/results"
mkdir -p "$results"
{
  machine_facts
  echo
  python3 "$root/loadtest/footprint.py" "$mobula" "$@"
} | tee "$results/footprint-$(date -u +%Y%m%d-%H%M%S).txt"
