// The prompts of V3.2 and V4, whose releases describe them by a Python encoder instead of a chat template. Written from the format's rules
// (docs/decisions/0002-tokenizer.md lists them with their sources), which leave some cases open; those are refused:
//   both     several or late system messages; messages of one role in a row; calls without arguments; a prompt for an answer after an answer
//   V3.2     tool results (engines disagree on what follows them), offered tools, developer messages, tasks
//   V4       earlier developer messages while thoughts are dropped; an answer after a task other than `action`; reasoning effort
// The paragraph that explains tools to the model is the release's own text and not kept here: a caller passes it as `toolsText`.
import { Refusal } from '../../ir/problem.js';
import { JsonError, type JsonNode, parseJson } from './json.js';
import { type Message, tokens } from './message.js';
import { pythonJson } from './python-json.js';
import { messageUnfit, promptUnknown } from './tokenizer-problems.js';

export type Dsml = 'V3.2' | 'V4';
export interface DsmlOptions {
  readonly addGenerationPrompt: boolean;
  readonly thinking: boolean;
  /** The release's paragraph on tools, `{schemas}` standing for one line of JSON for each function. */
  readonly toolsText?: string;
}

const mark = '｜DSML｜';
const block: Readonly<Record<Dsml, string>> = { 'V3.2': 'function_calls', V4: 'tool_calls' };
const direct: readonly string[] = ['query', 'authority', 'domain', 'read_url'];

/** An assistant's calls: one block, an invoke for each, a parameter for each member of its arguments. */
function calls(format: Dsml, m: Message, index: number): string {
  const invoke = (m.toolCalls ?? []).map(c => {
    let node: JsonNode;
    try {
      node = parseJson(c.arguments);
    } catch (e) {
      if (!(e instanceof JsonError)) throw e;
      throw new Refusal([messageUnfit(format, index, `the arguments of ${c.name} are not JSON: ${e.message}`)]);
    }
    if (!(node.value instanceof Map)) throw new Refusal([messageUnfit(format, index, `the arguments of ${c.name} are not an object`)]);
    const parameters = [...(node.value as ReadonlyMap<string, JsonNode>)].map(([name, v]) => {
      const text = typeof v.value === 'string';
      return `<${mark}parameter name="${name}" string="${text}">${text ? v.value : pythonJson(v, c.arguments)}</${mark}parameter>`;
    });
    if (parameters.length === 0) throw new Refusal([promptUnknown(format, 'a call without arguments', 'Give the call an argument.')]);
    return `<${mark}invoke name="${c.name}">\n${parameters.join('\n')}\n</${mark}invoke>`;
  });
  return `<${mark}${block[format]}>\n${invoke.join('\n')}\n</${mark}${block[format]}>`;
}

/** Tool messages in the order of the calls that they answer; those without ids stay as they came. */
function inOrderOfCalls(format: Dsml, answers: readonly (readonly [Message, number])[], asked: Message | undefined): readonly Message[] {
  const order = new Map((asked?.toolCalls ?? []).flatMap((c, i) => (c.id === undefined ? [] : [[c.id, i] as const])));
  const place = ([m, index]: readonly [Message, number]): number => {
    if (m.toolCallId === undefined || order.size === 0) return index;
    const at = order.get(m.toolCallId);
    if (at === undefined) throw new Refusal([messageUnfit(format, index, `no call before it has the id ${m.toolCallId}`)]);
    return at;
  };
  return answers
    .map(a => ({ m: a[0], at: place(a) }))
    .sort((a, b) => a.at - b.at)
    .map(a => a.m);
}

/** A function offered: its schema on a line. OpenAI's form wraps it in `function`. */
function schema(tool: unknown): string {
  const f = (tool as { function?: unknown }).function ?? tool;
  const text = JSON.stringify(f);
  return pythonJson(parseJson(text), text);
}

/**
 * The whole text of a conversation, begin-of-sentence token included. Thoughts before the last user's message are left out, unless a
 * message offers tools: then all are kept.
 */
