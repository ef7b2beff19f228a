#!/usr/bin/env bash
# Makes the root file system of the image in a folder: the binary, the libraries that it and ONNX
# Runtime load, certificates, a user.
#
#   rootfs.sh OUT BINARY ONNXRUNTIME [MODELS]
#
# OUT: a folder that is not there yet. ONNXRUNTIME: the library; providers beside it (CUDA's) come
# along. MODELS: the `models` folder of a cache, to be part of the image. LIBS=base leaves out the C
# library and the certificates, for a base image that has them.
# The Dockerfile runs this, and so does the test that starts Mobula from its result.
set -euo pipefail

[ $# -ge 3 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
out="$1" binary="$2" onnxruntime="$3" models="${4:-}"
user=10001
[ ! -e "$out" ] || { echo "rootfs.sh: $out is there already" >&2; exit 1; }

install -d -m 755 "$out" "$out"/{dev,etc/ssl/certs,proc,usr/lib,usr/local/bin,var/cache/mobula,var/lib/mobula}
install -d -m 1777 "$out/tmp"
install -m 755 "$binary" "$out/usr/local/bin/mobula"
install -m 644 "$onnxruntime" "$out/usr/lib/libonnxruntime.so"
for provider in "$(dirname "$onnxruntime")"/libonnxruntime_providers_*.so; do
  # Their own libraries are the base's.
  [ ! -f "$provider" ] || install -m 644 "$provider" "$out/usr/lib/"
done

libraries() { # what the loader finds for a file, the loader itself included
  ldd "$1" | grep -oE '/[^ ]+' | sort -u
}
if [ "${LIBS:-own}" = own ]; then
  { libraries "$binary"; libraries "$onnxruntime"; } | sort -u | while read -r library; do
    [ "$library" -ef "$onnxruntime" ] || install -D -m 755 "$library" "$out$library"
  done
  install -m 644 /etc/ssl/certs/ca-certificates.crt "$out/etc/ssl/certs/ca-certificates.crt"
  echo 'hosts: files dns' >"$out/etc/nsswitch.conf"
  printf 'root:x:0:0::/:/nologin\nmobula:x:%s:%s::/var/lib/mobula:/nologin\n' $user $user >"$out/etc/passwd"
  printf 'root:x:0:\nmobula:x:%s:\n' $user >"$out/etc/group"
fi

[ -z "$models" ] || cp -r --no-preserve=mode,ownership "$models" "$out/var/cache/mobula/models"
# Only root can give files away; elsewhere it is a test.
[ "$(id -u)" -ne 0 ] || chown -R $user:$user "$out/var/cache/mobula" "$out/var/lib/mobula"
