// Messages about what a checkpoint's files hold. Codes HK30xx: one file; HK31xx: shards and index; HK32xx: config; HK33xx: tensors against the config.
import { type Place, type Problem, problem } from '../../ir/problem.js';

const again = 'Fetch the file again and compare its checksum.';
const at = (file: string, bytes?: readonly [number, number], shows?: string): readonly Place[] => [
  { file, ...(bytes ? { bytes } : {}), ...(shows === undefined ? {} : { shows }) },
];

// one safetensors file
export const fileTooSmall = (file: string, size: number): Problem =>
  problem('HK3001', `${file} has ${size} bytes; a safetensors file begins with 8 bytes of header length`, {
    places: at(file, [0, size]),
    why: 'The download was cut off or this is another kind of file.',
    next: again,
  });
export const headerTooLarge = (file: string, length: bigint): Problem =>
  problem('HK3002', `${file} claims a header of ${length} bytes; 100000000 is the most there may be`, {
    places: at(file, [0, 8]),
    why: 'This is no safetensors file, or its first bytes are damaged.',
    next: again,
  });
export const headerPastEnd = (file: string, length: number, size: number): Problem =>
  problem('HK3003', `${file} claims a header of ${length} bytes but has only ${size - 8} after the length`, {
    places: at(file, [0, 8]),
    why: 'The file was cut off inside its header.',
    next: again,
  });
export const headerNotUtf8 = (file: string, offset: number): Problem =>
  problem('HK3004', `the header of ${file} is not UTF-8`, { places: at(file, [8 + offset, 8 + offset + 1]), next: again });
export const headerNotObject = (file: string, shows: string): Problem =>
  problem('HK3005', `the header of ${file} does not begin with "{"`, {
    places: at(file, [8, 9], shows),
    why: 'A safetensors header is one JSON object that starts at once.',
    next: again,
  });
export const headerNotJson = (file: string, what: string, byte: number): Problem =>
  problem('HK3006', `the header of ${file} is not sound JSON: ${what}`, { places: at(file, [byte, byte + 1]), next: again });
export const entryMalformed = (file: string, tensor: string, what: string, byte: number, shows: string): Problem =>
  problem('HK3007', `${JSON.stringify(tensor)} in the header of ${file}: ${what}`, {
    places: at(file, [byte, byte + shows.length], shows),
    next: 'Write the file again with a current safetensors library.',
  });
export const unknownDtype = (file: string, tensor: string, dtype: string, byte: number, known: readonly string[]): Problem =>
  problem('HK3008', `${tensor} has the dtype ${JSON.stringify(dtype)}, which safetensors does not have`, {
    places: at(file, [byte, byte + dtype.length]),
    why: `Known: ${known.join(' ')}.`,
    next: 'Write the file again with a current safetensors library.',
  });
export const metadataMalformed = (file: string, what: string, byte: number): Problem =>
  problem('HK3009', `__metadata__ in ${file}: ${what}`, {
    places: at(file, [byte, byte + 1]),
    why: 'It maps strings to strings.',
    next: 'Write the file again with a current safetensors library.',
  });
export const offsetsReversed = (file: string, tensor: string, from: number, to: number, bytes: readonly [number, number]): Problem =>
  problem('HK3010', `${tensor} ends at ${to}, before it begins at ${from}`, { places: at(file, bytes), next: again });
export const offsetsHole = (file: string, tensor: string, from: number, expected: number, data: number): Problem =>
  problem('HK3011', `${from - expected} bytes before ${tensor} belong to no tensor`, {
    places: at(file, [data + expected, data + from]),
    why: 'Tensors follow one another without holes; something may be hidden there.',
    next: 'Write the file again with a current safetensors library.',
  });
export const offsetsOverlap = (file: string, tensor: string, other: string, from: number, expected: number, data: number): Problem =>
  problem('HK3012', `${tensor} begins inside ${other}`, {
    places: at(file, [data + from, data + expected]),
    why: 'Two tensors claim the same bytes.',
    next: 'Write the file again with a current safetensors library.',
  });
