// hkgai doctor: what can be built and run on this machine.
import { compiler, examine } from '../doctor.js';
import { bytes, out, print, printJson, table } from './terminal.js';

export async function doctorCommand(options: { readonly json?: boolean }, version: string): Promise<number> {
  const machine = examine();
  const cc = compiler();
  if (options.json) {
    printJson({ hkgai: version, ...machine, compiler: cc });
    return 0;
  }
  print(`${out.bold('hkgai')} ${version} on Node ${machine.node.slice(1)}, ${machine.system}`);
  print(`${machine.cpu}, ${machine.cores} cores${machine.vectors.length ? `: ${machine.vectors.join(', ')}` : ''}`);
  print(`memory ${bytes(machine.memory.total)}, ${bytes(machine.memory.free)} free; disk ${bytes(machine.disk)} free here\n`);
  print(
    table(
      machine.tools.map(t => [
        t.version === null ? out.dim('–') : out.green('✓'),
        t.name,
        t.version === null ? out.dim(`not found; ${t.use}`) : `${t.version}  ${out.dim(t.use)}`,
      ]),
    ),
  );
  print('');
  print(
    cc === null
      ? out.yellow('No C compiler: compile works; run and verify use the reference interpreter, which is slow.')
      : out.green(`Ready: compile, build (${cc}) and run on this CPU.`),
  );
  return 0;
}
