#!/bin/sh
# Makes (or finds) the Python environment of the end-to-end and load tests and prints its path.
#
#   tests/setup.sh [REQUIREMENTS]     default: requirements.txt beside this script
#
# What: one virtual environment per content of that file, in the user's cache, so that a
# second run installs nothing. Every package is checked against the hash in the file;
# packages come through the user's own pip configuration (mirror, proxy, certificates).
# The path is the only line on stdout. Needs no root. Not here: the tests themselves.
#
# PYTHON chooses the interpreter; MOBULA_CACHE or XDG_CACHE_HOME choose the cache.
set -eu

here=$(CDPATH="" cd -- "$(dirname -- "$0")" && pwd)
requirements="${1:-$here/requirements.txt}"
cache="${MOBULA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mobula}"

say() { printf '%s\n' "tests/setup.sh: $*" >&2; }
fail() { say "$*"; exit 1; }

# Ray publishes wheels for these versions only.
supported='import sys; raise SystemExit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'

[ -f "$requirements" ] || fail "there is no requirements file '$requirements'"

find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
        if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c "$supported" 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

python=$(find_python) || fail "no CPython 3.10 to 3.13 found (looked for: ${PYTHON:-python3, python3.13 to python3.10}); install one, or name it by PYTHON=/path/to/python"
"$python" -c 'import venv, ensurepip' 2>/dev/null \
    || fail "$python has no 'venv' and 'ensurepip' modules; install them (Debian and Ubuntu: apt install python3-venv)"

hash=$("$python" - "$requirements" <<'PY'
import hashlib, sys
text = open(sys.argv[1], "rb").read() + sys.version.encode()
print(hashlib.sha256(text).hexdigest()[:12])
PY
)
venv="$cache/test-venv-$hash"
done_mark="$venv/.complete"

if [ ! -f "$done_mark" ]; then
    mkdir -p "$cache" || fail "cannot make the cache folder $cache; set MOBULA_CACHE to one that can be written"
    say "making $venv with $python (once; about 650 MB)"
    rm -rf "$venv"
    "$python" -m venv "$venv" || fail "'$python -m venv' failed"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: \
        --require-hashes -r "$requirements" >&2 \
        || fail "pip could not install $requirements; is a package index reachable? (pip config list)"
    : >"$done_mark"
fi
printf '%s\n' "$venv"
