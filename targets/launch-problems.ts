// What may be said where launch files cannot be written.
import { type Problem, problem } from '../ir/problem.js';

export const wrongDevices = (name: string, needs: number, nodes: number, perNode: number): Problem =>
  problem('HK2750', `${name} takes ${needs} devices; ${nodes} nodes of ${perNode} have ${nodes * perNode}`, {
    why: 'tp times dp times pp is the number of devices, and every node has as many as the next.',
    next: 'Change the numbers, or the nodes.',
  });
export const notSpreadSo = (engine: string, name: string, why: string, next: string): Problem =>
  problem('HK2751', `${engine} cannot be started with ${name}: ${why}`, { next });
export const noSuchFlag = (engine: string, version: string, flag: string, has: readonly string[]): Problem =>
  problem('HK2752', `${engine} ${version} has no ${flag}`, {
    why: has.length ? `These versions have it: ${has.join(', ')}.` : 'No version that was read has it.',
    next: 'Name another version with --runtime, or spread the model without it.',
  });
export const badFlagValue = (engine: string, version: string, flag: string, value: string, takes: string): Problem =>
  problem('HK2753', `${engine} ${version} does not take ${JSON.stringify(value)} for ${flag}: it takes ${takes}`, {
    next: 'Choose one that this version takes.',
  });
export const unknownVersion = (engine: string, version: string, known: readonly string[]): Problem =>
  problem('HK2754', `The options of ${engine} ${version} are not known`, {
    why: `They were read for ${known.join(', ')}.`,
    next: 'Name one of these with --runtime, or none.',
  });
export const noEngineToStart = (target: string, format: string, engines: readonly string[]): Problem =>
  problem('HK2755', `No engine of ${target} that is started from here reads ${format}`, {
    why: `Launch files are written for ${engines.join(', ')}.`,
    next: 'Choose another --format or --runtime.',
  });
export const badLaunchName = (what: string, value: string, takes: string): Problem =>
  problem('HK2756', `${what} is ${JSON.stringify(value)}, which cannot stand in a launch file: ${takes}`, { next: 'Choose another.' });
