// EPLB: which replicas of which experts lie on which device, from how often each expert is chosen. The algorithm of deepseek-ai/EPLB@d52c72d
// (eplb.py:5-162) in its own arithmetic, float32; where weights are equal the lower index goes first.
const { fround } = Math;

/** Items dealt to packs, as many in each: the heaviest first, each to the lightest pack with room. */
export interface Packed {
  readonly pack: Int32Array;
  /** Place in its pack, in the order of dealing. */
  readonly rank: Int32Array;
}
export function pack(weights: ArrayLike<number>, packs: number): Packed {
  const n = weights.length;
  if (n % packs !== 0) throw new RangeError(`${n} items do not go into ${packs} equal packs`);
  const room = n / packs;
  const out = { pack: new Int32Array(n), rank: new Int32Array(n) };
  if (room === 1) {
    for (let i = 0; i < n; i++) out.pack[i] = i;
    return out;
  }
  const heavy = Array.from({ length: n }, (_, i) => i).sort((a, b) => (weights[b] as number) - (weights[a] as number) || a - b);
  const load = new Float32Array(packs);
  const count = new Int32Array(packs);
  for (const i of heavy) {
    let best = -1;
    for (let p = 0; p < packs; p++) if (count[p]! < room && (best < 0 || load[p]! < load[best]!)) best = p;
    out.pack[i] = best;
    out.rank[i] = count[best]!++;
    load[best] = fround(load[best]! + fround(weights[i] as number));
  }
  return out;
}

/** Replicas beyond one each go, one after another, to the expert with most weight a replica. */
export interface Replicated {
  /** Expert of each replica: the first `experts` in order, then those added. */
  readonly of: Int32Array;
  /** Which of its expert's replicas it is. */
  readonly rank: Int32Array;
  /** Replicas by expert. */
  readonly count: Int32Array;
}
export function replicate(weights: ArrayLike<number>, replicas: number): Replicated {
  const n = weights.length;
  const of = Int32Array.from({ length: replicas }, (_, i) => (i < n ? i : 0));
  const rank = new Int32Array(replicas);
  const count = new Int32Array(n).fill(1);
  for (let i = n; i < replicas; i++) {
    let best = 0;
    let most = Number.NEGATIVE_INFINITY;
    for (let e = 0; e < n; e++) {
      const each = fround(fround(weights[e] as number) / count[e]!);
      if (each > most) {
        best = e;
        most = each;
      }
    }
    of[i] = best;
    rank[i] = count[best]!++;
  }
  return { of, rank, count };
}

export interface Balance {
  readonly replicas: number;
  readonly groups: number;
  readonly nodes: number;
  readonly devices: number;
}
/** Of one layer. */
export interface Balanced {
  /** Expert of each physical place, devices one after another. */
  readonly physicalToLogical: readonly number[];
  /** Places of each expert, by replica. */
  readonly logicalToPhysical: readonly (readonly number[])[];
  readonly count: readonly number[];
}
/** Groups stay within a node where the nodes divide them; else experts are dealt to all devices alike. */
export function rebalance(weights: readonly number[], b: Balance): Balanced {
  const local = b.groups % b.nodes === 0;
  const [groups, nodes] = local ? [b.groups, b.nodes] : [1, 1];
  const w = Float32Array.from(weights);
  const experts = w.length;
  const size = experts / groups;
  const [own, places, devices] = [experts / nodes, b.replicas / nodes, b.devices / nodes];
  const sums = Array.from({ length: groups }, (_, g) => {
    let sum = 0;
    for (let i = 0; i < size; i++) sum = fround(sum + w[g * size + i]!);
    return sum;
  });
  // 1. groups to nodes: experts in the order of nodes
  const dealt = pack(sums, nodes);
  const ordered = new Int32Array(experts);
  for (let e = 0; e < experts; e++) {
    const g = Math.floor(e / size);
    ordered[(dealt.pack[g]! * (groups / nodes) + dealt.rank[g]!) * size + (e % size)] = e;
  }
  const physicalToLogical = new Array<number>(b.replicas);
  const logicalToPhysical = Array.from({ length: experts }, () => [] as number[]);
  const count = new Array<number>(experts);
  for (let n = 0; n < nodes; n++) {
    // 2. replicas inside the node
    const here = ordered.subarray(n * own, (n + 1) * own);
    const r = replicate(
      Float32Array.from(here, e => w[e]!),
      places,
    );
    here.forEach((e, i) => {
      count[e] = r.count[i]!;
    });
    // 3. replicas to devices
    const load = Float32Array.from(r.of, i => w[here[i]!]! / r.count[i]!);
    const on = pack(load, devices);
    r.of.forEach((i, replica) => {
      const at = n * places + on.pack[replica]! * (places / devices) + on.rank[replica]!;
      physicalToLogical[at] = here[i]!;
      logicalToPhysical[here[i]!]![r.rank[replica]!] = at;
    });
  }
  return { physicalToLogical, logicalToPhysical, count };
}
