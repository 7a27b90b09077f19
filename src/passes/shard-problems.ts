// Messages of dealing a graph to ranks.
import { type Problem, problem } from '../../ir/problem.js';

const like = (more: number): string => (more === 0 ? '' : ` (and ${more} more like it)`);
const elsewise = 'Take another number, or let parts be uneven (--uneven): what cannot be dealt at all then stays whole on every rank.';

/** @param why what the numbers contradict */
export const parallelWrong = (text: string, why: string): Problem =>
  problem('HK2740', `${text} is no way to spread a model: ${why}`, {
    why: 'Ranks are tp x dp x pp; ep is 1, where every expert is cut by tp, or tp x dp, where experts are dealt whole.',
    next: 'Say it as tp=2,dp=1,pp=1,ep=2; what is left out is 1, and dp follows from ep.',
  });

/** @param name the value at which the cut is @param noun what is dealt: heads, columns, rows of the vocabulary */
export const notEven = (name: string, count: number, noun: string, ranks: number, more: number): Problem =>
  problem('HK2741', `${name}: ${count} ${noun} cannot be dealt evenly to ${ranks} ranks${like(more)}`, { next: elsewise });

/** @param weight the weight's name @param at the row or column where the cut would lie @param storage its storage, as text */
export const blockCut = (
  weight: string,
  axis: 'row' | 'column',
  at: number,
  block: number,
  storage: string,
  ranks: number,
  more: number,
): Problem =>
  problem('HK2742', `${weight}: a cut for ${ranks} ranks at ${axis} ${at} runs through a block of ${block} (${storage})${like(more)}`, {
    why: 'The codes of a block share one scale, so a block stays on one rank.',
    next: elsewise,
  });

export const expertsUneven = (name: string, experts: number, ranks: number, more: number): Problem =>
  problem('HK2743', `${name}: ${experts} experts cannot be dealt evenly to ${ranks} ranks${like(more)}`, {
    why: 'Each rank holds whole experts, at least one.',
    next: 'Take an ep that divides the number of experts.',
  });

export const stagesWrong = (stages: number, layers: number, why: string): Problem =>
  problem('HK2744', `${layers} layers cannot be dealt to ${stages} stages: ${why}`, {
    why: 'Each stage of a pipeline holds whole layers, at least one.',
    next: 'Take fewer stages, or say how many layers each has.',
  });

export const noExperts = (graph: string, ep: number): Problem =>
  problem('HK2745', `${graph} has no routed experts to deal to ${ep} ranks`, { next: 'Leave ep at 1.' });

export const notCut = (name: string, why: string, ranks: number, more: number): Problem =>
  problem('HK2746', `${name} cannot be dealt to ${ranks} ranks: ${why}${like(more)}`, {
    why: 'A part of the graph is cut where each rank can do its share of it alone.',
    next: 'Leave tp at 1, or let parts be uneven (--uneven): this part then stays whole on every rank.',
  });

export const noRank = (rank: number, ranks: number): Problem =>
  problem('HK2747', `There is no rank ${rank} of ${ranks}`, { next: `Name a rank from 0 to ${ranks - 1}.` });
