// The prompts of V2, V3, R1 and V3.1, for checkpoints that come without their chat template. Releases have one, in jinja, and it goes before
// these: it knows tools, which these refuse, save for one call where its writing is certain.
import { Refusal } from '../../ir/problem.js';
import { type Message, type ToolCall, tokens } from './message.js';
import { messageUnfit, promptUnknown } from './tokenizer-problems.js';

export type Plain = 'V2' | 'V3' | 'R1' | 'V3.1';
export interface PlainOptions {
  readonly addGenerationPrompt: boolean;
  readonly thinking: boolean;
}

const fence = '```';
/** One call of a tool: V3 names its kind and fences the arguments, V3.1 does neither. */
const callBlock = (format: Plain, c: ToolCall): string =>
  `<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>${
    format === 'V3.1' ? `${c.name}<｜tool▁sep｜>${c.arguments}` : `function<｜tool▁sep｜>${c.name}\n${fence}json\n${c.arguments}\n${fence}`
  }<｜tool▁call▁end｜><｜tool▁calls▁end｜>`;

const end = '</think>';
/** What an answer said after its thoughts, which R1 and V3.1 do not show again. */
const spoken = (text: string): string => (text.includes(end) ? text.slice(text.indexOf(end) + end.length) : text);

/**
 * The whole text of a conversation, begin-of-sentence token included.
 *
 *     V2    <bos>{system}\n\nUser: {user}\n\nAssistant: {answer}<eos>         an answer begins after "Assistant:", with its own space
 *     V3    <bos>{system}<｜User｜>{user}<｜Assistant｜>{answer}<eos>
 *     R1    as V3; an answer begins after <think>\n
 *     V3.1  as V3, </think> before an answer; one begins after <think> or </think>
 */
export function renderPlain(format: Plain, messages: readonly Message[], o: PlainOptions): string {
  let out: string = tokens.bos;
  messages.forEach((m, i) => {
    const open = (what: string, next: string): never => {
      throw new Refusal([promptUnknown(format, what, next)]);
    };
    if ((m.tools?.length ?? 0) > 0) open('the tools on offer', "Use the release's own chat template.");
    switch (m.role) {
      case 'system':
        if (i > 0) open('a system message that is not the first', 'Put all of it into the first message.');
        out += format === 'V2' ? `${m.content}\n\n` : m.content;
        return;
      case 'user':
        out += format === 'V2' ? `User: ${m.content}\n\n` : tokens.user + m.content;
        return;
      case 'assistant': {
        const [call, another] = m.toolCalls ?? [];
        if (call !== undefined && (format === 'V2' || format === 'R1')) open('tool calls', "Use the release's own chat template.");
        if (another !== undefined) open('several tool calls at once', "Use the release's own chat template.");
        if (call !== undefined && format === 'V3' && m.content !== '') open('words before a tool call', 'Leave the words out.');
        const content = format === 'R1' || format === 'V3.1' ? spoken(m.content) : m.content;
        const begin = format === 'V2' ? 'Assistant: ' : tokens.assistant + (format === 'V3.1' ? end : '');
        out += begin + content + (call === undefined ? '' : callBlock(format, call)) + tokens.eos;
        return;
      }
      case 'tool':
        return open('tool results', "Use the release's own chat template.");
      default:
        throw new Refusal([messageUnfit(format, i, `it has no role ${m.role}`)]);
    }
  });
  if (!o.addGenerationPrompt) return out;
  const think = { V2: '', V3: '', R1: '<think>\n', 'V3.1': o.thinking ? '<think>' : end }[format];
  return out + (format === 'V2' ? 'Assistant:' : tokens.assistant) + think;
}
