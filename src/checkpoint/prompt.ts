// Messages to the text a model was trained on: the checkpoint's own chat template, in jinja.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Refusal } from '../../ir/problem.js';
import { templateBroken, templateMissing } from './tokenizer-problems.js';

export interface Message {
  readonly role: 'system' | 'user' | 'assistant' | 'tool';
  readonly content: string;
}
export interface PromptOptions {
  /** End with the words that make the model answer. */
  readonly addGenerationPrompt: boolean;
  /** Ask a reasoning model to think first; passed on as the template's `thinking`. */
  readonly thinking?: boolean;
  readonly tools?: readonly unknown[];
}
function source(dir: string): { readonly file: string; readonly text: string } | null {
  const own = join(dir, 'chat_template.jinja');
  if (existsSync(own)) return { file: 'chat_template.jinja', text: readFileSync(own, 'utf8') };
  const config = join(dir, 'tokenizer_config.json');
  if (!existsSync(config)) return null;
  const { chat_template: t } = JSON.parse(readFileSync(config, 'utf8')) as { chat_template?: unknown };
  if (typeof t === 'string') return { file: 'tokenizer_config.json', text: t };
  if (Array.isArray(t)) {
    const named = t.find(x => (x as { name?: string }).name === 'default') as { template?: string } | undefined;
    if (typeof named?.template === 'string') return { file: 'tokenizer_config.json', text: named.template };
  }
  return null;
}
export const hasTemplate = (dir: string): boolean => source(dir) !== null;

/** The text of a conversation by the checkpoint's template, begin-of-sentence token included where the template writes it. */
export async function renderChat(
  dir: string,
  messages: readonly Message[],
  tokens: { readonly bos: string | null; readonly eos: string | null },
  options: PromptOptions,
): Promise<string> {
  const template = source(dir);
  if (template === null) throw new Refusal([templateMissing(dir)]);
  const { Template } = await import('@huggingface/jinja');
  try {
    return new Template(template.text).render({
      messages: messages.map(m => ({ ...m })),
      add_generation_prompt: options.addGenerationPrompt,
      bos_token: tokens.bos ?? '',
      eos_token: tokens.eos ?? '',
      ...(options.thinking === undefined ? {} : { thinking: options.thinking, enable_thinking: options.thinking }),
      ...(options.tools === undefined ? {} : { tools: [...options.tools] }),
    });
  } catch (e) {
    throw new Refusal([templateBroken(template.file, (e as Error).message)]);
  }
}
