// The vocabulary of a GGUF as llama.cpp reads it (ggml-org/llama.cpp@3f545bec src/llama-vocab.cpp, llama_vocab::impl::load).
import type { Findings } from '../findings.js';
import { ggufPreNames } from './gguf.js';
import type { Keys } from './gguf-architectures.js';

const types: Readonly<Record<string, string>> = {
  model: 'string',
  pre: 'string',
  tokens: 'string[]',
  token_type: 'i32[]',
  merges: 'string[]',
  bos_token_id: 'u32',
  eos_token_id: 'u32',
  padding_token_id: 'u32',
  add_bos_token: 'bool',
  add_eos_token: 'bool',
};
const at = (key: string): string => `tokenizer.ggml.${key}`;

export function checkVocabulary(c: Findings, kv: Keys, rows: number | null): void {
  for (const [key, v] of kv) {
    if (!key.startsWith('tokenizer.')) continue;
    const type = key === 'tokenizer.chat_template' ? 'string' : types[key.replace('tokenizer.ggml.', '')];
    const is = v.type === 'array' ? `${v.of}[]` : v.type;
    if (type === undefined || (key !== 'tokenizer.chat_template' && !key.startsWith('tokenizer.ggml.')))
      c.say('L9', key, `${key} is not known here`);
    else if (is !== type) c.say('L8', key, `${key} is ${is}, not ${type}`);
  }
  const model = kv.get(at('model'));
  const kind = model?.type === 'string' ? model.value : null;
  if (kind !== 'gpt2' && kind !== 'none') {
    if (model === undefined || kind !== null)
      c.say('L20', at('model'), `tokenizer.ggml.model is ${kind === null ? 'missing' : JSON.stringify(kind)}`);
    return;
  }
  for (const key of ['pre', 'tokens', 'token_type', 'merges'])
    if (kv.has(at(key)) !== (kind === 'gpt2'))
      c.say('L20', at(key), kind === 'gpt2' ? `${at(key)} is missing` : `${at(key)} stands beside the vocabulary "none"`);
  if (kind !== 'gpt2') return;
  const pre = kv.get(at('pre'));
  if (pre?.type === 'string' && !ggufPreNames.includes(pre.value))
    c.say('L25', at('pre'), `${JSON.stringify(pre.value)} is no cut that is known here`);
  const list = kv.get(at('tokens'));
  const tokens = list?.type === 'array' && list.of === 'string' ? list.value : null;
  const kinds = kv.get(at('token_type'));
  if (tokens) checkTokens(c, tokens, rows);
  if (kinds?.type === 'array' && kinds.of === 'i32') {
    if (tokens && kinds.value.length !== tokens.length)
      c.say('L21', at('token_type'), `there are ${kinds.value.length} types for ${tokens.length} tokens`);
    const odd = kinds.value.findIndex(k => k < 1 || k > 6);
    if (odd >= 0) c.say('L22', at('token_type'), `token ${odd} has type ${kinds.value[odd]}`);
  }
  if (!tokens) return;
  const merges = kv.get(at('merges'));
  if (merges?.type === 'array' && merges.of === 'string') checkMerges(c, merges.value, new Set(tokens));
  for (const key of ['bos_token_id', 'eos_token_id', 'padding_token_id']) {
    const v = kv.get(at(key));
    if (v?.type === 'u32' && v.value >= tokens.length)
      c.say('L24', at(key), `${at(key)} is ${v.value}, and there are ${tokens.length} tokens`);
  }
}
function checkTokens(c: Findings, tokens: readonly string[], rows: number | null): void {
  if (rows !== null && tokens.length !== rows)
    c.say('L21', at('tokens'), `there are ${tokens.length} tokens, and the embedding has ${rows} rows`);
  const seen = new Set<string>();
  for (const [i, t] of tokens.entries()) {
    if (t === '') c.say('L22', at('tokens'), `token ${i} is empty`);
    else if (seen.has(t)) c.say('L22', at('tokens'), `token ${i}, ${JSON.stringify(t)}, stands before`);
    seen.add(t);
  }
}
function checkMerges(c: Findings, merges: readonly string[], tokens: ReadonlySet<string>): void {
  for (const [i, m] of merges.entries()) {
    const pair = m.split(' ');
    const what =
      pair.length !== 2 || pair.includes('')
        ? 'is not two pieces'
        : !tokens.has(pair[0] as string) || !tokens.has(pair[1] as string)
          ? 'has a piece that is no token'
          : tokens.has(pair.join(''))
            ? null
            : 'makes no token';
    if (what !== null) c.say('L23', at('merges'), `merge ${i}, ${JSON.stringify(m)}, ${what}`);
  }
}
