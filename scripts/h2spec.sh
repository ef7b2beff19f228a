#!/usr/bin/env bash
# h2spec, a public conformance suite of HTTP/2, against the HTTP ingress without TLS (h2c).
#
# Builds the suite once (needs Go) into the user's cache, serves the no-op application with the
# binary of MOBULA_BIN, and prints every case. One case fails for a reason: a connection that
# begins with something else than HTTP/2's preface is HTTP/1.1 here, and is answered so (3.5.2).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../loadtest/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../loadtest/lib.sh"
need_mobula

version=v2.2.1+incompatible
expected_failure="2: Sends invalid connection preface"
h2spec="${H2SPEC:-$cache/tools/h2spec-$version/h2spec}"
if [ ! -x "$h2spec" ]; then
  command -v go >/dev/null || fail "needs Go to build h2spec (or name a binary by H2SPEC)"
  say "building h2spec $version"
  GOBIN="$(dirname "$h2spec")" go install "github.com/summerwind/h2spec/cmd/h2spec@$version"
fi

folder=$(mktemp -d)
http=$(free_port) grpc=$(free_port) admin=$(free_port)
cat >"$folder/serve.yaml" <<YAML
http_options: {host: 127.0.0.1, port: $http}
grpc_options: {port: $grpc}
applications:
  - {name: noop, route_prefix: /, import_path: "mobula.apps:noop"}
YAML
"$mobula" run "$folder/serve.yaml" --admin-addr "127.0.0.1:$admin" --state-dir "$folder/state" \
  >"$folder/log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; rm -rf "$folder"' EXIT
wait_for "http://127.0.0.1:$http/healthz" 60 "$server" || { cat "$folder/log" >&2; fail "mobula did not start"; }

# It ends with 1 when a case fails, and says which.
"$h2spec" -h 127.0.0.1 -p "$http" -o 5 | tee "$folder/result" || true
grep -q "tests, .* passed" "$folder/result" || fail "h2spec did not run to its end"
# The end of the output names what failed, a line "× NUMBER: case" each.
unexpected=$(sed -n '/^Failures:/,$ s/^ *× //p' "$folder/result" | grep -vxF "$expected_failure" || true)
[ -z "$unexpected" ] || fail "failed, and may not: $unexpected"
