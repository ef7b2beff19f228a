#!/usr/bin/env bash
# Prints the path of a `mobula` binary of the release before this one, for the upgrade test.
#
# $MOBULA_PREVIOUS_BIN comes first. Else the commit that tests/upgrade/previous names is built,
# once: its sources come out of this repository's history, the third-party crates are those
# that the tests have built anyway (same target folder, same profile). Only the path goes to stdout.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'no previous release to test against: %s\nOr set MOBULA_PREVIOUS_BIN to its binary.\n' "$1" >&2; exit 1; }

if [ -n "${MOBULA_PREVIOUS_BIN:-}" ]; then
  [ -x "$MOBULA_PREVIOUS_BIN" ] || fail "MOBULA_PREVIOUS_BIN is '$MOBULA_PREVIOUS_BIN', which cannot be executed"
  printf '%s\n' "$MOBULA_PREVIOUS_BIN"
  exit
fi

commit="$(cat tests/upgrade/previous)"
target="${CARGO_TARGET_DIR:-$PWD/target}"
home="$target/previous/$commit"
if [ -x "$home/mobula" ]; then
  printf '%s\n' "$home/mobula"
  exit
fi
git rev-parse --git-dir >/dev/null 2>&1 || fail "this is not a git clone; clone the repository"
git cat-file -e "$commit^{commit}" 2>/dev/null ||
  fail "this clone lacks the commit $commit that tests/upgrade/previous names; a shallow clone gets it by: git fetch --unshallow"

mkdir -p "$home"
# Two tests may come here at once; the second finds the binary.
exec 9>"$home/lock"
flock 9
if [ ! -x "$home/mobula" ]; then
  rm -rf "$home/source"
  mkdir "$home/source"
  git archive "$commit" | tar -x -C "$home/source"
  # A name of its own, so that it does not take the place of this release's binary.
  printf '\n[[bin]]\nname = "mobula-previous"\npath = "src/main.rs"\n' >>"$home/source/crates/mobula/Cargo.toml"
  # The same protoc as for this release: another path would build what uses it again, each time.
  (cd "$home/source" && PROTOC="$OLDPWD/scripts/protoc" CARGO_INCREMENTAL=0 \
    cargo build --quiet --locked --target-dir "$target" -p mobula --bin mobula-previous >&2) ||
    fail "the commit $commit does not build"
  mv "$target/debug/mobula-previous" "$home/mobula"
  rm -rf "$home/source"
fi
printf '%s\n' "$home/mobula"
