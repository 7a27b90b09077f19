// What must outlast a crash of the machine: bytes of files, and the names they have in their directories.
import { closeSync, promises as fs, fsyncSync, openSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** A small file that is there whole or not at all. */
export function writeWhole(path: string, text: string): void {
  const fd = openSync(`${path}.new`, 'w');
  try {
    writeFileSync(fd, text);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(`${path}.new`, path);
}
async function flush(path: string): Promise<void> {
  const h = await fs.open(path, 'r');
  try {
    await h.sync();
  } finally {
    await h.close();
  }
}
export const flushFile = flush;
/** Some systems cannot do it for directories: there it is not needed or not to be had. */
export async function flushDirectory(path: string): Promise<void> {
  try {
    await flush(path);
  } catch (e) {
    if (!['EINVAL', 'EISDIR', 'EPERM', 'EACCES', 'ENOTSUP', 'ENOSYS'].includes((e as NodeJS.ErrnoException).code ?? '')) throw e;
  }
}
/** Every file and directory of a tree; a few at a time, so that the disk puts them together. */
export async function flushTree(root: string): Promise<void> {
  const files: string[] = [];
  const directories: string[] = [root];
  for (const e of await fs.readdir(root, { recursive: true, withFileTypes: true })) {
    if (e.isFile()) files.push(join(e.parentPath, e.name));
    else if (e.isDirectory()) directories.push(join(e.parentPath, e.name));
  }
  const each = async (list: string[], how: (path: string) => Promise<void>): Promise<void> => {
    const rest = list.values();
    await Promise.all(
      Array.from({ length: 8 }, async () => {
        for (const path of rest) await how(path);
      }),
    );
  };
  await each(files, flushFile);
  await each(directories, flushDirectory);
}
