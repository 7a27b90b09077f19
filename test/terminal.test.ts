// What names from files may do to a terminal: nothing. Colours of the program's own, lines and tabs go through.
import { afterEach, describe, expect, it, jest } from '@jest/globals';
import { problem } from '../ir/problem.js';
import { print, printJson, progress, say, tellProblem } from '../src/cli/terminal.js';

afterEach(() => void jest.restoreAllMocks());
/** What goes to stdout and stderr. */
async function written(f: () => void | Promise<void>): Promise<string> {
  let text = '';
  for (const s of [process.stdout, process.stderr])
    jest.spyOn(s, 'write').mockImplementation(t => {
      text += String(t);
      return true;
    });
  await f();
  jest.restoreAllMocks();
  return text;
}
const evil = 'a\u001b[2Jb\u001b]0;title\u0007\r\u0008\u009b31mc\u007f\u001b[8md';
const shown = 'a\\u001b[2Jb\\u001b]0;title\\u0007\\r\\b\\u009b31mc\\u007f\\u001b[8md';

describe('text on a terminal', () => {
  it('has control characters of names as JSON has them', async () => {
    expect(await written(() => print(evil))).toBe(`${shown}\n`);
    expect(await written(() => say(evil))).toBe(`${shown}\n`);
    const p = problem('HK3900', `${evil} is not there`, { places: [{ file: evil }], why: evil, next: `${evil}.` });
    expect(await written(() => tellProblem(p))).toBe(
      `HK3900  ${shown} is not there\n  ${shown}\n${shown}\n${shown}.   hkgai explain HK3900\n`,
    );
    expect(await written(async () => (await progress('plain')).step(evil))).toBe(`- ${shown}\n`);
  });
  it('keeps lines, tabs, other scripts and the colours that the program makes', async () => {
    for (const text of ['one\ntwo\tthree', '銅鑼灣 é 🙂', '\u001b[1mbold\u001b[22m \u001b[36mcyan\u001b[39m'])
      expect(await written(() => print(text))).toBe(`${text}\n`);
  });
  it('as JSON is JSON of the same value', async () => {
    const text = await written(() => printJson({ [evil]: evil }));
    expect(JSON.parse(text)).toEqual({ [evil]: evil });
    expect(text).not.toMatch(/[^\P{Cc}\n]/u);
  });
});
