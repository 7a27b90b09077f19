// hkgai diff A B: what differs between two outputs. Exit 0 where nothing does, 6 where something does: 1 is for bugs of ours.
import { diff } from '../diff.js';
import { bytes, out, print, printJson, table } from './terminal.js';

export async function diffCommand(a: string, b: string, o: { readonly values?: boolean; readonly json?: boolean }): Promise<number> {
  const d = diff(a, b, o.values === true);
  if (o.json) {
    printJson(d);
    return d.same ? 0 : 6;
  }
  if (d.same) {
    print(d.tensors ? `The same: ${d.tensors} tensors, ${bytes(d.bytes)}.` : 'The same files.');
    return 0;
  }
  const shown = 40;
  const list = (title: string, rows: readonly (readonly string[])[]): void => {
    if (rows.length === 0) return;
    print(out.bold(`${title} (${rows.length})`));
    print(table(rows.slice(0, shown).map(r => ['  ' + r[0], ...r.slice(1)])));
    if (rows.length > shown) print(`  … and ${rows.length - shown} more; --json lists all`);
  };
  list(
    'Only in A',
    d.onlyA.map(t => [t.name, t.dtype, `[${t.shape.join(', ')}]`]),
  );
  list(
    'Only in B',
    d.onlyB.map(t => [t.name, t.dtype, `[${t.shape.join(', ')}]`]),
  );
  list(
    'Another form',
    d.form.map(t => [t.name, t.a, '->', t.b]),
  );
  list(
    'Other bytes',
    d.bytesDiffer.map(t => [t.name, t.note, t.relative === null ? '' : `relative difference ${t.relative.toExponential(2)}`]),
  );
  list(
    'Other figures',
    d.figures.map(f => [f.name, `relative error ${f.a.toExponential(3)} -> ${f.b.toExponential(3)}`]),
  );
  list(
    'Other files',
    d.files.map(f => [f.path, f.what]),
  );
  print(`\nA ${d.tensors} tensors, ${bytes(d.bytes)}; B ${d.tensorsB} tensors, ${bytes(d.bytesB)}`);
  return 6;
}
