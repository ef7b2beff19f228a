#!/usr/bin/env bash
# Builds the image and pushes it:
#
#   deploy/docker/build_and_push.sh REPOSITORY TAG [docker build arguments]
#   deploy/docker/build_and_push.sh registry.example/mobula 0.1.0 --build-arg MODELS=1
#
# PUSH=0 builds only. PLATFORM is linux/amd64 unless it says otherwise. HF_TOKEN, if set, is given
# to the build as a secret, which no layer keeps.
set -euo pipefail
cd "$(dirname "$0")/../.."

[ $# -ge 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
image="$1:$2"
shift 2
secret=()
[ -z "${HF_TOKEN:-}" ] || secret=(--secret "id=hf_token,env=HF_TOKEN")
push=--push
[ "${PUSH:-1}" = 1 ] || push=--load

docker buildx build --file deploy/docker/Dockerfile --platform "${PLATFORM:-linux/amd64}" \
  --tag "$image" --provenance=true --sbom=true "$push" "${secret[@]}" "$@" .
echo "$image"
