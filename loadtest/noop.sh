#!/usr/bin/env bash
# What a hop through mobula costs: wrk -t1 against the no-op application, and in the same run
# against a bare server (nginx answering 20 bytes) and nginx proxying to that server.
#
#   SECONDS_EACH=10 CONNECTIONS="1 8 32 100" ROUNDS=3 loadtest/noop.sh
#
# Take the ratios, not the figures: the load generator shares the cores. The rounds take turns, so
# that a disturbance meets all three alike; the table shows medians. Raw output and machine facts
# stay under loadtest/results/. wrk and nginx come from the PATH or, unpacked, from Debian packages.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_mobula

seconds="${SECONDS_EACH:-5}"
connections="${CONNECTIONS:-1 8 32 100}"
rounds="${ROUNDS:-3}"
wrk=$(tool wrk wrk libluajit-5.1-2) || fail "no wrk: not on the PATH, and not to be had as a Debian package"
nginx=$(tool nginx nginx) || { say "no nginx: measuring mobula alone"; nginx=""; }

out="$root/loadtest/results/noop-$(date -u +%Y%m%d-%H%M%S)"
work=$(mktemp -d)
mkdir -p "$out"
machine_facts >"$out/machine.txt"
pids=()
cleanup() {
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT

systems=(mobula)
declare -A url
http=$(free_port); admin=$(free_port); grpc=$(free_port)
sed -e "s/port: 8000/port: $http/" "$root/examples/noop.yaml" >"$work/noop.yaml"
grep -q '^grpc_options' "$work/noop.yaml" || printf 'grpc_options:\n  port: %s\n' "$grpc" >>"$work/noop.yaml"
"$mobula" run "$work/noop.yaml" --admin-addr "127.0.0.1:$admin" --state-dir "$work/state" >"$work/mobula.log" 2>&1 &
pids+=($!)
url[mobula]="http://127.0.0.1:$http/"
wait_for "${url[mobula]}" 30 "${pids[0]}" || { cat "$work/mobula.log" >&2; fail "mobula did not start"; }

if [ -n "$nginx" ]; then
  bare=$(free_port); proxy=$(free_port)
  sed -e "s#@WORK@#$work#g; s/@BARE@/$bare/; s/@PROXY@/$proxy/" "$root/loadtest/nginx.conf.in" | tee "$work/nginx.conf" >"$out/nginx.conf"
  "$nginx" -e "$work/error.log" -p "$work" -c "$work/nginx.conf" &
  pids+=($!)
  url[bare]="http://127.0.0.1:$bare/"
  url[nginx]="http://127.0.0.1:$proxy/"
  wait_for "${url[nginx]}" 10 "${pids[1]}" || { cat "$work/error.log" >&2; fail "nginx did not start"; }
  systems=(bare nginx mobula)
fi

for c in $connections; do
  for round in $(seq "$rounds"); do
    for system in "${systems[@]}"; do
      file="$out/$system-c$c-$round.txt"
      "$wrk" -t1 -c"$c" -d"${seconds}s" --latency "${url[$system]}" >"$file"
      say "c=$c round $round $system: $(awk '/Requests\/sec/ {print $2}' "$file")/s"
    done
  done
done
python3 "$root/loadtest/noop_table.py" "$out" | tee "$out/table.md"
