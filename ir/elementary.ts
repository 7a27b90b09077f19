// exp, log and pow from +, -, *, / and sqrt alone. The built-in Math functions may differ in the last bit between hosts; what
// ends in emitted bytes (rope frequencies, softmax scales, mscale) must not. Errors stay below 2 units in the last place.

const ln2High = 5954088942 / 8589934592; // the upper 32 bits of ln 2
const ln2Low = 1.9082149292705877e-10; // the rest

/** 2^k by exact multiplications. */
function powerOfTwo(k: number): number {
  let base = k < 0 ? 0.5 : 2;
  let n = Math.abs(k);
  let result = 1;
  for (; n > 0; n = Math.floor(n / 2)) {
    if (n % 2 === 1) result *= base;
    base *= base;
  }
  return result;
}

/** e^x for |x| < 700. */
export function exp(x: number): number {
  const k = Math.round(x / (ln2High + ln2Low));
  const r = x - k * ln2High - k * ln2Low; // |r| <= 0.35
  let sum = 1;
  for (let i = 20; i >= 1; i--) sum = 1 + (r / i) * sum;
  return sum * powerOfTwo(k);
}

/** Natural logarithm of a positive finite number. */
export function log(x: number): number {
  if (!(x > 0) || x === Infinity) throw new RangeError(`log of ${x}`);
  let k = 0;
  let m = x;
  while (m > Math.SQRT2) {
    m *= 0.5;
    k++;
  }
  while (m < Math.SQRT1_2) {
    m *= 2;
    k--;
  }
  const s = (m - 1) / (m + 1); // |s| <= 0.172
  const s2 = s * s;
  let sum = 0;
  for (let i = 31; i >= 1; i -= 2) sum = 1 / i + s2 * sum;
  return k * ln2High + (2 * s * sum + k * ln2Low);
}

/** a^b for positive a. */
export const pow = (a: number, b: number): number => exp(b * log(a));
