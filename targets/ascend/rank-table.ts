// HCCL's table of ranks, as a form: MindIE reads it on several nodes; vllm-ascend and SGLang do not. All values are strings.
// (hicann/hccl, docs of rank_table_config_a2 and of super pods; A3: every die is a rank)
import type { Parallel } from '../launch.js';
import type { Blank } from '../started.js';

const nodesOf = (p: Parallel): readonly number[] => Array.from({ length: p.nodes }, (_, k) => k);

/** Blanks of the table, beside the addresses of nodes. */
export function rankTableBlanks(p: Parallel, superPod: boolean): readonly Blank[] {
  const each = nodesOf(p).flatMap((k): readonly Blank[] => [
    {
      name: `NODE${k}_DEVICE_IPS`,
      about: `the addresses of the network ports of the devices of node ${k}, in the order of devices`,
      how: `for i in $(seq 0 ${p.devicesPerNode - 1}); do hccn_tool -i $i -ip -g; done`,
      list: p.devicesPerNode,
      form: 'address',
    },
    ...(superPod
      ? [
          {
            name: `NODE${k}_SUPER_DEVICE_IDS`,
            about: `the super device ids (SDID) of the devices of node ${k}, in the order of devices`,
            how: 'what the driver of the super pod says of each device',
            list: p.devicesPerNode,
          },
        ]
      : []),
  ]);
  return superPod
    ? [
        ...each,
        { name: 'SUPER_POD_ID', about: 'the id of the super pod that holds all the nodes', how: 'what the driver of the super pod says' },
      ]
    : each;
}
/** The form: version 1.0, or 1.2 of a super pod. */
export function rankTable(p: Parallel, superPod: boolean): string {
  const servers = nodesOf(p).map(k => ({
    server_id: `@HKGAI_NODE${k}_ADDRESS@`,
    device: Array.from({ length: p.devicesPerNode }, (_, i) => ({
      device_id: String(i),
      device_ip: `@HKGAI_NODE${k}_DEVICE_IPS:${i}@`,
      ...(superPod ? { super_device_id: `@HKGAI_NODE${k}_SUPER_DEVICE_IDS:${i}@` } : {}),
      rank_id: String(k * p.devicesPerNode + i),
    })),
  }));
  const table = {
    status: 'completed',
    version: superPod ? '1.2' : '1.0',
    server_count: String(p.nodes),
    server_list: servers,
    ...(superPod
      ? { super_pod_list: [{ super_pod_id: '@HKGAI_SUPER_POD_ID@', server_list: servers.map(s => ({ server_id: s.server_id })) }] }
      : {}),
  };
  return `${JSON.stringify(table, null, 1)}\n`;
}
