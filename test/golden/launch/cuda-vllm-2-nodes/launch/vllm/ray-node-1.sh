#!/bin/sh
# vLLM, tp=8,dp=2,pp=1,ep=16: node 1 of 2, with Ray. Start all nodes, in any order. site.env beside this file says what only the site knows.
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
[ "$HKGAI_RUN" = host ] || need HKGAI_IMAGE vllm/IMAGE 'the container image of vLLM'
[ "$missing" = 0 ] || exit 78

export VLLM_HOST_IP="$HKGAI_NODE1_ADDRESS"
if [ -n "${HKGAI_NODE1_INTERFACE:-}" ]; then
  export NCCL_SOCKET_IFNAME="$HKGAI_NODE1_INTERFACE"
  export GLOO_SOCKET_IFNAME="$HKGAI_NODE1_INTERFACE"
fi
model=/models/deepseek-v3
[ "$HKGAI_RUN" != host ] || model=$HKGAI_MODEL_PATH
set -- sh -c \
  'until ray start --address="$0:6379" --node-ip-address="$1" --block; do sleep 5; done' \
  "$HKGAI_NODE0_ADDRESS" \
  "$HKGAI_NODE1_ADDRESS"
[ "$HKGAI_RUN" != host ] || exec "$@"

image=$HKGAI_IMAGE${HKGAI_IMAGE_DIGEST:+@$HKGAI_IMAGE_DIGEST}
also0=
if [ -e /dev/infiniband ]; then also0='--device /dev/infiniband'; fi
program=$1
shift
# shellcheck disable=SC2086
exec "$HKGAI_CONTAINER" run --rm --name hkgai-vllm-1 \
  --gpus all \
  --network host \
  --ipc host \
  --cap-add IPC_LOCK \
  $also0 \
  -e VLLM_HOST_IP \
  -e NCCL_SOCKET_IFNAME \
  -e GLOO_SOCKET_IFNAME \
  -v "$HKGAI_MODEL_PATH:$model:ro" \
  --entrypoint "$program" "$image" "$@"
