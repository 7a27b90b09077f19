// What a file is known again by without reading it.
import { type BigIntStats, statSync } from 'node:fs';

const placeAndTime = (s: BigIntStats): string => `${s.dev}:${s.ino}:${s.size}:${s.mtimeNs}`;
/** With the time of the last change of any kind, which nobody can set back. Each link that is made or removed changes it too. */
export const strictIdentityOf = (s: BigIntStats): string => `${placeAndTime(s)}:${s.ctimeNs}`;
/** Device, inode, size and time of a file: it changes when the file is written, unless somebody sets the time back. */
export const identity = (path: string): string => placeAndTime(statSync(path, { bigint: true }));
export const strictIdentity = (path: string): string => strictIdentityOf(statSync(path, { bigint: true }));
/** The identity in a strict one. */
export const withoutChange = (strict: string): string => strict.slice(0, strict.lastIndexOf(':'));
