// The vocabulary of a GGUF: tokenizer.json as llama.cpp's byte-level BPE wants it.
import { ggufPre, jsonList as list, jsonObject as object } from './gguf.js';
import type { GgufTokenizer, Json, Plan } from './gguf-plan.js';

/** A token that is not marked special but looks so is one for llama.cpp (conversion/base.py, does_token_look_special). */
const looksSpecial = (s: string): boolean =>
  (s.startsWith('<|') && s.endsWith('|>')) || (s.startsWith('<｜') && s.endsWith('｜>')) || ['<pad>', '<mask>'].includes(s);
const tokenKinds = { normal: 1, control: 3, user: 4, unused: 5 } as const;

export function tokenizer(p: Plan, config: Json, t: GgufTokenizer): void {
  const at = (key: string): string => `tokenizer.ggml.${key}`;
  if (t.tokenizerJson === null || t.tokenizerJson === undefined) {
    p.string(at('model'), 'none');
    p.left.push('there is no tokenizer.json: the file has no vocabulary and takes numbers of tokens alone');
    return;
  }
  const file = object(t.tokenizerJson);
  const model = object(file.model);
  if (model.type !== 'BPE' || model.byte_fallback === true) {
    p.refuse(
      `the tokenizer is ${model.type === 'BPE' ? 'BPE with byte fallback' : JSON.stringify(model.type)}; byte-level BPE alone is written`,
    );
    return;
  }
  const normalizers = object(file.normalizer).type === 'Sequence' ? list(object(file.normalizer).normalizers) : [file.normalizer];
  for (const n of normalizers.map(object))
    if (n.type !== undefined && n.type !== 'NFC') p.refuse(`llama.cpp does no ${JSON.stringify(n.type)} before it cuts a text`);
  const pre = ggufPre(file);
  if (pre === null) p.refuse('tokenizer.json cuts texts in a way that llama.cpp is not known to have');
  const size = p.number('vocab_size');
  const tokens: (string | undefined)[] = Array.from({ length: size }, () => undefined);
  const kinds: number[] = Array.from({ length: size }, () => tokenKinds.unused);
  const put = (id: unknown, text: string, kind: number): void => {
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= size) {
      p.refuse(`the token ${JSON.stringify(text)} has number ${JSON.stringify(id)}; vocab_size is ${size}`);
      return;
    }
    tokens[id as number] = text;
    kinds[id as number] = kind;
  };
  for (const [text, id] of Object.entries(object(model.vocab))) put(id, text, tokenKinds.normal);
  const added = new Map<string, number>();
  for (const a of list(file.added_tokens).map(object)) {
    const text = String(a.content);
    const control = a.special === true || looksSpecial(text);
    put(a.id, control ? text : text.replaceAll('▁', ' '), control ? tokenKinds.control : tokenKinds.user);
    added.set(text, Number(a.id));
  }
  const merges = list(model.merges).map(m => {
    const pair = Array.isArray(m) ? m.map(String) : String(m).split(' ');
    if (pair.length !== 2 || pair.some(s => s === '' || s.includes(' ')))
      p.refuse(`the merge ${JSON.stringify(m)} is not two pieces without blanks`);
    return pair.join(' ');
  });
  p.string(at('model'), 'gpt2');
  p.string(at('pre'), pre ?? 'default');
  p.kv.push([at('tokens'), { type: 'array', of: 'string', value: tokens.map((s, i) => s ?? `[PAD${i}]`) }]);
  p.kv.push([at('token_type'), { type: 'array', of: 'i32', value: kinds }]);
  p.kv.push([at('merges'), { type: 'array', of: 'string', value: merges }]);
  const settings = object(t.tokenizerConfig);
  const special = (kind: string): number | null => {
    const said = settings[`${kind}_token`];
    const text = typeof said === 'string' ? said : object(said).content;
    const id = typeof text === 'string' ? (added.get(text) ?? object(model.vocab)[text]) : undefined;
    const ids = [id, config[`${kind}_token_id`], object(t.generationConfig)[`${kind}_token_id`]].map(v => (Array.isArray(v) ? v[0] : v));
    return (ids.find(v => typeof v === 'number' && v >= 0 && v < size) as number | undefined) ?? null;
  };
  for (const [kind, key] of [
    ['bos', 'bos_token_id'],
    ['eos', 'eos_token_id'],
    ['pad', 'padding_token_id'],
  ] as const) {
    const id = special(kind);
    if (id !== null) p.u32(at(key), id);
  }
  p.bool(at('add_bos_token'), addsBos(settings, object(file.post_processor)));
  if (typeof settings.add_eos_token === 'boolean') p.bool(at('add_eos_token'), settings.add_eos_token);
  const template = t.chatTemplate ?? settings.chat_template;
  if (typeof template === 'string') p.string('tokenizer.chat_template', template);
}
/** Whether a text begins with the bos token: as the config says, else as the post-processor does, else as the class does by itself. */
function addsBos(settings: Json, post: Json): boolean {
  if (typeof settings.add_bos_token === 'boolean') return settings.add_bos_token;
  const steps = (post.type === 'Sequence' ? list(post.processors) : [post]).map(object);
  const template = steps.find(s => s.type === 'TemplateProcessing');
  if (template) return object(list(template.single)[0]).SpecialToken !== undefined;
  return ['LlamaTokenizer', 'LlamaTokenizerFast'].includes(String(settings.tokenizer_class));
}
