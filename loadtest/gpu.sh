#!/usr/bin/env bash
# The built-in applications on a GPU beside the same on the machine's processors:
#
#   loadtest/gpu.sh [SETTING...]      KIND=embedder|classifier, else both
#
# Needs what `make test-gpu` needs. Raw output: loadtest/results/gpu-<time>.txt
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh

need_mobula
command -v nvidia-smi >/dev/null || fail "needs an NVIDIA GPU: there is no nvidia-smi"
out="results/gpu-$(date -u +%Y%m%d-%H%M%S).txt"
{
  machine_facts
  echo "gpu       $(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader | head -1)"
  for kind in ${KIND:-embedder classifier}; do
    KIND="$kind" MOBULA_BIN="$mobula" python3 gpu.py "$@"
  done
} | tee "$out"
say "raw output: loadtest/$out"
