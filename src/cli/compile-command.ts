// hkgai compile: a bundle, and what it holds.
import { type Compiled, type CompileOptions, checkPasses, compile, targets } from '../compile.js';
import { showGraph } from '../inspect.js';
import { bytes, count, grouped, type ProgressStyle, print, printJson, progress, say } from './terminal.js';
import { typed } from './typed.js';

export interface CompileArguments {
  readonly out: string;
  readonly target?: readonly string[];
  readonly quantise?: string;
  readonly format?: string;
  readonly runtime?: string;
  readonly search?: 'absmax' | 'mse' | 'gptq';
  readonly calibration?: string;
  readonly budget?: number;
  readonly gate?: string;
  readonly baseline?: string;
  readonly experts?: string;
  readonly expertsForm?: 'renumber' | 'map';
  readonly parallel?: string;
  readonly servedName?: string;
  readonly port?: number;
  readonly image?: string;
  readonly modelSource?: 'image' | 'pvc' | 'hostpath';
  readonly materialise?: boolean;
  readonly uneven?: boolean;
  readonly jobs?: number;
  readonly maxMemory?: number;
  readonly restart?: boolean;
  readonly cache: boolean;
  readonly dryRun?: boolean;
  readonly state: 'f32' | 'bf16' | 'f16';
  readonly mtp?: 'keep' | 'quantise' | 'drop';
  readonly weights: 'auto' | 'link' | 'copy';
  readonly context?: number;
  readonly sequences: number;
  readonly chunk: number;
  readonly dump?: string;
  readonly stopAfter?: string;
  readonly force?: boolean;
  readonly allowPhantomKeys?: boolean;
  readonly json?: boolean;
  readonly quiet?: boolean;
  readonly progress: ProgressStyle;
}

export const optionsFor = (o: Partial<CompileArguments>, version: string): CompileOptions => ({
  out: o.out ?? '',
  targets: o.target ?? ['cpu'],
  quantise: o.quantise ?? null,
  format: o.format ?? null,
  runtime: o.runtime ?? null,
  state: o.state ?? 'f32',
  mtp: o.mtp ?? null,
  weights: o.weights ?? 'auto',
  sequences: o.sequences ?? 4,
  chunk: o.chunk ?? 128,
  force: o.force === true,
  allowPhantomKeys: o.allowPhantomKeys === true,
  version,
  jobs: o.jobs ?? null,
  maxMemory: o.maxMemory ?? null,
  restart: o.restart === true,
  calibration: o.calibration ?? null,
  budget: o.budget ?? null,
  gate: o.gate ?? null,
  baseline: o.baseline ?? null,
  experts: o.experts ?? null,
  parallel: o.parallel ?? null,
  launch: { servedName: o.servedName ?? null, port: o.port ?? null, image: o.image ?? null, modelSource: o.modelSource ?? null },
  expertsForm: o.expertsForm ?? 'renumber',
  materialise: o.materialise === true,
  uneven: o.uneven === true,
  noCache: o.cache === false,
  ...(o.search === undefined ? {} : { search: o.search }),
  ...(o.context === undefined ? {} : { context: o.context }),
});

