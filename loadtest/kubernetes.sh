#!/usr/bin/env bash
# Pods of a real control plane: how fast they come when they are needed, and how many calls 200 of
# them take; see kubernetes.py. Output is kept under loadtest/results/.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_mobula
"$root/scripts/fetch_kubernetes.sh" >/dev/null
venv="$("$root/tests/setup.sh")"
results="$root/loadtest/results"
mkdir -p "$results"
{
  machine_facts
  echo "path      ${mobula#"$root"/}"
  echo
  MOBULA_BIN="$mobula" PYTHONPATH="$root/tests/kubernetes:$root/tests/e2e" \
    "$venv/bin/python" "$root/loadtest/kubernetes.py"
} | tee "$results/kubernetes-$(date -u +%Y%m%d-%H%M%S).txt"
