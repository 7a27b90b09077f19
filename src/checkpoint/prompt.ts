// Messages to the text a model was trained on: the checkpoint's own chat template, in jinja; where it has none, DeepSeek's formats by name.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Refusal } from '../../ir/problem.js';
import { type Dsml, renderDsml } from './dsml.js';
import { JsonError, lineAt, parseJson, plainValue } from './json.js';
import type { Message } from './message.js';
import { type Plain, renderPlain } from './plain-prompts.js';
import { templateBroken, templateKind, templateMissing, tokenizerBroken } from './tokenizer-problems.js';

export type { Message, ToolCall } from './message.js';

export interface PromptOptions {
  /** End with the words that make the model answer. */
  readonly addGenerationPrompt: boolean;
  /** Ask a reasoning model to think first; passed on as the template's `thinking` and `enable_thinking`. */
  readonly thinking?: boolean;
  /** Functions on offer, in OpenAI's form. */
  readonly tools?: readonly unknown[];
  /** V4: the release's paragraph on tools, `{schemas}` standing for the functions. */
  readonly toolsText?: string;
}

interface Template {
  readonly file: string;
  readonly text: string;
}
type Settings = Readonly<Record<string, unknown>>;
function settings(dir: string, name: string): Settings {
  if (!existsSync(join(dir, name))) return {};
  const text = readFileSync(join(dir, name), 'utf8');
  try {
    const value = plainValue(parseJson(text));
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Settings) : {};
  } catch (e) {
    if (!(e instanceof JsonError)) throw e;
    throw new Refusal([tokenizerBroken(e.message, { file: name, ...lineAt(text, e.at) })]);
  }
}
function templateOf(dir: string): Template | null {
  const own = join(dir, 'chat_template.jinja');
  if (existsSync(own)) return { file: 'chat_template.jinja', text: readFileSync(own, 'utf8') };
  const { chat_template: t } = settings(dir, 'tokenizer_config.json');
  if (typeof t === 'string') return { file: 'tokenizer_config.json', text: t };
  if (Array.isArray(t)) {
    const named = t.find(x => (x as { name?: string }).name === 'default') as { template?: string } | undefined;
    if (typeof named?.template === 'string') return { file: 'tokenizer_config.json', text: named.template };
  }
  return null;
}
// V4.1 is not here: its rules are not known
const named: Readonly<Record<string, Dsml>> = { deepseek_v32: 'V3.2', deepseek_v4: 'V4' };
/** The format of a checkpoint whose releases describe it by an encoder instead of a template. */
const encoderOf = (dir: string): Dsml | null => {
  const type = settings(dir, 'config.json').model_type;
  return typeof type === 'string' && Object.hasOwn(named, type) ? (named[type] as Dsml) : null;
};
export const hasTemplate = (dir: string): boolean => templateOf(dir) !== null || encoderOf(dir) !== null;

/** A conversation in the words of chat templates, members that are absent left out: templates ask whether they are there. */
const spelled = (m: Message): Readonly<Record<string, unknown>> => ({
  role: m.role,
  content: m.content,
  ...(m.reasoning === undefined ? {} : { reasoning_content: m.reasoning }),
  ...(m.toolCallId === undefined ? {} : { tool_call_id: m.toolCallId }),
  ...(m.tools === undefined ? {} : { tools: [...m.tools] }),
  ...(m.toolCalls === undefined
    ? {}
    : {
        tool_calls: m.toolCalls.map(c => ({
          ...(c.id === undefined ? {} : { id: c.id }),
          type: 'function',
          function: { name: c.name, arguments: c.arguments },
        })),
      }),
});

/** The text of a conversation by a format that hkgai knows. `tools` are offered by the first message, as a system message where it is none. */
export function renderNamed(format: Dsml | Plain, messages: readonly Message[], options: PromptOptions): string {
  const { tools } = options;
  const system: Message = messages[0]?.role === 'system' ? messages[0] : { role: 'system', content: '' };
  const offered =
    tools === undefined || tools.length === 0
      ? messages
      : [{ ...system, tools }, ...messages.slice(messages[0]?.role === 'system' ? 1 : 0)];
  const rest = { addGenerationPrompt: options.addGenerationPrompt, thinking: options.thinking === true };
  if (format === 'V3.2' || format === 'V4')
    return renderDsml(format, offered, { ...rest, ...(options.toolsText === undefined ? {} : { toolsText: options.toolsText }) });
  return renderPlain(format, offered, rest);
}

/** The text of a conversation by the template's source. `file` is named where it fails. */
export async function renderTemplate(
  source: string,
  file: string,
  messages: readonly Message[],
  tokens: { readonly bos: string | null; readonly eos: string | null },
  options: PromptOptions,
): Promise<string> {
  // the library's strip takes white space whatever it is told to take
  const strip = /\.[lr]?strip\(\s*[^)\s][^)]*\)/.exec(source);
  if (strip !== null) throw new Refusal([templateKind(file, strip[0])]);
  const { Template } = await import('@huggingface/jinja');
  try {
    return new Template(source).render({
      messages: messages.map(spelled),
      add_generation_prompt: options.addGenerationPrompt,
      bos_token: tokens.bos ?? '',
      eos_token: tokens.eos ?? '',
      ...(options.thinking === undefined ? {} : { thinking: options.thinking, enable_thinking: options.thinking }),
      ...(options.tools === undefined ? {} : { tools: [...options.tools] }),
    });
  } catch (e) {
    throw new Refusal([templateBroken(file, (e as Error).message)]);
  }
}

/**
 * The text of a conversation by the checkpoint's template, or by its encoder's format; begin-of-sentence token included where these write it,
 * so that the text is encoded without `addSpecial`.
 */
export async function renderChat(
  dir: string,
  messages: readonly Message[],
  tokens: { readonly bos: string | null; readonly eos: string | null },
  options: PromptOptions,
): Promise<string> {
  const template = templateOf(dir);
  if (template !== null) return renderTemplate(template.text, template.file, messages, tokens, options);
  const format = encoderOf(dir);
  if (format === null) throw new Refusal([templateMissing(dir)]);
  return renderNamed(format, messages, options);
}