export async function compileCommand(model: string, o: CompileArguments, version: string): Promise<number> {
  checkPasses({ ...(o.dump === undefined ? {} : { dump: o.dump }), ...(o.stopAfter === undefined ? {} : { stopAfter: o.stopAfter }) });
  if (o.dryRun) return (await import('./plan-command.js')).planCommand(model, o, version);
  const watch = await progress(o.quiet ? 'none' : o.progress);
  const started = Date.now();
  const stop = new AbortController();
  const onSignal = (): void => {
    if (stop.signal.aborted) process.exit(130); // asked twice: at once
    stop.abort();
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  try {
    const dumps: string[] = [];
    const passes = {
      ...(o.dump === undefined
        ? {}
        : {
            dump: o.dump,
            onFuse: (before: string, after: string) => void dumps.push(`// before fuse\n${before}\n`, `// after fuse\n${after}\n`),
            onDump: (pass: { readonly name: string }, graph: Parameters<typeof showGraph>[0], changed: boolean) =>
              void dumps.push(`// after ${pass.name}${changed ? '' : ' (unchanged)'}\n${showGraph(graph)}`),
          }),
      ...(o.stopAfter === undefined ? {} : { stopAfter: o.stopAfter }),
    };
    const options: CompileOptions = { ...optionsFor(o, version), passes, signal: stop.signal, command: typed() };
    if (o.stopAfter !== undefined) {
      const { runUntil } = await import('../inspect.js');
      watch.step(`run the passes up to ${o.stopAfter}`);
      const text = runUntil(model, { ...options, passes });
      watch.done();
      print(dumps.length ? dumps.join('\n') : text);
      return 0;
    }
    const done = await compile(model, options, watch);
    watch.done();
    if (dumps.length) print(dumps.join('\n'));
    const seconds = (Date.now() - started) / 1000;
    if (o.json) printJson({ ok: true, out: o.out, seconds, phases: done.phases, manifest: done.manifest });
    else if (!o.quiet) tell(done, o.out);
    return 0;
  } finally {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
    watch.stop();
  }
}

function tell({ manifest, engines }: Compiled, out: string): void {
  const files = Object.entries(manifest.files);
  const size = (part: string): number => files.reduce((n, [f, x]) => (f.includes(part) ? n + x.bytes : n), 0);
  say(
    `\n${manifest.model.architecture}, ${count(manifest.model.parameters)} parameters, ${grouped(manifest.source.tensors)} tensors -> ${out}`,
  );
  for (const t of manifest.targets) {
    const e = engines[t.directory]!;
    say(`  ${t.directory}/engine   ${bytes(size(`${t.directory}/engine/`))}: ${t.engine.format}, recipe ${t.engine.recipe}`);
    if (e.cached === e.files) say('                  nothing changed since it was made before: no weight was read or written');
    else {
      if (e.cached || e.resumed)
        say(
          `                  ${e.resumed} of ${e.files} weight files were finished before, ${e.cached} were made before of the same content`,
        );
      if (e.taken) say(`                  ${grouped(e.taken)} of ${grouped(e.tensors)} tensors were made before of the same content`);
    }
    const { source, dropped, output } = t.engine.totals;
    say(
      `                  ${grouped(source.tensors)} tensors in, ${grouped(output.tensors)} out${dropped.tensors ? `, ${dropped.tensors} dropped with reason` : ''}; ledger.jsonl balances`,
    );
    const { passed, reordered, cast, lossy, coded, saturated } = e.made;
    const parts = [
      passed && `${grouped(passed)} byte for byte`,
      reordered && `${grouped(reordered)} with rows or numbers of experts in their new order`,
      cast && `${grouped(cast)} cast${lossy ? `, ${grouped(lossy)} of them with loss` : ' without loss'}`,
      coded && `${grouped(coded)} matrices in codes${saturated ? ` (${grouped(saturated)} codes cut at their range)` : ''}`,
    ];
    say(`                  ${parts.filter(Boolean).join('; ')}`);
    const worst = [...e.figures].sort(([, a], [, b]) => b.relative - a.relative)[0];
    if (worst && worst[1].relative > 0) {
      const all = [...e.figures.values()];
      const mean = Math.sqrt(all.reduce((n, f) => n + f.relative ** 2, 0) / all.length);
      say(
        `                  relative error ${mean.toExponential(2)} on average, ${worst[1].relative.toExponential(2)} at worst (${worst[0]})`,
      );
    }
    if (size(`${t.directory}/native/`))
      say(
        `  ${t.directory}/native   ${targets[t.target]?.language ?? ''} program for ${manifest.limits.sequences} sequences of ${grouped(manifest.limits.context as number)} positions, not built yet`,
      );
    for (const note of t.notes) say(`  ${note}`);
  }
  for (const n of manifest.notes.slice(0, 8)) say(`  ${n}`);
  if (manifest.notes.length > 8) say(`  … and ${manifest.notes.length - 8} more notes in bundle.json`);
  if (size('cpu/native/')) say(`\n  hkgai run ${out} "Hello!"     hkgai verify ${out}`);
  else say(`\n  hkgai verify ${out}`);
}
