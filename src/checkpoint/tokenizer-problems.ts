// Messages about tokenizers and prompts. Codes HK34nn: what a file holds; HK44nn: what hkgai does not do.
import { type Place, type Problem, problem } from '../../ir/problem.js';

const speakIds = 'Speak token ids to the native program (model --tokens).';

export const tokenizerMissing = (dir: string): Problem =>
  problem('HK3401', `${dir} has no tokenizer.json`, {
    places: [{ file: `${dir}/tokenizer.json` }],
    why: 'Without it text cannot become token ids.',
    next: `Fetch tokenizer.json. ${speakIds}`,
  });
export const tokenizerBroken = (what: string, place: Place): Problem =>
  problem('HK3402', `${place.file} cannot be used: ${what}`, { places: [place], next: 'Fetch the file again.' });
export const moreBroken = (count: number, file: string): Problem =>
  problem('HK3403', `${file} has ${count} more of these faults`, { places: [{ file }] });
export const tokenizerKind = (what: string, known: string, place: Place): Problem =>
  problem('HK4401', `${place.file}: ${what} is not something that hkgai reads`, {
    places: [place],
    why: `Known: ${known}.`,
    next: speakIds,
  });

export const templateMissing = (dir: string): Problem =>
  problem('HK3411', `${dir} has no chat template`, {
    places: [{ file: `${dir}/tokenizer_config.json` }],
    why: 'V3.2 and V4 releases describe their prompts in Python instead; hkgai knows those by model_type in config.json.',
    next: 'Use --raw to continue a text, or add chat_template.jinja.',
  });
export const templateBroken = (file: string, what: string): Problem =>
  problem('HK3412', `the chat template in ${file} failed: ${what}`, {
    places: [{ file }],
    next: 'Use --raw to continue a text, or correct the template.',
  });
export const templateKind = (file: string, what: string): Problem =>
  problem('HK4412', `the chat template in ${file} has ${what}, which hkgai would render otherwise than the releases do`, {
    places: [{ file }],
    why: 'A prompt that is nearly right makes a model worse without a sign of it.',
    next: 'Use --raw to continue a text, or write the template without it.',
  });
export const messageUnfit = (format: string, index: number, what: string): Problem =>
  problem('HK2401', `message ${index + 1} does not fit the ${format} prompt: ${what}`, { next: 'Change the message.' });
export const promptUnknown = (format: string, what: string, next: string): Problem =>
  problem('HK4411', `hkgai does not know how the ${format} prompt writes ${what}`, {
    why: 'A prompt that is nearly right makes a model worse without a sign of it.',
    next,
  });