export const shapeOverflow = (file: string, tensor: string, shape: readonly number[]): Problem =>
  problem(
    'HK3013',
    `the shape of ${tensor}, ${shape.length > 8 ? `${shape.length} dimensions` : `[${shape.join(', ')}]`}, has more elements than can be counted`,
    { places: at(file), next: again },
  );
export const bitsNotWhole = (file: string, tensor: string, bits: number): Problem =>
  problem('HK3014', `${tensor} has ${bits} bits, which is no whole number of bytes`, {
    places: at(file),
    next: 'Write the file again with a current safetensors library.',
  });
export const sizeMismatch = (
  file: string,
  tensor: string,
  dtype: string,
  shape: readonly number[],
  has: number,
  needs: number,
  bytes: readonly [number, number],
): Problem =>
  problem('HK3015', `${tensor} is ${dtype} [${shape.join(', ')}], ${needs} bytes, but its offsets span ${has}`, {
    places: at(file, bytes),
    next: again,
  });
export const dataTruncated = (file: string, size: number, expected: number): Problem =>
  problem('HK3016', `${file} has ${size} bytes; its header describes ${expected}`, {
    places: at(file, [size, expected]),
    why: `${expected - size} bytes at the end are missing: the download was cut off.`,
    next: again,
  });
export const dataTrailing = (file: string, size: number, expected: number): Problem =>
  problem('HK3017', `${file} has ${size - expected} bytes after its last tensor`, {
    places: at(file, [expected, size]),
    why: 'Bytes that no tensor owns may hide something.',
    next: again,
  });
export const dataAbsent = (file: string, size: number): Problem =>
  problem('HK3018', `${file} holds its header alone, none of its tensors' bytes`, {
    places: at(file, [0, size]),
    why: 'Headers are enough to inspect and plan, not to compile.',
    next: 'Use hkgai inspect, or fetch the whole file.',
  });
export const noDirectory = (path: string): Problem =>
  problem('HK3021', `${path} is not a directory`, {
    places: at(path),
    why: 'A checkpoint is a directory with config.json and safetensors files.',
    next: 'Name that directory.',
  });
export const notRegular = (file: string): Problem =>
  problem('HK3019', `${file} is not a regular file`, {
    places: at(file),
    next: 'Name a directory with config.json and safetensors files.',
  });
export const tooManyDimensions = (file: string, tensor: string, n: number, byte: number): Problem =>
  problem('HK3020', `${tensor} has ${n} dimensions; 32 is the most`, { places: at(file, [byte, byte + 1]), next: again });

// shards and index
export const noWeights = (dir: string): Problem =>
  problem('HK3101', `${dir} holds no safetensors files`, {
    places: at(dir),
    why: 'model.safetensors, or model.safetensors.index.json with its shards, was expected.',
    next: 'Name the directory that holds the checkpoint.',
  });
export const indexNotJson = (file: string, what: string, line: number, shows: string): Problem =>
  problem('HK3102', `${file} is not sound JSON: ${what}`, { places: [{ file, line, shows }], next: again });
export const indexMalformed = (file: string, what: string, line: number, shows: string): Problem =>
  problem('HK3103', `${file}: ${what}`, {
    places: [{ file, line, shows }],
    why: 'An index is {"metadata": {...}, "weight_map": {tensor: file}}.',
    next: 'Write the index again from the shards.',
  });
export const unsafeName = (file: string, name: string, tensor: string, line: number): Problem =>
  problem('HK3104', `${file} sends ${tensor} to ${JSON.stringify(name)}, which is not a plain file name`, {
    places: [{ file, line }],
    why: 'A shard lies beside its index. A name that leads elsewhere could read any file of this machine.',
    next: 'Do not use this checkpoint unless you know where it comes from.',
  });
export const shardMissing = (file: string, shard: string, tensors: number): Problem =>
  problem('HK3105', `${shard} is missing`, {
    places: [{ file, shows: `${tensors} tensors are said to be in it` }],
    next: 'Fetch the shard.',
  });
