#!/usr/bin/env bash
# The control plane alone with a thousand deployments, ten thousand replicas, 500 workers and 50
# routers: see scale.py. Output is kept under loadtest/results/.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_mobula
etcd="$("$root/scripts/fetch_etcd.sh")"
cargo build --quiet --release --locked -p mobula-head --example fleet
results="$root/loadtest/results"
mkdir -p "$results"
{
  machine_facts
  echo
  python3 "$root/loadtest/scale.py" "$mobula" "$etcd" "$root/target/release/examples/fleet"
} | tee "$results/scale-$(date -u +%Y%m%d-%H%M%S).txt"
