// Messages about values that are only seen when a tensor is read.
import { type Problem, problem } from '../../ir/problem.js';

/** `at`: byte of the number in its file. */
export const tooWide = (tensor: string, value: bigint, file: string, at: number): Problem =>
  problem('HK3603', `${tensor} holds ${value}, which does not fit in the 32 bits it is written in`, {
    places: [{ file, bytes: [at, at + 8] }],
    why: 'It names an expert or a token; no model has that many. The file is damaged, or it is of another model.',
    next: 'Get the shard again and run the same command, or begin anew with --restart.',
  });
export const noExpert = (tensor: string, value: bigint, experts: number, file: string, at: number): Problem =>
  problem('HK3604', `${tensor} names expert ${BigInt.asIntN(64, value)}, and there are ${experts}`, {
    places: [{ file, bytes: [at, at + 8] }],
    why: 'Experts are given new numbers, and this one has none. The file is damaged, or it is of another model.',
    next: 'Get the shard again and run the same command, or begin anew with --restart.',
  });
