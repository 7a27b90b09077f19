// hkgai explain NAME --model DIR: where a tensor lies, what it becomes, who reads it.
import { inputsOf } from '../../ir/graph.js';
import { Refusal } from '../../ir/problem.js';
import { storageName } from '../../ir/storage.js';
import { inspect } from '../inspect.js';
import { unknownCode } from './problems.js';
import { bytes, out, print, printJson } from './terminal.js';

export async function explainTensor(dir: string, name: string, json: boolean): Promise<number> {
  const { model, tensors } = inspect(dir);
  const graph = model!.graph;
  const holders = graph.values.filter(
    v => v.op === 'weight' && (v.name === name || v.origin.parts.some(p => p.tensor === name || p.scale?.tensor === name)),
  );
  const unused = model!.unused.find(u => u.tensor === name);
  if (holders.length === 0 && !unused) {
    const near = tensors
      .map(t => t.name)
      .filter(t => t.includes(name))
      .slice(0, 6);
    throw new Refusal([unknownCode(name, near)]);
  }
  const weights = holders.map(w => ({
    value: w.name,
    type: `[${w.type.shape.join(', ')}] ${storageName(w.type.storage)}`,
    parts: w.origin.parts.filter(p => w.name === name || p.tensor === name || p.scale?.tensor === name),
    readers: graph.values.filter(v => inputsOf(v).some(([, i]) => i === w)).map(v => ({ name: v.name, op: v.op })),
  }));
  if (json) {
    printJson({ name, weights, unused: unused ?? null });
    return 0;
  }
  if (unused) print(`${out.bold(name)} is not compiled: ${unused.reason}.`);
  for (const w of weights) {
    print(`${out.bold(w.value)}  ${w.type}`);
    for (const p of w.parts.slice(0, 8)) {
      print(`  from ${p.tensor}  ${p.file}, bytes ${p.bytes[0]} to ${p.bytes[1]} (${bytes(p.bytes[1] - p.bytes[0])})`);
      if (p.scale) print(`  scales ${p.scale.tensor}  ${p.scale.file}, bytes ${p.scale.bytes[0]} to ${p.scale.bytes[1]}`);
    }
    if (w.parts.length > 8) print(`  … and ${w.parts.length - 8} more`);
    for (const r of w.readers) print(`  read by ${r.name} (${r.op})`);
  }
  return 0;
}
