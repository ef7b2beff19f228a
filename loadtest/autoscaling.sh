#!/usr/bin/env bash
# Replays a step, a spike, a sine and a sawtooth of load against Ray 2.60's autoscaler and
# against ours, in the same model: a table, CSV files, and with PLOT=1 docs/autoscaling.png.
set -euo pipefail
cd "$(dirname "$0")/.."
out="loadtest/results/autoscaling-$(date -u +%Y%m%d-%H%M%S)"
cargo build --quiet --release --locked -p mobula-head --example autoscale
venv="$(tests/setup.sh)"
mkdir -p "$out"
"$venv/bin/python" loadtest/autoscaling/replay.py target/release/examples/autoscale "$out"
if [ -n "${PLOT:-}" ]; then
  plots="$(tests/setup.sh loadtest/autoscaling/requirements.txt)"
  "$plots/bin/python" loadtest/autoscaling/plot.py "$out" docs/autoscaling.png
fi
echo "$out"
