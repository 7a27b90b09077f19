// hkgai run: text in, text out, as it comes; how fast it was, on stderr.
import { createInterface } from 'node:readline';
import { Refusal } from '../../ir/problem.js';
import { type Answer, activeBytesOf, Conversation, findRunnable, openSession, type Runnable } from '../run.js';
import type { Session } from '../session.js';
import { usage } from './problems.js';
import { err, printJson, progress, say } from './terminal.js';

export interface RunArguments {
  readonly raw?: boolean;
  readonly system?: string;
  readonly think?: boolean;
  readonly maxTokens: number;
  readonly temperature: number;
  readonly topP: number;
  readonly seed: number;
  readonly threads?: number;
  readonly with: 'auto' | 'native' | 'reference';
  readonly chat?: boolean;
  readonly trace?: string;
  readonly text?: readonly string[];
  readonly json?: boolean;
  readonly quiet?: boolean;
}

async function stdin(): Promise<string> {
  let text = '';
  process.stdin.setEncoding('utf8');
  for await (const piece of process.stdin) text += piece;
  return text.replace(/\n$/, '');
}

export async function runCommand(path: string, words: readonly string[], o: RunArguments): Promise<number> {
  if (o.text && o.trace === undefined) throw new Refusal([usage('--text goes with --trace FILE')]);
  if (o.trace !== undefined) return traceCommand(path, words, o, o.trace);
  const runnable = findRunnable(path);
  const watch = await progress(o.quiet || o.json ? 'none' : process.stderr.isTTY ? 'tty' : 'none');
  let session: Session | null = null;
  try {
    const opened = await openSession(runnable, o.with, o.threads ?? 0, text => watch.step(text));
    session = opened.session;
    watch.stop();
    if (opened.note && !o.quiet) say(err.yellow(opened.note));
    const talk = await Conversation.open(runnable, session);
    if (o.system !== undefined) talk.messages.push({ role: 'system', content: o.system });
    if (o.chat) await chat(talk, o);
    else {
      const prompt = words.length ? words.join(' ') : await stdin();
      const answer = await once(talk, prompt, o);
      await tell(answer, runnable, session, o);
    }
    return 0;
  } finally {
    watch.stop();
    await session?.close();
    runnable.dispose();
  }
}

/** Texts, or the prompt, are read and not answered: which experts their tokens choose is counted. */
async function traceCommand(path: string, words: readonly string[], o: RunArguments, file: string): Promise<number> {
  const { readText, traceTexts } = await import('../trace.js');
  const texts = o.text ? o.text.map(readText) : [{ label: 'prompt', name: 'prompt', text: words.length ? words.join(' ') : await stdin() }];
  const runnable = findRunnable(path);
  const watch = await progress(o.quiet || o.json ? 'none' : process.stderr.isTTY ? 'tty' : 'none');
  try {
    const { trace, engine, note, tokens, again } = await traceTexts(runnable, texts, file, o.with, o.threads ?? 0, watch);
    watch.stop();
    if (o.json) printJson({ trace: file, engine, tokens, again });
    if (o.json || o.quiet) return 0;
    if (note) say(err.yellow(note));
    for (const name of again) say(`${name} was counted before, and is not counted twice`);
    for (const [label, l] of Object.entries(trace.labels)) {
      const uneven = l.layers.map(x => (Math.max(...x.counts) * x.counts.length) / x.counts.reduce((a, b) => a + b, 0));
      const all = l.texts.reduce((n, t) => n + t.tokens, 0);
      say(
        `  ${label}: ${all} tokens; the most chosen expert of a layer ${Math.min(...uneven).toFixed(2)} to ${Math.max(...uneven).toFixed(2)} times the mean`,
      );
    }
    say(`${file}   counted by the ${engine === 'native' ? 'native program' : 'reference interpreter'}`);
    return 0;
  } finally {
    watch.stop();
    runnable.dispose();
  }
}

function once(talk: Conversation, prompt: string, o: RunArguments): Promise<Answer> {
  const write = (piece: string): void => void (o.json || process.stdout.write(piece));
  return o.raw || !talk.canChat ? talk.continue(prompt, o, write) : talk.say(prompt, o, write, o.think);
}
async function chat(talk: Conversation, o: RunArguments): Promise<void> {
  const lines = createInterface({ input: process.stdin });
  const ask = (): void => void (process.stdin.isTTY && process.stderr.write(err.cyan('> ')));
  ask();
  for await (const line of lines) {
    if (line.trim() !== '') {
      const answer = await once(talk, line, o);
      if (o.json) printJson({ text: answer.text, ids: answer.ids });
      else process.stdout.write('\n');
    }
    ask();
  }
}

async function tell(answer: Answer, runnable: Runnable, session: Session, o: RunArguments): Promise<void> {
  const { timing: t } = answer;
  const perSecond = t.decodeSeconds > 0 && t.decodeTokens > 0 ? t.decodeTokens / t.decodeSeconds : null;
  const promptPerSecond = t.promptSeconds > 0 ? t.promptTokens / t.promptSeconds : null;
  const roof = o.quiet ? null : await session.bandwidth().catch(() => null); // a program of an earlier version may not measure it
  const active = roof === null ? null : activeBytesOf(runnable);
  const rate = perSecond !== null && active !== null ? perSecond * active : null;
  if (o.json) {
    printJson({
      text: answer.text,
      ids: answer.ids,
      promptIds: answer.promptIds,
      stopped: answer.stopped,
      engine: session.engine,
      promptTokens: t.promptTokens,
      promptTokensPerSecond: promptPerSecond,
      tokens: answer.ids.length,
      tokensPerSecond: perSecond,
      weightBytesPerToken: active,
      bytesPerSecond: rate,
      memoryBytesPerSecond: roof,
    });
    return;
  }
  process.stdout.write('\n');
  if (o.quiet) return;
  const figure = (n: number): string => (n >= 100 ? n.toFixed(0) : n.toPrecision(3)).replace(/\B(?=(\d{3})+(?!\d))/g, n >= 1000 ? ',' : '');
  const parts = [`${answer.ids.length} tokens${answer.stopped ? '' : ` (stopped at -n ${o.maxTokens})`}`, session.engine];
  if (perSecond !== null) parts.push(`${figure(perSecond)} tokens/s`);
  if (rate !== null && roof !== null)
    parts.push(`${(rate / 1e9).toFixed(1)} GB/s of weights, memory gives ${(roof / 1e9).toFixed(1)} GB/s`);
  if (promptPerSecond !== null) parts.push(`prompt ${t.promptTokens} at ${figure(promptPerSecond)} tokens/s`);
  say(err.dim(parts.join(' · ')));
}
