// Rotary position embedding: the frequencies, and the scalings that long-context releases put on them.
import { log, pow } from './elementary.js';

export type RopeScaling =
  | { readonly kind: 'none' }
  /** YaRN. `magnitude` multiplies cos and sin: mscale(factor, mscale) / mscale(factor, mscale_all_dim), 1 in every release. */
  | {
      readonly kind: 'yarn';
      readonly factor: number;
      readonly original: number;
      readonly betaFast: number;
      readonly betaSlow: number;
      readonly magnitude: number;
    }
  | { readonly kind: 'llama3'; readonly factor: number; readonly low: number; readonly high: number; readonly original: number };

export interface RopeTable {
  readonly theta: number;
  /** Dimensions that turn: twice the number of frequencies. */
  readonly dims: number;
  readonly scaling: RopeScaling;
}

/** YaRN's attention magnitude: 0.1 * m * ln(factor) + 1, and 1 where the factor does not stretch. */
export const mscale = (factor: number, m: number): number => (factor <= 1 ? 1 : 0.1 * m * log(factor) + 1);

/**
 * The angle per position of each pair of dimensions: [dims / 2], radians, rounded to f32.
 * theta^(-2j/d); YaRN mixes f/factor and f over a ramp between the dimensions that turn betaFast and betaSlow times within the original length.
 */
export function frequencies(t: RopeTable): Float32Array {
  const half = t.dims / 2;
  const plain = Array.from({ length: half }, (_, j) => 1 / pow(t.theta, (2 * j) / t.dims));
  const s = t.scaling;
  switch (s.kind) {
    case 'none':
      return Float32Array.from(plain);
    case 'yarn': {
      const turns = (n: number): number => (t.dims * log(s.original / (n * 2 * Math.PI))) / (2 * log(t.theta));
      const low = Math.max(Math.floor(turns(s.betaFast)), 0);
      const high = Math.min(Math.ceil(turns(s.betaSlow)), t.dims - 1);
      const width = high === low ? 0.001 : high - low;
      return Float32Array.from(plain, (f, j) => {
        const ramp = Math.min(Math.max((j - low) / width, 0), 1);
        return (f / s.factor) * ramp + f * (1 - ramp);
      });
    }
    case 'llama3':
      return Float32Array.from(plain, f => {
        const length = (2 * Math.PI) / f;
        if (length < s.original / s.high) return f;
        if (length > s.original / s.low) return f / s.factor;
        const smooth = (s.original / length - s.low) / (s.high - s.low);
        return ((1 - smooth) * f) / s.factor + smooth * f;
      });
  }
}
