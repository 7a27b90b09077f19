// Every number that the estimates take from neither the model nor the chip, in one table, each with where it is from. docs/estimates.md compares.

interface Assumption {
  readonly value: number;
  readonly unit: string;
  readonly about: string;
  readonly source: string;
}
export const assumptions = {
  usableMemory: {
    value: 0.9,
    unit: '',
    about: "of a device's memory for weights, caches and buffers; the rest is for the runtime, its graphs and what falls between",
    source:
      'gpu_memory_utilization of vLLM: 0.92 where not said (vllm-project/vllm@002f10e0, vllm/config/cache.py), 0.9 before and in most launches',
  },
  stepTokens: {
    value: 8192,
    unit: 'tokens',
    about: 'most tokens of one step of a replica: buffers are made for it, and prompts are read in such steps',
    source:
      'max_num_batched_tokens of a vLLM server where not said, on devices of 70 GiB and more (vllm/engine/arg_utils.py, get_batch_defaults)',
  },
  mostSequences: {
    value: 256,
    unit: 'sequences',
    about: 'most sequences at once of a replica, where --batch does not say',
    source:
      'max_num_seqs of vLLM where not said: 256, and 1024 on devices of 70 GiB and more (vllm/engine/arg_utils.py, get_batch_defaults); the less is taken',
  },
  communicationBuffer: {
    value: 400 * 2 ** 20,
    unit: 'bytes',
    about: "the collective library's own buffers on a device",
    source:
      'HCCL_BUFFSIZE, 200 MB where not said, one to send and one to receive; launches of large models often ask for more, other libraries take less',
  },
  imbalance: {
    value: 1.2,
    unit: '',
    about: 'tokens of the busiest rank of experts over the mean, where no placement says it',
    source: 'assumed; EPLB aims at less, without it more is seen',
  },
  passes: {
    value: 2,
    unit: '',
    about: 'times that 16-bit inputs and outputs of a multiplication go through memory',
    source: 'by the multiplication itself, and by what stands between two of them',
  },
  memoryEfficiency: {
    value: 0.9,
    unit: '',
    about: 'of the memory bandwidth that reading weights and caches gets',
    source: 'calibrated: docs/estimates.md',
  },
  computeEfficiency: {
    value: 0.5,
    unit: '',
    about: 'of the peak that multiplications of many rows get',
    source: 'calibrated: docs/estimates.md',
  },
  linkEfficiency: {
    value: 0.7,
    unit: '',
    about: 'of the rate of a link that a collective gets',
    source: 'calibrated: docs/estimates.md',
  },
  overlap: {
    value: 1,
    unit: '',
    about: 'of exchanges between experts, hidden behind the work of another part of the batch',
    source: 'calibrated: docs/estimates.md',
  },
  collectiveSeconds: {
    value: 5e-6,
    unit: 's',
    about: 'each collective, however little it carries',
    source: 'calibrated: docs/estimates.md',
  },
  layerSeconds: {
    value: 150e-6,
    unit: 's',
    about: 'each layer of a step: launches, and small kernels that fill no device',
    source: 'calibrated: docs/estimates.md',
  },
  stepSeconds: {
    value: 5e-3,
    unit: 's',
    about: 'each step: scheduling, sampling, what the host does between',
    source: 'calibrated: docs/estimates.md',
  },
} as const satisfies Readonly<Record<string, Assumption>>;
export type Assumptions = Readonly<Record<keyof typeof assumptions, number>>;
export const usual: Assumptions = Object.fromEntries(Object.entries(assumptions).map(([k, a]) => [k, a.value])) as unknown as Assumptions;
/**
 * Measurements of bench/published.json that the calibrated ones were chosen by, with bench/estimates.ts: every third of those that can be compared, in
 * the order of the file. All others test them.
 */
export const calibratedOn = [
  'r1-h800-service-prefill',
  'v3-h100-sglang-prefill-1k',
  'v3-h100-sglang-prefill-4k-balanced',
  'r1-gb200-sglang-prefill-fp8',
  'r1-h200-trtllm-throughput',
  'r1-h200-sglang-tp8-8',
  'r1-h200-sglang-tp8-64',
  'r1-h100-vllm-awq-one-user',
  'r1-a100-vllm-awq-one-user-64k',
  'r1-910c-cloudmatrix-decode',
  'r1-910c-cann-prefill',
  'v32-910c-cann-decode-128k-512',
  'v4flash-950dt-cann-decode-8k-256',
  'v4flash-950dt-cann-decode-1024k-64',
  'v31-910c-vllm-ascend-prefill-128k',
] as const;
