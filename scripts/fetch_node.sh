#!/usr/bin/env bash
# Prints the directory of a Kubernetes node for tests: kubelet, kube-proxy and `policies`, which
# enforces NetworkPolicies, built by Go like the control plane (fetch_kubernetes.sh), and containerd,
# runc, nft, iptables, ipset, CNI plugins and busybox from Debian 12's packages, which are checked by
# their hashes, unpacked into the cache and never installed. Only the path goes to stdout.
set -euo pipefail

version=1.36.2
minor=36
# One more whenever what is in the directory changes.
revision=2
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

fail() { printf 'no Kubernetes node for the tests: %s\n' "$1" >&2; exit 1; }

tools="${MOBULA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mobula}/tools"
home="$tools/kubernetes-node-$version-$revision"
mkdir -p "$tools"
# One at a time: a second one waits for the first and finds its result.
exec 9>"$tools/.kubernetes-node.lock"
flock 9
if [ -x "$home/kubelet" ]; then
  printf '%s\n' "$home"
  exit
fi
[ "$(uname -sm)" = "Linux x86_64" ] || fail "it can be fetched for Linux on x86_64 only, this is $(uname -sm)"
"$here/scripts/require.sh" go || fail "Go builds kubelet, kube-proxy and policies"
command -v apt-get >/dev/null || fail "apt-get is needed to fetch containerd and runc"

staging="$(mktemp -d "$tools/.kubernetes-node.XXXXXX")"
trap 'rm -rf "$staging"' EXIT
mkdir "$staging/debs" "$staging/node"

packages="
containerd=1.6.20~ds1-1+deb12u3 8669d264eeb0fcdb4a0b1ba436ab88ec5dafde4a66e1278ec279d830db4c2216
runc=1.1.5+ds1-1+deb12u1 a00351f8c0318de0b424ecf5cd0fdb69880a89f3511cae4f6fff7de3e57881c5
containernetworking-plugins=1.1.1+ds1-3+b5 4cac8143474d1249b19f7b0e80b8d0daaa6dfdaa8bd514bc468d38d4a108099f
nftables=1.0.6-2+deb12u2 966ff20ce58c17163a771c02ddbca264291408f94c512bd85dd18da0ebdbe88c
libnftables1=1.0.6-2+deb12u2 3a8223f9bfba99d97bf25296ac83de307ab036e1df63e5965f88809266851947
libnftnl11=1.2.4-2 9e619e1470a1915264e906020f3bfc046fd8458043b1342686d997b5078213af
libmnl0=1.0.4-3 4581f42e3373cb72f9ea4e88163b17873afca614a6c6f54637e95aa75983ea7c
libxtables12=1.8.9-2 cb841d66950a43af4a398625313d2f3da9065299c9738538de6c2c3495857040
libjansson4=2.14-2 3fc9742f9f1a37bcb9931df6074b4d1483419ef832ad5349f47323e75fc27864
libedit2=3.1-20221030-2 1cf14abf2716d3279db12d0657a5737cf70074a1e71d3bdf73206625e3c89ce6
libgmp10=2:6.2.1+dfsg1-1.1 187aedef2ed763f425c1e523753b9719677633c7eede660401739e9c893482bd
iptables=1.8.9-2 2928d3ca6ca8a3dc3f423f6752822b1f3614a5ba609ff7806bcba4449ffe90e1
ipset=7.17-1 4bcc86f6658ca92fe2e21a6a7d4fd162d3b94ec3cdc709a9cf05f0a8ad9c7725
libipset13=7.17-1 67fe7a8366878b0431b6e247c04b131b43df90f8090000a2681e63d4c22d02ca
busybox-static=1:1.35.0-4+deb12u1+b1 3d3fdbe91d4660c873e14b092c213fe81c1da6362daa236eb25d0171eb108744
"
lists=()
while read -r package sha256; do
  [ -n "$package" ] || continue
  download() { (cd "$staging/debs" && apt-get "${lists[@]}" download --quiet "$package" >&2); }
  # A machine whose package lists were never fetched gets lists of its own, once.
  download 2>/dev/null || {
    mkdir -p "$staging/lists/partial"
    lists=(-o "Dir::State::Lists=$staging/lists")
    apt-get "${lists[@]}" --quiet update >&2 && download
  } || fail "apt-get could not download $package (it is in Debian 12)"
  [ "$(sha256sum "$staging/debs/"*.deb | cut -d' ' -f1)" = "$sha256" ] || fail "$package has another hash than expected"
  dpkg -x "$staging/debs/"*.deb "$staging/root"
  rm "$staging/debs/"*.deb
done <<<"$packages"

node="$staging/node"
mv "$staging/root/usr/bin/"{containerd,containerd-shim-runc-v2,ctr} "$staging/root/usr/sbin/runc" "$staging/root/bin/busybox" "$node/"
mv "$staging/root/usr/lib/cni" "$node/cni"
mv "$staging/root/usr/lib/x86_64-linux-gnu" "$node/lib"
mv "$staging/root/usr/sbin/"{nft,ipset,xtables-nft-multi} "$node/lib/"
for name in nft ipset iptables iptables-save iptables-restore; do
  case "$name" in
    iptables*) program="$home/lib/xtables-nft-multi\" $name" ;;
    *) program="$home/lib/$name\"" ;;
  esac
  printf '#!/bin/sh\nLD_LIBRARY_PATH="%s/lib" XTABLES_LIBDIR="%s/lib/xtables" exec "%s "$@"\n' "$home" "$home" "$program" >"$node/$name"
  chmod 755 "$node/$name"
done

printf 'building kubelet and kube-proxy %s; this takes minutes, once\n' "$version" >&2
flags="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  # Without these they call themselves v0.0.0.
  flags+=" -X $package.gitVersion=v$version -X $package.gitMajor=1 -X $package.gitMinor=$minor -X $package.gitTreeState=clean"
done
(cd "$here/tests/kubernetes/assets" &&
  CGO_ENABLED=0 nice -n 10 go build -trimpath -mod=readonly -ldflags "$flags" -o "$node/kubelet" ./node >&2) ||
  fail "the build failed"
ln "$node/kubelet" "$node/kube-proxy"
(cd "$here/tests/kubernetes/assets/policies" &&
  CGO_ENABLED=0 nice -n 10 go build -trimpath -mod=readonly -ldflags "-s -w" -o "$node/policies" . >&2) ||
  fail "the build failed"
mv -T "$node" "$home" || fail "cannot write $home"
printf '%s\n' "$home"
