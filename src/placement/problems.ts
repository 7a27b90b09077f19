// Everything that can be wrong with counts, traces, placements and the devices they are asked for.
import { type Problem, problem } from '../../ir/problem.js';

export const notCounts = (file: string, why: string): Problem =>
  problem('HK2720', `${file} holds no counts of experts: ${why}`, {
    places: [{ file }],
    why: 'Read are: what run --trace writes, a placement that compile wrote, {"logical_count": [...]} as SGLang records it, and {"moe_layers": [...], "counts": [...]}.',
    next: 'Make one with: hkgai run MODEL --trace FILE --text TEXT',
  });
export const otherModel = (file: string, sentences: readonly string[]): Problem =>
  problem('HK2721', `${file} is of another model`, {
    places: [{ file }],
    why: `${sentences.join(' ')} Which expert is called which differs from model to model, and with it what the counts mean.`,
    next: 'Trace this model: hkgai run MODEL --trace ANOTHER_FILE --text TEXT',
  });
export const holes = (file: string, sentences: readonly string[]): Problem =>
  problem('HK2722', `The counts of ${file} have holes`, {
    places: [{ file }],
    why: sentences.slice(0, 4).join(' ') + (sentences.length > 4 ? ` And ${sentences.length - 4} more.` : ''),
    next: 'Each layer with experts needs one count of 0 or more for each expert. Trace the model again, or leave --experts out.',
  });
export const unequal = (sentences: readonly string[], ways: string): Problem =>
  problem('HK2723', 'The experts do not go onto the devices in equal numbers', {
    why: `${sentences.join(' ')} Engines give each device as many experts as the next, and so does a placement, with --uneven too.`,
    next: ways,
  });
export const noExperts = (model: string): Problem =>
  problem('HK2724', `${model} has no routed experts`, {
    why: 'All of its weights meet every token: there is nothing to place.',
    next: 'Leave --trace and --experts out.',
  });
export const noText = (what: string): Problem =>
  problem('HK2725', `${what} has no text to trace`, { next: 'Give a prompt, or UTF-8 text files with --text FILE[:label].' });
export const notPlain = (what: string, name: string): Problem =>
  problem('HK2732', `${what} has control characters: ${JSON.stringify(name)}`, {
    why: 'It would be written into traces and shown on terminals, which obey such characters.',
    next: 'Give the file another name, or name a label after it, as --text FILE:label.',
  });
export const unknownLabel = (file: string, label: string, known: readonly string[]): Problem =>
  problem('HK2726', `${file} has no label ${label}`, {
    places: [{ file }],
    why: known.length ? `Its labels: ${known.join(', ')}.` : 'It keeps no labels apart.',
    next: `Name labels after the file, as ${file}:${known.slice(0, 2).join(',') || 'yue'}; without any all are taken together.`,
  });
export const notLegalOrder = (file: string, sentences: readonly string[]): Problem =>
  problem('HK2727', `${file} does not place this model's experts`, {
    places: [{ file }],
    why: sentences.slice(0, 3).join(' ') + (sentences.length > 3 ? ` And ${sentences.length - 3} more.` : ''),
    next: 'A placement names each expert once, and where the router picks groups it moves whole groups. Make one from counts.',
  });
