#!/bin/sh
# vllm-ascend, tp=32,dp=2,pp=1,ep=64,redundant=32: node 2 of 4. Start all nodes, in any order. site.env beside this file says what only the site knows.
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
need HKGAI_NODE2_ADDRESS NODE2_ADDRESS 'the address of node 2 that the other nodes reach'
need HKGAI_NODE2_INTERFACE NODE2_INTERFACE 'the network interface of node 2 that has this address'
need HKGAI_MODEL_PATH MODEL_PATH 'the directory on every node that holds config.json of this engine directory'
[ "$HKGAI_RUN" = host ] || need HKGAI_IMAGE vllm-ascend/IMAGE 'the container image of vllm-ascend'
[ "$missing" = 0 ] || exit 78

export HCCL_OP_EXPANSION_MODE=AIV
export HCCL_BUFFSIZE=200
export OMP_PROC_BIND=false
export OMP_NUM_THREADS=10
export PYTORCH_NPU_ALLOC_CONF=expandable_segments:True
export HCCL_IF_IP="$HKGAI_NODE2_ADDRESS"
export GLOO_SOCKET_IFNAME="$HKGAI_NODE2_INTERFACE"
export TP_SOCKET_IFNAME="$HKGAI_NODE2_INTERFACE"
export HCCL_SOCKET_IFNAME="$HKGAI_NODE2_INTERFACE"
model=/models/deepseek-v3
[ "$HKGAI_RUN" != host ] || model=$HKGAI_MODEL_PATH
set -- vllm serve \
  "$model" \
  --served-model-name DeepSeek-V3 \
  --tensor-parallel-size 32 \
  --data-parallel-size 2 \
  --distributed-executor-backend mp \
  --nnodes 4 \
  --node-rank 2 \
  --master-addr "$HKGAI_NODE0_ADDRESS" \
  --master-port 29501 \
  --headless \
  --enable-expert-parallel \
  --max-model-len 32768 \
  --quantization ascend \
  --speculative-config '{"method":"mtp","num_speculative_tokens":1}' \
  --compilation-config '{"cudagraph_mode":"FULL_DECODE_ONLY"}' \
  --additional-config '{"eplb_config":{"expert_map_path":"'"$model"'/expert_map.json"}}'
[ "$HKGAI_RUN" != host ] || exec "$@"

image=$HKGAI_IMAGE${HKGAI_IMAGE_DIGEST:+@$HKGAI_IMAGE_DIGEST}
program=$1
shift
# shellcheck disable=SC2086
exec "$HKGAI_CONTAINER" run --rm --name hkgai-vllm-ascend-2 \
  --network host \
  --shm-size 1g \
  --privileged=true \
  --device /dev/davinci0 \
  --device /dev/davinci1 \
  --device /dev/davinci2 \
  --device /dev/davinci3 \
  --device /dev/davinci4 \
  --device /dev/davinci5 \
  --device /dev/davinci6 \
  --device /dev/davinci7 \
  --device /dev/davinci8 \
  --device /dev/davinci9 \
  --device /dev/davinci10 \
  --device /dev/davinci11 \
  --device /dev/davinci12 \
  --device /dev/davinci13 \
  --device /dev/davinci14 \
  --device /dev/davinci15 \
  --device /dev/davinci_manager \
  --device /dev/devmm_svm \
  --device /dev/hisi_hdc \
  -v /usr/local/dcmi:/usr/local/dcmi \
  -v /usr/local/Ascend/driver/tools/hccn_tool:/usr/local/Ascend/driver/tools/hccn_tool \
  -v /usr/local/bin/npu-smi:/usr/local/bin/npu-smi \
  -v /usr/local/Ascend/driver/lib64:/usr/local/Ascend/driver/lib64 \
  -v /usr/local/Ascend/driver/version.info:/usr/local/Ascend/driver/version.info \
  -v /etc/ascend_install.info:/etc/ascend_install.info \
  -e HCCL_OP_EXPANSION_MODE \
  -e HCCL_BUFFSIZE \
  -e OMP_PROC_BIND \
  -e OMP_NUM_THREADS \
  -e PYTORCH_NPU_ALLOC_CONF \
  -e HCCL_IF_IP \
  -e GLOO_SOCKET_IFNAME \
  -e TP_SOCKET_IFNAME \
  -e HCCL_SOCKET_IFNAME \
  -v "$HKGAI_MODEL_PATH:$model:ro" \
  --entrypoint "$program" "$image" "$@"
