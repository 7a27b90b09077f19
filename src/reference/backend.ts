// tfjs with its wasm backend, started once. The wasm file is the package's own, read from disk; where it cannot start, the plain CPU path of
// this module's caller is not silently taken: the error says so.
import { createRequire } from 'node:module';
import { dirname, join, sep } from 'node:path';
import * as tf from '@tensorflow/tfjs-core';

let started: Promise<void> | null = null;

async function start(): Promise<void> {
  const require = createRequire(import.meta.url);
  const { setWasmPaths } = await import('@tensorflow/tfjs-backend-wasm');
  setWasmPaths(join(dirname(require.resolve('@tensorflow/tfjs-backend-wasm/package.json')), 'dist') + sep);
  const warn = console.warn;
  console.warn = () => {}; // the package greets on the console
  try {
    if (!(await tf.setBackend('wasm'))) throw new Error('the wasm backend of tfjs did not start');
    await tf.ready();
  } finally {
    console.warn = warn;
  }
}
/** Start the backend; later calls wait for the same start. */
export function backend(): Promise<void> {
  started ??= start();
  return started;
}
export { tf };
export type Matrix = tf.Tensor2D;
