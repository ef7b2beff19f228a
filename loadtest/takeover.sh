#!/usr/bin/env bash
# How long a cluster is without a leading head: see takeover.py. Output is kept under
# loadtest/results/.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_mobula
etcd="$("$root/scripts/fetch_etcd.sh")"
results="$root/loadtest/results"
mkdir -p "$results"
{
  machine_facts
  echo
  python3 "$root/loadtest/takeover.py" "$mobula" "$etcd"
} | tee "$results/takeover-$(date -u +%Y%m%d-%H%M%S).txt"