export function renderDsml(format: Dsml, messages: readonly Message[], o: DsmlOptions): string {
  const open = (what: string, next: string): never => {
    throw new Refusal([promptUnknown(format, what, next)]);
  };
  const offers = messages.some(m => (m.tools?.length ?? 0) > 0);
  // tool results count: they are written as a user's turn
  const lastUser = messages.findLastIndex(m => m.role === 'user' || m.role === 'developer' || m.role === 'tool');
  const keepsThoughts = (turn: number): boolean => o.thinking && (offers || turn >= lastUser);
  const tools = (m: Message): string => {
    if ((m.tools?.length ?? 0) === 0) return '';
    if (format === 'V3.2' || o.toolsText === undefined)
      open('the tools on offer', 'Put the paragraph on tools of the release, with the schemas, into the system message.');
    return `\n\n${(o.toolsText as string).replace('{schemas}', () => (m.tools as readonly unknown[]).map(schema).join('\n'))}`;
  };
  const started = (turn: number): string => tokens.assistant + (keepsThoughts(turn) ? '<think>' : '</think>');

  let out: string = tokens.bos;
  let asker = -1; // the message that the next answer answers
  for (let i = 0; i < messages.length; i++) {
    const m = messages[i] as Message;
    const last = i === messages.length - 1;
    const next = messages[i + 1]?.role;
    if (m.task !== undefined && format === 'V3.2') open('tasks', 'Leave the task out.');
    switch (m.role) {
      case 'system':
        if (i > 0) open('a system message that is not the first', 'Put all of it into the first message.');
        out += m.content + tools(m);
        break;
      case 'latest_reminder':
        if (format === 'V3.2') open('latest_reminder', 'Put it into the system message.');
        if (asker !== -1) open('latest_reminder between a question and its answer', 'Put it before the question.');
        out += `<｜latest_reminder｜>${m.content}`;
        break;
      case 'developer':
      case 'user': {
        if (m.role === 'developer' && (format === 'V3.2' || (o.thinking && !offers && i < lastUser)))
          open(format === 'V3.2' ? 'developer messages' : 'earlier developer messages', 'Make it a user message.');
        if (asker !== -1) open('two messages in a row that ask', 'Join them, or put the answer between them.');
        out += tokens.user + m.content + tools(m);
        asker = i;
        if (m.task !== undefined && m.task !== 'action') {
          if (!direct.includes(m.task))
            throw new Refusal([messageUnfit(format, i, `the task ${m.task} is none of action, ${direct.join(', ')}`)]);
          if (!last) open(`an answer to the task ${m.task}`, 'Let the message with the task be the last.');
          return `${out}<｜${m.task}｜>`;
        }
        break;
      }
      case 'tool': {
        if (format === 'V3.2') open('tool results', 'Put the results into a user message.');
        const from = i;
        while (messages[i + 1]?.role === 'tool') i++;
        if (messages[from - 1]?.role !== 'assistant' || (messages[from - 1]?.toolCalls?.length ?? 0) === 0)
          throw new Refusal([messageUnfit(format, from, 'no call stands before it')]);
        const answers = messages.slice(from, i + 1).map((a, k) => [a, from + k] as const);
        const results = inOrderOfCalls(format, answers, messages[from - 1]);
        out += tokens.user + results.map(r => `<tool_result>${r.content}</tool_result>`).join('\n\n');
        asker = from;
        break;
      }
      case 'assistant': {
        if (asker === -1) open('an answer that nothing asked for', 'Put the question before it.');
        const action = messages[asker]?.task === 'action';
        if (action && o.thinking) open('an answer to the task action with thoughts', 'Let the message with the task be the last.');
        out += started(asker) + (action ? '<｜action｜>' : '');
        if (keepsThoughts(asker)) out += `${m.reasoning ?? ''}</think>`;
        out += m.content + ((m.toolCalls?.length ?? 0) > 0 ? `\n\n${calls(format, m, i)}` : '') + tokens.eos;
        asker = -1;
        if (m.task !== undefined) {
          if (m.task !== 'title') throw new Refusal([messageUnfit(format, i, `the task ${m.task} is not title`)]);
          if (!last) open('an answer to the task title', 'Let the message with the task be the last.');
          return `${out}<｜title｜>`;
        }
        if (next === 'assistant') open('two answers in a row', 'Join them.');
        break;
      }
    }
  }
  if (!o.addGenerationPrompt) return out;
  if (asker === -1) open('a prompt for an answer where nothing asks', 'End with a user message.');
  return out + started(asker) + (messages[asker]?.task === 'action' ? '<｜action｜>' : '');
}
