#!/bin/sh
# the vendor's vLLM, tp=4,dp=1,pp=8,ep=4: node 0 of 4, with Ray; requests come here. Start all nodes, in any order. site.env beside this file says what only the site knows.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/site.env"

missing=0
need() {
  eval "value=\${$1:-}"
  [ -z "$value" ] || return 0
  missing=1
  printf '%s is blank: %s\n  fill it in:  sh launch/fill.sh %s=...\n' "$1" "$3" "$2" >&2
}
need HKGAI_NODE0_ADDRESS NODE0_ADDRESS 'the address of node 0 that the other nodes reach'
need HKGAI_MODEL_PATH MODEL_PATH 'the directory on every node that holds config.json of this engine directory'
[ "$HKGAI_RUN" = host ] || need HKGAI_IMAGE vllm-br/IMAGE 'the container image of the vendor'\''s vLLM'
[ "$missing" = 0 ] || exit 78

export VLLM_USE_V1=1
export VLLM_WORKER_MULTIPROC_METHOD=spawn
export VLLM_BR_WEIGHT_TYPE=NUMA
export VLLM_HOST_IP="$HKGAI_NODE0_ADDRESS"
if [ -n "${HKGAI_NODE0_INTERFACE:-}" ]; then
  export SUCCL_SOCKET_IFNAME="$HKGAI_NODE0_INTERFACE"
  export GLOO_SOCKET_IFNAME="$HKGAI_NODE0_INTERFACE"
fi
model=/models/deepseek-v3
[ "$HKGAI_RUN" != host ] || model=$HKGAI_MODEL_PATH
set -- sh -c \
  'ray start --head --port=6379 --node-ip-address="$0" && exec "$@"' \
  "$HKGAI_NODE0_ADDRESS" \
  python3 \
  -m \
  vllm.entrypoints.openai.api_server \
  --model "$model" \
  --served-model-name DeepSeek-V3 \
  --host 0.0.0.0 \
  --port 8000 \
  --tensor-parallel-size 4 \
  --pipeline-parallel-size 8 \
  --distributed-executor-backend ray \
  --enable-expert-parallel \
  --max-model-len 32768 \
  --compilation-config '{"cudagraph_mode":"FULL_DECODE_ONLY"}'
[ "$HKGAI_RUN" != host ] || exec "$@"

image=$HKGAI_IMAGE${HKGAI_IMAGE_DIGEST:+@$HKGAI_IMAGE_DIGEST}
# shellcheck disable=SC2086
exec "$HKGAI_CONTAINER" run --rm --name hkgai-vllm-br-0 \
  --network host \
  --shm-size 256g \
  --cap-add IPC_LOCK \
  --ulimit memlock=-1 \
  --device /dev/biren-m \
  --device /dev/biren/card_0 \
  --device /dev/biren/card_1 \
  --device /dev/biren/card_2 \
  --device /dev/biren/card_3 \
  --device /dev/biren/card_4 \
  --device /dev/biren/card_5 \
  --device /dev/biren/card_6 \
  --device /dev/biren/card_7 \
  -e BIREN_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 \
  -e VLLM_USE_V1 \
  -e VLLM_WORKER_MULTIPROC_METHOD \
  -e VLLM_BR_WEIGHT_TYPE \
  -e VLLM_HOST_IP \
  -e SUCCL_SOCKET_IFNAME \
  -e GLOO_SOCKET_IFNAME \
  -v "$HKGAI_MODEL_PATH:$model:ro" \
  "$image" "$@"
