// Bytes that a sequence takes in the caches of a layer, and that one step reads of them.
import type { Cache } from './model.js';

export type KvStorage = 'bf16' | 'fp8';

/** Bytes of one entry of the main cache: what a token, or a compressed run of tokens, leaves. */
export function entryBytes(c: Cache, kv: KvStorage, tp: number): number {
  switch (c.kind) {
    case 'heads':
      // heads are dealt to ranks and never cut: with more ranks than heads each rank holds one
      return 2 * Math.ceil(c.kvHeads / tp) * c.width * (kv === 'bf16' ? 2 : 1);
    case 'latent':
      if (kv === 'bf16') return 2 * (c.latent + c.rope);
      // sparse attention reads the latent in fp8 with a scale every 128 and the rotary part in bf16: 512 + 16 + 128 = 656
      // (FlashMLA, docs/20250422-new-kernel-deep-dive.md and its README on FP8 KV); dense attention all of it in fp8
      return c.index ? c.latent + 4 * Math.ceil(c.latent / 128) + 2 * c.rope : c.latent + c.rope;
    case 'compressed': {
      if (kv === 'bf16') return 2 * c.width;
      // fp8 in blocks of 64 with a power of two each, the rotary part in bf16: 448 + 7 + 128, a row filled up to eights
      const rounded = c.width - c.rope;
      return 8 * Math.ceil((rounded + Math.ceil(rounded / 64) + 2 * c.rope) / 8);
    }
  }
}
/** Bytes of one key of the index. */
export function indexBytes(c: Cache, kv: KvStorage): number {
  const index = c.kind === 'heads' ? null : c.index;
  if (!index) return 0;
  return kv === 'bf16' ? 2 * index.dim : index.dim + 4 * Math.ceil(index.dim / 128);
}

/** Bytes of a sequence of `context` positions in one layer, on one rank. */
export function sequenceBytes(c: Cache, kv: KvStorage, tp: number, context: number): number {
  const entry = entryBytes(c, kv, tp);
  if (c.kind !== 'compressed') return context * (entry + indexBytes(c, kv));
  const entries = c.ratio > 0 ? Math.floor(context / c.ratio) : 0;
  // the runs that are not whole yet: keys and gate scores in f32, twice over where windows overlap
  const overlap = c.ratio === 4 ? 2 : 1;
  const pending = c.ratio > 0 ? 2 * 4 * overlap * c.ratio * (overlap * c.width + (c.index ? overlap * c.index.dim : 0)) : 0;
  return Math.min(context, c.window) * entry + entries * (entry + indexBytes(c, kv)) + pending;
}
/** Entries that a token attends to, and index keys that it looks at. */
export function visible(c: Cache, context: number): { readonly entries: number; readonly keys: number } {
  switch (c.kind) {
    case 'heads':
      return { entries: context, keys: 0 };
    case 'latent':
      return c.index ? { entries: Math.min(context, c.index.topK), keys: context } : { entries: context, keys: 0 };
    case 'compressed': {
      const runs = c.ratio > 0 ? Math.floor(context / c.ratio) : 0;
      const window = Math.min(context, c.window);
      return c.index ? { entries: window + Math.min(runs, c.index.topK), keys: runs } : { entries: window + runs, keys: 0 };
    }
  }
}
