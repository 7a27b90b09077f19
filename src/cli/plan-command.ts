// hkgai plan, and compile --dry-run: what would be written, measured on the spot, nothing kept. Asked about devices, a plan is of those instead.
import { estimate } from '../estimate.js';
import { type CompileArguments, optionsFor } from './compile-command.js';
import type { DeploymentArguments } from './deployment-command.js';
import { bytes, grouped, print, printJson, progress, table } from './terminal.js';

/** A plan of the compile, or of devices where the options speak of them. */
export async function planAction(model: string, o: Partial<CompileArguments> & DeploymentArguments, version: string): Promise<number> {
  const { deploymentCommand, ofDevices, refuseAlone } = await import('./deployment-command.js');
  if (ofDevices(o)) return deploymentCommand(model, o);
  refuseAlone(model, o);
  return planCommand(model, o, version);
}
export async function planCommand(model: string, o: Partial<CompileArguments>, version: string): Promise<number> {
  const watch = await progress(o.json || o.quiet ? 'none' : (o.progress ?? 'auto'));
  try {
    const e = await estimate(model, optionsFor(o, version), watch);
    watch.done();
    if (o.json) {
      printJson(e);
      return 0;
    }
    for (const t of e.targets) {
      print(`${t.directory}/engine: ${t.format}, recipe ${t.recipe}`);
      print(
        table(
          t.forms.map(f => [`  ${f.role}`, grouped(f.tensors), f.form, bytes(f.bytes), `${f.bits.toFixed(2)} bits a weight`]),
          [1, 3],
        ),
      );
      for (const n of t.notes) print(`  ${n}`);
      print(`  ${grouped(t.files)} weight files, ${grouped(t.bytes)} bytes (${bytes(t.bytes)})`);
    }
    const threads = e.jobs || 1;
    print(`\nsource ${bytes(e.source)}; disk needed ${bytes(e.disk)}, free ${e.free === null ? 'unknown' : bytes(e.free)}`);
    if (!e.enough) print('not enough room: the compile would be refused before it writes');
    print(`peak memory below ${bytes(e.peakMemory)} with ${threads} thread${threads > 1 ? 's' : ''}`);
    print(
      e.seconds !== null
        ? `time about ${duration(e.seconds)}: ${((e.rate as number) / 1e9).toFixed(2)} GB/s a thread, measured here on ${bytes(e.sampled)} of this model`
        : e.headersOnly
          ? 'time unknown: the shards hold headers alone'
          : 'time: nothing is converted; files are linked where the disk allows, and hashed',
    );
    return 0;
  } finally {
    watch.stop();
  }
}
const duration = (s: number): string =>
  s < 90 ? `${s.toFixed(1)} s` : s < 5400 ? `${(s / 60).toFixed(1)} min` : `${(s / 3600).toFixed(1)} h`;
