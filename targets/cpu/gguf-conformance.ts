// A GGUF file, or the files of one model, held against the format's rules.
import type { EngineDirectory, Finding } from '../engine.js';
import { GgufError, readGguf } from './gguf.js';

export function checkGguf(dir: EngineDirectory): readonly Finding[] {
  const found: Finding[] = [];
  for (const name of dir.files.filter(f => f.endsWith('.gguf')))
    try {
      readGguf(dir.file(name));
    } catch (e) {
      if (!(e instanceof GgufError)) throw e;
      found.push({ rule: e.rule, where: name, what: e.message });
    }
  return found;
}
