// One writer to an output: each process announces itself with a file of its own name, then looks who else is there. Names are never used twice,
// so a file of a process that is gone can be removed by anybody at any time.
import { randomUUID } from 'node:crypto';
import { readdirSync, readFileSync, readlinkSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { type Problem, problem, Refusal } from '../../ir/problem.js';
import { makeDirectory } from './directory.js';

const busy = (out: string, h: Holder, file: string): Problem =>
  problem('HK9101', `Another hkgai is writing ${out}`, {
    places: [{ file }],
    why: `Process ${h.pid} on ${h.host} holds its lock.`,
    next: canTell(h)
      ? 'Wait for it, or stop it; a lock of a process that is gone is taken over by itself.'
      : 'Wait for it. Whether it still runs cannot be seen from here: if it does not, remove the lock file.',
  });

interface Holder {
  readonly pid: number;
  readonly host: string;
  /** Installation of the system, its boot, and the space that process numbers count in: what makes `pid` mean something. */
  readonly machine: string;
  readonly boot: string;
  readonly space: string;
  /** When the process began, in the system's ticks, so that a number used again is not taken for the same process. */
  readonly began: string;
}
const text = (read: () => string): string => {
  try {
    return read().trim();
  } catch {
    return ''; // unknown on this system
  }
};
/** What the system says of a process, from its state on; all absent where it says nothing. */
function statOf(pid: number): { readonly state: string; readonly began: string } {
  const stat = text(() => readFileSync(`/proc/${pid}/stat`, 'utf8'));
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return { state: fields[0] ?? '', began: fields[19] ?? '' };
}
const self = (): Holder => ({
  pid: process.pid,
  host: hostname(),
  machine: text(() => readFileSync('/etc/machine-id', 'utf8')),
  boot: text(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8')),
  space: text(() => readlinkSync('/proc/self/ns/pid')),
  began: statOf(process.pid).began,
});
/** The process can be looked for from here: it runs in this space, or ran before this boot. */
const canTell = (h: Holder): boolean => {
  const s = self();
  return h.host === s.host && h.machine === s.machine && (h.boot !== s.boot || h.space === s.space);
};
/** False only where it is certain. */
function alive(h: Holder): boolean {
  if (!canTell(h)) return true;
  if (h.boot !== self().boot) return false;
  try {
    process.kill(h.pid, 0);
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code !== 'EPERM') return false;
  }
  const { state, began: now } = statOf(h.pid);
  if (state === 'Z' || state === 'X') return false; // ended; only its parent has not asked yet
  return h.began === '' || now === '' || now === h.began;
}
/** Who a lock file speaks of; null where it holds nothing: it is renamed into place whole, so only a crash of the machine leaves that. */
function holderOf(file: string): Holder | null {
  try {
    const h = JSON.parse(readFileSync(file, 'utf8')) as Partial<Holder> | null;
    if (!h || !Number.isSafeInteger(h.pid) || (h.pid as number) < 1 || typeof h.host !== 'string') return null;
    return { machine: '', boot: '', space: '', began: '', ...h } as Holder;
  } catch {
    return null;
  }
}
const attempts = 6;

/** Take the lock of `place` for this process; throws a Refusal where another has it. Returns how to let go. */
export function lock(place: string, out: string): { readonly file: string; readonly release: () => void } {
  const id = randomUUID();
  const file = join(place, `lock.${id}`);
  const announced = join(place, `new.${id}`);
  for (let attempt = 1; ; attempt++) {
    makeDirectory(place);
    try {
      writeFileSync(announced, JSON.stringify(self()));
      renameSync(announced, file);
    } catch (e) {
      rmSync(announced, { force: true });
      if ((e as NodeJS.ErrnoException).code === 'ENOENT' && attempt < attempts) continue; // another one ended and took the directory with it
      throw e;
    }
    let other: { readonly holder: Holder; readonly file: string } | null = null;
    for (const f of readdirSync(place)) {
      const at = join(place, f);
      if (!f.startsWith('lock') || at === file) continue;
      const holder = holderOf(at);
      if (holder && alive(holder)) other = { holder, file: at };
      else rmSync(at, { force: true });
    }
    if (other === null) return { file, release: () => rmSync(file, { force: true }) };
    rmSync(file, { force: true });
    if (attempt === attempts) throw new Refusal([busy(out, other.holder, other.file)]);
    // two that began at once saw each other: they look again after times of different length
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5 + Math.random() * 40 * attempt);
  }
}
