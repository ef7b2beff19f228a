#!/usr/bin/env bash
# k6 against the RAG example: loadtest/run.sh [infer] [embed] [rerank]
#
# With BASE_URL it starts nothing and loads what is there; without, it starts
# `mobula run examples/rag.yaml` and ends it. RATE, DURATION and VUS as in common.js.
# Summaries go to loadtest/out/*.json, a table to stdout. Exit status 1: a threshold was crossed.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts=("$@")
[ "$#" -gt 0 ] || scripts=(infer embed rerank)
venv=$("$root/tests/setup.sh")
k6="${K6:-$venv/bin/k6}"
out="$root/loadtest/out"
mkdir -p "$out"

if [ -z "${BASE_URL:-}" ]; then
  need_mobula
  state=$(mktemp -d)
  admin="127.0.0.1:$(free_port)"
  "$mobula" run "$root/examples/rag.yaml" --admin-addr "$admin" --state-dir "$state" >"$out/mobula.log" 2>&1 &
  server=$!
  trap 'kill -TERM "$server" 2>/dev/null; wait "$server" 2>/dev/null; rm -rf "$state"' EXIT
  BASE_URL=http://127.0.0.1:8000
  wait_for "$BASE_URL/healthz" 60 "$server" || { tail -20 "$out/mobula.log" >&2; fail "mobula did not become healthy"; }
fi
export BASE_URL

machine_facts >"$out/machine.txt" 2>/dev/null || true
crossed=0
for script in "${scripts[@]}"; do
  say "== $script against $BASE_URL"
  SUMMARY="$out/$script.json" "$k6" run --quiet "$root/loadtest/$script.js" >&2 || crossed=1
done
"$venv/bin/python" "$root/loadtest/table.py" "${scripts[@]/#/$out/}"
exit "$crossed"
