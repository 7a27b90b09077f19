#!/bin/sh
# MindIE, tp=8,dp=4,pp=1,ep=32: node 1 of 2. Start all nodes, in any order. site.env beside this file says what only the site knows.
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
need HKGAI_MINDIE_CONFIG MINDIE_CONFIG 'MindIE'\''s config.json for this node'
need HKGAI_NODE1_DEVICE_IPS NODE1_DEVICE_IPS 'the addresses of the network ports of the devices of node 1, in the order of devices'
need HKGAI_NODE1_SUPER_DEVICE_IDS NODE1_SUPER_DEVICE_IDS 'the super device ids (SDID) of the devices of node 1, in the order of devices'
need HKGAI_SUPER_POD_ID SUPER_POD_ID 'the id of the super pod that holds all the nodes'
[ "$HKGAI_RUN" = host ] || need HKGAI_IMAGE mindie/IMAGE 'the container image of MindIE'
[ -f "$here/rank-table.json" ] || { missing=1; printf '%s is not written: fill in its blanks\n  sh launch/fill.sh says which are left\n' rank-table.json >&2; }
[ "$missing" = 0 ] || exit 78

export MIES_CONFIG_JSON_PATH="$HKGAI_MINDIE_CONFIG"
export RANK_TABLE_FILE="$here"/rank-table.json
export RANKTABLEFILE="$here"/rank-table.json
export MIES_CONTAINER_IP="$HKGAI_NODE1_ADDRESS"
model=/models/deepseek-v3
[ "$HKGAI_RUN" != host ] || model=$HKGAI_MODEL_PATH
set -- sh -c 'cd /usr/local/Ascend/mindie/latest/mindie-service && exec ./bin/mindieservice_daemon'
[ "$HKGAI_RUN" != host ] || exec "$@"

image=$HKGAI_IMAGE${HKGAI_IMAGE_DIGEST:+@$HKGAI_IMAGE_DIGEST}
program=$1
shift
# shellcheck disable=SC2086
exec "$HKGAI_CONTAINER" run --rm --name hkgai-mindie-1 \
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
  -v "$HKGAI_MINDIE_CONFIG:$HKGAI_MINDIE_CONFIG:ro" \
  -v "$here/rank-table.json:$here/rank-table.json:ro" \
  -e MIES_CONFIG_JSON_PATH \
  -e RANK_TABLE_FILE \
  -e RANKTABLEFILE \
  -e MIES_CONTAINER_IP \
  -v "$HKGAI_MODEL_PATH:$model:ro" \
  --entrypoint "$program" "$image" "$@"
