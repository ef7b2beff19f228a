#!/usr/bin/env bash
# How fast real processes follow a load that jumps, begins and ends: see reaction.py. Output is
# kept under loadtest/results/.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_mobula
results="$root/loadtest/results"
mkdir -p "$results"
{
  machine_facts
  echo
  python3 "$root/loadtest/reaction.py" "$mobula"
} | tee "$results/reaction-$(date -u +%Y%m%d-%H%M%S).txt"
