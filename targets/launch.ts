// How a model is spread over devices, and what a launch file is told of it. Every target writes launch files for its engines from these.

/** One way to spread a model: devices = tp · dp · pp. A device is what software sees as one: a die where a package holds several. */
export interface Parallel {
  /** Ranks that share each attention and each dense matrix of a layer. */
  readonly tp: number;
  /** Groups of tp ranks that hold attention whole each and serve requests of their own. */
  readonly dp: number;
  /** Stages that layers are dealt to. */
  readonly pp: number;
  /** Ranks of a stage that routed experts are dealt to, whole: 1 where each expert is cut by tp instead, else tp · dp. */
  readonly ep: number;
  /** Replicas of experts beyond one each, a layer; 0 where every expert stands once. */
  readonly redundant: number;
  readonly nodes: number;
  readonly devicesPerNode: number;
}
export const devicesOf = (p: Parallel): number => p.tp * p.dp * p.pp;
export const parallelName = (p: Parallel): string =>
  `tp=${p.tp},dp=${p.dp},pp=${p.pp},ep=${p.ep}${p.redundant ? `,redundant=${p.redundant}` : ''}`;
