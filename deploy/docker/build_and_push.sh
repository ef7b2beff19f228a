#!/usr/bin/env bash
# Builds the image and pushes it:
#
#   deploy/docker/build_and_push.sh REPOSITORY TAG [docker build arguments]
#   deploy/docker/build_and_push.sh registry.example/mobula 0.1.0 --build-arg MODELS=1
#
# GPU=1 builds the variant with CUDA on NVIDIA's base image (BASE names another one); give it a tag
# of its own. PUSH=0 builds only. SIGN=1 signs what was pushed, by its digest, with cosign. PLATFORM
# is linux/amd64 unless it says otherwise. HF_TOKEN, if set, is given to the build as a secret, which
# no layer keeps.
set -euo pipefail
cd "$(dirname "$0")/../.."

[ $# -ge 2 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
image="$1:$2"
shift 2
secret=()
[ -z "${HF_TOKEN:-}" ] || secret=(--secret "id=hf_token,env=HF_TOKEN")
push=--push
[ "${PUSH:-1}" = 1 ] || push=--load
[ "${SIGN:-0}" = 0 ] || [ "$push" = --push ] || { echo "SIGN=1: only what is pushed can be signed, so PUSH=0 is not allowed" >&2; exit 2; }
metadata="$(mktemp)"
trap 'rm -f "$metadata"' EXIT

variant=()
if [ "${GPU:-0}" = 1 ]; then
  base="${BASE:-nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04}"
  variant=(--build-arg RUNTIME=cuda --build-arg "BASE=$base" --build-arg LIBS=base)
fi

docker buildx build --file deploy/docker/Dockerfile --platform "${PLATFORM:-linux/amd64}" \
  --tag "$image" --provenance=true --sbom=true --metadata-file "$metadata" "$push" "${secret[@]}" "${variant[@]}" "$@" .
if [ "${SIGN:-0}" = 1 ]; then
  digest="$(grep -oE '"containerimage.digest": *"sha256:[0-9a-f]{64}"' "$metadata" | grep -oE 'sha256:[0-9a-f]{64}')"
  cosign sign --yes "${image%:*}@$digest"
fi
echo "$image"
