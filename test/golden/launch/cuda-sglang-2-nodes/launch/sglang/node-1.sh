#!/bin/sh
# SGLang, tp=8,dp=2,pp=1,ep=16: node 1 of 2. Start all nodes, in any order. site.env beside this file says what only the site knows.
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
need HKGAI_NODE1_ADDRESS NODE1_ADDRESS 'the address of node 1 that the other nodes reach'
need HKGAI_MODEL_PATH MODEL_PATH 'the directory on every node that holds config.json of this engine directory'
[ "$HKGAI_RUN" = host ] || need HKGAI_IMAGE sglang/IMAGE 'the container image of SGLang'
[ "$missing" = 0 ] || exit 78

if [ -n "${HKGAI_NODE1_INTERFACE:-}" ]; then
  export NCCL_SOCKET_IFNAME="$HKGAI_NODE1_INTERFACE"
  export GLOO_SOCKET_IFNAME="$HKGAI_NODE1_INTERFACE"
fi
model=/models/deepseek-v3
[ "$HKGAI_RUN" != host ] || model=$HKGAI_MODEL_PATH
set -- python3 -m sglang.launch_server \
  --model-path "$model" \
  --served-model-name DeepSeek-V3 \
  --host 0.0.0.0 \
  --port 8000 \
  --tp-size 16 \
  --dp-size 2 \
  --enable-dp-attention \
  --ep-size 16 \
  --init-expert-location "$model"/experts.json \
  --dist-init-addr "$HKGAI_NODE0_ADDRESS":20000 \
  --nnodes 2 \
  --node-rank 1 \
  --context-length 32768 \
  --speculative-algorithm NEXTN \
  --speculative-num-steps 1 \
  --speculative-eagle-topk 1 \
  --speculative-num-draft-tokens 2
[ "$HKGAI_RUN" != host ] || exec "$@"

image=$HKGAI_IMAGE${HKGAI_IMAGE_DIGEST:+@$HKGAI_IMAGE_DIGEST}
also0=
if [ -e /dev/infiniband ]; then also0='--device /dev/infiniband'; fi
program=$1
shift
# shellcheck disable=SC2086
exec "$HKGAI_CONTAINER" run --rm --name hkgai-sglang-1 \
  --gpus all \
  --network host \
  --ipc host \
  --cap-add IPC_LOCK \
  $also0 \
  -e NCCL_SOCKET_IFNAME \
  -e GLOO_SOCKET_IFNAME \
  -v "$HKGAI_MODEL_PATH:$model:ro" \
  --entrypoint "$program" "$image" "$@"
