#!/usr/bin/env bash
# Every fuzz target for so many seconds: fuzz.sh SECONDS [TARGET...]. A target that finds something
# ends the run, and says where the input lies.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds="${1:-60}"
shift || true

cargo fuzz --version >/dev/null 2>&1 || {
  echo "make fuzz needs cargo-fuzz: cargo install cargo-fuzz --locked" >&2
  exit 1
}
# The sanitizers are not in a stable compiler.
toolchain="${FUZZ_TOOLCHAIN:-nightly}"
rustc "+$toolchain" --version >/dev/null 2>&1 || {
  echo "make fuzz needs a nightly compiler: rustup toolchain install nightly (FUZZ_TOOLCHAIN names another one)" >&2
  exit 1
}

seeds() { # target, folder
  mkdir -p "$2"
  case "$1" in config) cp -n crates/spec/tests/malformed/*.yaml crates/spec/tests/good/*.yaml "$2" ;; esac
}

for file in crates/*/fuzz/fuzz_targets/*.rs; do
  target=$(basename "$file" .rs)
  [ $# -eq 0 ] || [[ " $* " == *" $target "* ]] || continue
  crate=${file%/fuzz/*}
  seeds "$target" "$crate/fuzz/corpus/$target"
  echo "== $target ($crate), $seconds s"
  (cd "$crate" && cargo "+$toolchain" fuzz run "$target" -- -max_len=4096 -max_total_time="$seconds" -print_final_stats=1)
done
