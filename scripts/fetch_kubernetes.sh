#!/usr/bin/env bash
# Prints the directory of a Kubernetes control plane for tests: kube-apiserver,
# kube-controller-manager, kube-scheduler.
#
# $KUBEBUILDER_ASSETS comes first. What is missing is built once from the Go module
# k8s.io/kubernetes, hashes checked by tests/kubernetes/assets/go.sum, and kept in the cache; no
# root is needed. The build takes 5 to 15 minutes and 3 GB of Go's build cache. Only the path goes
# to stdout.
set -euo pipefail

version=1.36.2
minor=36
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

fail() { printf 'no Kubernetes for the tests: %s\n' "$1" >&2; exit 1; }

if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
  for name in kube-apiserver kube-controller-manager kube-scheduler; do
    [ -x "$KUBEBUILDER_ASSETS/$name" ] || fail "KUBEBUILDER_ASSETS is '$KUBEBUILDER_ASSETS', which has no $name"
  done
  printf '%s\n' "$KUBEBUILDER_ASSETS"
  exit
fi

tools="${MOBULA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mobula}/tools"
home="$tools/kubernetes-$version"
if [ -x "$home/kube-apiserver" ]; then
  printf '%s\n' "$home"
  exit
fi
"$here/scripts/require.sh" go || fail "Go builds it; or set KUBEBUILDER_ASSETS to a directory that has it"

mkdir -p "$tools"
# One build at a time: a second one waits for the first and finds its result.
exec 9>"$tools/.kubernetes.lock"
flock 9
if [ -x "$home/kube-apiserver" ]; then
  printf '%s\n' "$home"
  exit
fi
printf 'building kube-apiserver, kube-controller-manager and kube-scheduler %s; this takes minutes, once\n' "$version" >&2
staging="$(mktemp -d "$tools/.kubernetes-$version.XXXXXX")"
trap 'rm -rf "$staging"' EXIT
mkdir "$staging/bin"
flags="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  # Without these it calls itself v0.0.0.
  flags+=" -X $package.gitVersion=v$version -X $package.gitMajor=1 -X $package.gitMinor=$minor -X $package.gitTreeState=clean"
done
(cd "$here/tests/kubernetes/assets" &&
  CGO_ENABLED=0 nice -n 10 go build -trimpath -mod=readonly -ldflags "$flags" -o "$staging/bin/kube-apiserver" . >&2) ||
  fail "the build failed"
for name in kube-controller-manager kube-scheduler; do
  ln "$staging/bin/kube-apiserver" "$staging/bin/$name"
done
mv -T "$staging/bin" "$home" || fail "cannot write $home"
printf '%s\n' "$home"