export const phantomKey = (file: string, tensor: string, shard: string, line: number): Problem =>
  problem('HK3106', `${tensor} is in the index but not in ${shard}`, {
    places: [{ file, line }, { file: shard }],
    why: 'The index promises a tensor that does not exist.',
    next: 'Fetch the shard again, or pass --allow-phantom-keys if the publisher says so.',
  });
export const notInIndex = (file: string, tensor: string, shard: string, bytes: readonly [number, number]): Problem =>
  problem('HK3107', `${tensor} is in ${shard} but not in the index`, {
    places: [{ file: shard, bytes }, { file }],
    why: 'An engine that follows the index would lose it.',
    next: 'Write the index again from the shards.',
  });
export const contradicted = (file: string, tensor: string, says: string, is: string, line: number): Problem =>
  problem('HK3108', `the index says ${tensor} is in ${says}, but it is in ${is}`, {
    places: [{ file, line }, { file: is }],
    next: 'Write the index again from the shards.',
  });
export const twice = (tensor: string, a: string, b: string): Problem =>
  problem('HK3109', `${tensor} is in ${a} and in ${b}`, {
    places: [{ file: a }, { file: b }],
    why: 'Which one counts is not said.',
    next: 'Remove one of the shards, or write them again.',
  });
export const shardsIncomplete = (dir: string, missing: readonly string[]): Problem =>
  problem('HK3110', `${dir} has shards without an index, and ${missing.length === 1 ? 'one is' : `${missing.length} are`} missing`, {
    places: missing.slice(0, 8).map(file => ({ file })),
    next: 'Fetch the missing shards and the index.',
  });
export const ambiguousShards = (dir: string, files: readonly string[]): Problem =>
  problem('HK3111', `${dir} has several safetensors files and no index`, {
    places: files.slice(0, 8).map(file => ({ file })),
    why: 'Their names are not model-N-of-M, so what belongs together is not said.',
    next: 'Add model.safetensors.index.json, or keep one model in the directory.',
  });
export const noConfig = (dir: string): Problem =>
  problem('HK3112', `${dir} has no config.json`, {
    places: at(dir),
    next: 'Name the directory that holds the checkpoint, or fetch config.json.',
  });
export const linkOutside = (file: string, target: string): Problem =>
  problem('HK3113', `${file} is a link to ${target}, which is not there`, { places: at(file), next: 'Fetch the file.' });

// config
export const configNotJson = (file: string, what: string, line: number, shows: string): Problem =>
  problem('HK3201', `${file} is not sound JSON: ${what}`, { places: [{ file, line, shows }], next: 'Fetch config.json again.' });
export const configMissing = (file: string, key: string, expected: string): Problem =>
  problem('HK3202', `${file} lacks ${JSON.stringify(key)}`, {
    places: at(file),
    why: `${expected} was expected.`,
    next: 'Fetch config.json again; this model cannot be read without it.',
  });
export const configValue = (file: string, key: string, shows: string, line: number, expected: string): Problem =>
  problem('HK3203', `${JSON.stringify(key)} is not ${expected}`, {
    places: [{ file, line, shows }],
    next: 'Correct the field or fetch config.json again.',
  });
export const configContradiction = (file: string, what: string, line: number, shows: string, why: string): Problem =>
  problem('HK3204', what, { places: [{ file, line, shows }], why, next: 'Correct the field or fetch config.json again.' });
export const architectureUnknown = (file: string, line: number, shows: string, known: readonly string[]): Problem =>
  problem('HK4001', 'this architecture is not one that hkgai compiles', {
    places: [{ file, line, shows }],
    why: `Known model_type values: ${known.join(', ')}.`,
    next: 'hkgai targets lists what is supported.',
  });
export const featureUnsupported = (file: string, what: string, line: number, shows: string): Problem =>
  problem('HK4002', what, { places: [{ file, line, shows }], next: 'Use another release of the model.' });

