// How estimates of a plan fare against published measurements, and which constants fit those that they are calibrated on.
//
//   node out/bench/bench/estimates.js [--fit]
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type Assumptions, calibratedOn, usual } from '../src/plan/assumptions.js';
import { Bench, type Compared, median, off, type Published } from './published.js';

const { values: options } = parseArgs({ options: { fit: { type: 'boolean', default: false }, root: { type: 'string' } } });
const bench = new Bench(options.root ?? fileURLToPath(new URL('../../..', import.meta.url)));

/** Every so many-th of the measurements that can be compared is calibrated on, in the order of the file: no choice of ours. */
const every = 3;
/** Values that a constant may take, coarse: what is fitted finer than measurements agree is noise. */
const grid = {
  memoryEfficiency: [0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
  computeEfficiency: [0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8],
  linkEfficiency: [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
  overlap: [0, 0.25, 0.5, 0.75, 1],
  collectiveSeconds: [5e-6, 10e-6, 15e-6, 20e-6, 30e-6, 40e-6],
  layerSeconds: [20e-6, 40e-6, 60e-6, 80e-6, 100e-6, 120e-6, 150e-6, 200e-6, 250e-6],
  stepSeconds: [0.5e-3, 1e-3, 2e-3, 3e-3, 4e-3, 5e-3],
} as const satisfies Partial<Record<keyof Assumptions, readonly number[]>>;
type Fitted = keyof typeof grid;

const all = (rows: readonly Published[], a: Assumptions): readonly Compared[] =>
  rows.flatMap(r => {
    const c = bench.compare(r, a);
    return 'why' in c ? [] : [c];
  });
const comparable = bench.rows.filter(r => !('why' in bench.compare(r)));
const calibration = comparable.filter((_, i) => i % every === 0);
const listed = calibration.map(r => r.id).join(' ');
if (listed !== calibratedOn.join(' '))
  console.log(`calibratedOn of src/plan/assumptions.ts is to be:\n${calibration.map(r => `'${r.id}',`).join('\n')}`);
/** Mean of the logarithms of the factors that estimates are off by. */
const loss = (a: Assumptions): number => {
  const list = all(calibration, a);
  return list.reduce((n, c) => n + Math.log(off(c)), 0) / list.length;
};

const chosen = (a: Assumptions): string => (Object.keys(grid) as Fitted[]).map(k => `${k} ${a[k]}`).join(', ');

if (options.fit) {
  // two constants at a time, from several beginnings, until none helps
  let best: { readonly a: Assumptions; readonly loss: number } = { a: usual, loss: loss(usual) };
  for (const start of [0, 0.5, 1]) {
    let a: Assumptions = { ...usual };
    for (const k of Object.keys(grid) as Fitted[]) a = { ...a, [k]: grid[k][Math.round(start * (grid[k].length - 1))] as number };
    let now = loss(a);
    const keys = Object.keys(grid) as Fitted[];
    for (let moved = true; moved; ) {
      moved = false;
      for (const k of keys)
        for (const j of keys)
          for (const v of grid[k])
            for (const u of j === k ? [v] : grid[j]) {
              const next = { ...a, [j]: u, [k]: v };
              const there = loss(next);
              if (there < now - 1e-9) [a, now, moved] = [next, there, true];
            }
    }
    console.log(start, now.toFixed(4), chosen(a));
    if (now < best.loss) best = { a, loss: now };
  }
  console.log('best', best.loss.toFixed(4), chosen(best.a));
}
for (const [name, rows] of [
  ['calibrated on', calibration],
  ['tested on', bench.rows.filter(r => !calibration.includes(r))],
] as const) {
  const list = all(rows, usual);
  for (const c of list) console.log(c.ratio.toFixed(2).padStart(6), c.of.id);
  console.log(name, list.length, 'median off by', median(list.map(off)).toFixed(2), 'worst', Math.max(...list.map(off)).toFixed(2));
}
