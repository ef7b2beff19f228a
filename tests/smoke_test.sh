#!/bin/sh
# Is a deployment alive? Asks /healthz, and makes one tiny inference of each kind.
#
#   BASE_URL=http://127.0.0.1:8000 tests/smoke_test.sh
#
# INFERENCE=0 asks for the health only; HEALTH_SECONDS is how long to wait for it (default 30).
# Needs curl. Exit status 0: everything answered as it should.
set -eu

base="${BASE_URL:-http://127.0.0.1:8000}"
base="${base%/}"
inference="${INFERENCE:-1}"
health_seconds="${HEALTH_SECONDS:-30}"

fail() { printf 'FAILED  %s\n' "$*" >&2; exit 1; }
passed() { printf 'ok      %s\n' "$*"; }

tries=0
until curl -fsS -m 5 "$base/healthz" >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt "$health_seconds" ] || fail "GET $base/healthz: $(curl -sS -m 5 "$base/healthz" 2>&1)"
    sleep 1
done
passed "GET /healthz"

# path, JSON body, a text that a right answer contains
infer() {
    answer=$(curl -sS -m 30 -f -H 'content-type: application/json' -d "$2" "$base$1" 2>&1) \
        || fail "POST $1: $answer"
    case "$answer" in
        *"$3"*) passed "POST $1" ;;
        *) fail "POST $1: no $3 in: $answer" ;;
    esac
}

if [ "$inference" != 0 ]; then
    infer /v1/embeddings '{"input": "hello"}' '"embedding"'
    infer /rerank '{"query": "a ray", "texts": ["a manta ray", "a lorry"]}' '"score"'
    infer /infer '{"inputs": ["I love this!"]}' 'POSITIVE'
fi
