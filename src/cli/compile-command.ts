// hkgai compile: a bundle, and what it holds.
import { compile } from '../compile.js';
import { showGraph } from '../inspect.js';
import { bytes, count, grouped, type ProgressStyle, print, printJson, progress, say } from './terminal.js';

export interface CompileArguments {
  readonly out: string;
  readonly target?: readonly string[];
  readonly quantise: 'none' | 'int8' | 'int4';
  readonly state: 'f32' | 'bf16' | 'f16';
  readonly mtp: 'keep' | 'drop';
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

export async function compileCommand(model: string, o: CompileArguments, version: string): Promise<number> {
  const watch = await progress(o.quiet ? 'none' : o.progress);
  const started = Date.now();
  try {
    const dumps: string[] = [];
    const passes = {
      ...(o.dump === undefined
        ? {}
        : {
            dump: o.dump,
            onDump: (pass: { readonly name: string }, graph: Parameters<typeof showGraph>[0], changed: boolean) =>
              void dumps.push(`// after ${pass.name}${changed ? '' : ' (unchanged)'}\n${showGraph(graph)}`),
          }),
      ...(o.stopAfter === undefined ? {} : { stopAfter: o.stopAfter }),
    };
    const options = {
      out: o.out,
      targets: o.target ?? ['cpu'],
      quantise: o.quantise,
      state: o.state,
      mtp: o.mtp,
      weights: o.weights,
      sequences: o.sequences,
      chunk: o.chunk,
      force: o.force === true,
      allowPhantomKeys: o.allowPhantomKeys === true,
      version,
      passes,
      ...(o.context === undefined ? {} : { context: o.context }),
    };
    if (o.stopAfter !== undefined) {
      const { runUntil } = await import('../inspect.js');
      watch.step(`run the passes up to ${o.stopAfter}`);
      const text = runUntil(model, options);
      watch.done();
      print(dumps.length ? dumps.join('\n') : text);
      return 0;
    }
    const manifest = compile(model, options, watch);
    watch.done();
    if (dumps.length) print(dumps.join('\n'));
    if (o.json) printJson({ ok: true, out: o.out, seconds: (Date.now() - started) / 1000, manifest });
    else if (!o.quiet) {
      const files = Object.entries(manifest.files);
      const size = (part: string): number => files.reduce((n, [f, x]) => (f.includes(part) ? n + x.bytes : n), 0);
      say(
        `\n${manifest.model.architecture}, ${count(manifest.model.parameters)} parameters, ${grouped(manifest.source.tensors)} tensors -> ${o.out}`,
      );
      for (const t of manifest.targets) {
        say(
          `  ${t.directory}/engine   ${bytes(size(`${t.directory}/engine/`))} of weights and tokenizer, ${manifest.recipe.quantise === 'none' ? 'byte for byte' : `large matrices in ${manifest.recipe.quantise}`}`,
        );
        say(
          `  ${t.directory}/native   C program for ${manifest.limits.sequences} sequences of ${grouped(manifest.limits.context as number)} positions, not built yet`,
        );
        for (const note of t.notes) say(`  ${note}`);
      }
      for (const n of manifest.notes.slice(0, 8)) say(`  ${n}`);
      if (manifest.notes.length > 8) say(`  … and ${manifest.notes.length - 8} more notes in bundle.json`);
      say(`\n  hkgai run ${o.out} "Hello!"     hkgai verify ${o.out}`);
    }
    return 0;
  } finally {
    watch.stop();
  }
}