// tensors against the config
const tensorPlaces = (t: { file: string; bytes: readonly [number, number] } | null, config: Place | null): readonly Place[] => [
  ...(t ? [{ file: t.file, bytes: t.bytes }] : []),
  ...(config ? [config] : []),
];
export const tensorMissing = (tensor: string, shape: readonly number[], dtypes: readonly string[], config: Place | null): Problem =>
  problem('HK3301', `${tensor} is missing: ${dtypes.join(' or ')} [${shape.join(', ')}] was expected`, {
    places: tensorPlaces(null, config),
    why: 'A model without it would give wrong answers without a sign.',
    next: 'Fetch the shard that holds it.',
  });
export const tensorUnknown = (
  tensor: string,
  dtype: string,
  shape: readonly number[],
  place: { file: string; bytes: readonly [number, number] },
): Problem =>
  problem('HK3302', `${tensor} (${dtype} [${shape.join(', ')}]) belongs to nothing this model has`, {
    places: tensorPlaces(place, null),
    why: 'Weights are never dropped silently.',
    next: 'Check that config.json belongs to these weights.',
  });
export const tensorShape = (
  tensor: string,
  is: readonly number[],
  expected: readonly number[],
  place: { file: string; bytes: readonly [number, number] },
  config: Place | null,
): Problem =>
  problem('HK3303', `${tensor} is ${is.join(' x ') || 'a scalar'}, but ${expected.join(' x ')} was expected`, {
    places: tensorPlaces(place, config),
    why: 'The weights and the config belong to different models.',
    next: 'Fetch both from the same place.',
  });
export const tensorDtype = (
  tensor: string,
  is: string,
  expected: readonly string[],
  place: { file: string; bytes: readonly [number, number] },
): Problem =>
  problem('HK3304', `${tensor} is ${is}, but ${expected.join(' or ')} was expected`, {
    places: tensorPlaces(place, null),
    next: 'Check where the checkpoint comes from.',
  });
export const scaleMissing = (
  tensor: string,
  scale: string,
  dtype: string,
  place: { file: string; bytes: readonly [number, number] },
): Problem =>
  problem('HK3305', `${tensor} is ${dtype} but its scales, ${scale}, are missing`, {
    places: tensorPlaces(place, null),
    why: 'Codes without scales are not weights.',
    next: 'Fetch the shard that holds the scales.',
  });
export const rowPairs = (tensor: string, place: { file: string; bytes: readonly [number, number] }): Problem =>
  problem('HK4330', `${tensor} is int4 in pairs of rows, which engines read and programs do not`, {
    places: tensorPlaces(place, null),
    why: 'W4A8_DYNAMIC packs two rows into one, with sums of the codes in scale_bias, for the kernels of CANN.',
    next: 'For a program of its own take w8a8, or int4 in groups along a row.',
  });
export const scaleStray = (
  scale: string,
  tensor: string,
  dtype: string,
  place: { file: string; bytes: readonly [number, number] },
): Problem =>
  problem('HK3306', `${scale} scales ${tensor}, but that is ${dtype} and has no scales`, {
    places: tensorPlaces(place, null),
    why: 'It is not said whether the weights were multiplied already.',
    next: 'Check how the checkpoint was converted.',
  });
export const stackDisagrees = (stack: string, a: string, as: string, b: string, bs: string): Problem =>
  problem('HK3307', `experts of ${stack} are stored in different ways: ${a} is ${as}, ${b} is ${bs}`, {
    why: 'All experts of a layer are one stack with one storage.',
    next: 'Convert the checkpoint so that they agree.',
  });
export const dtypeAlone = (
  tensor: string,
  is: string,
  others: string,
  peer: string,
  place: { file: string; bytes: readonly [number, number] },
): Problem =>
  problem('HK3309', `${tensor} is ${is}, but ${peer} and others are ${others}`, {
    places: tensorPlaces(place, null),
    why: 'The same bytes are other values in another dtype; in a checkpoint that was written at once these agree.',
    next: 'Check where the tensor comes from, or convert it to the dtype of the others.',
  });
export const sameTensor = (a: string, b: string, name: string): Problem =>
  problem('HK3308', `${a} and ${b} are two spellings of ${name}`, { why: 'Which one counts is not said.', next: 'Remove one of them.' });
