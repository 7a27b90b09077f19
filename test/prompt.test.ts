import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from '@jest/globals';
import { Refusal } from '../ir/problem.js';
import { parseJson } from '../src/checkpoint/json.js';
import { hasTemplate, type Message, type PromptOptions, renderChat, renderNamed, renderTemplate } from '../src/checkpoint/prompt.js';
import { pythonFloat, pythonJson } from '../src/checkpoint/python-json.js';
import { loadTokenizer } from '../src/checkpoint/tokenizer.js';

const nano = fileURLToPath(new URL('../fixtures/hkgai-nano', import.meta.url));
const own = fileURLToPath(new URL('../fixtures/eval/', import.meta.url));
const dir = mkdtempSync(join(tmpdir(), 'hkgai-prompt-'));
afterAll(() => rmSync(dir, { recursive: true }));
const none = { bos: null, eos: null };
const prompt: PromptOptions = { addGenerationPrompt: true };
const thinking: PromptOptions = { addGenerationPrompt: true, thinking: true };
const whole: PromptOptions = { addGenerationPrompt: false };
const wholeThinking: PromptOptions = { addGenerationPrompt: false, thinking: true };

describe('the chat template of hkgai-nano', () => {
  it('is exact on its vectors, text and ids', async () => {
    const t = await loadTokenizer(nano);
    for (const g of JSON.parse(readFileSync(`${own}chat_template_golden.json`, 'utf8')) as readonly {
      messages: Message[];
      add_generation_prompt: boolean;
      rendered: string;
      ids: number[];
    }[]) {
      const rendered = await renderChat(nano, g.messages, t, { addGenerationPrompt: g.add_generation_prompt });
      expect(rendered).toBe(g.rendered);
      expect(t.encode(rendered)).toEqual(g.ids);
    }
  });
  it('makes the prompts that the model was recorded with', async () => {
    const t = await loadTokenizer(nano);
    const lines = readFileSync(`${own}prompts.jsonl`, 'utf8').trim().split('\n');
    for (const p of lines.map(l => JSON.parse(l) as { kind: 'chat' | 'raw'; text: string; prompt_ids: number[] })) {
      const ids =
        p.kind === 'raw'
          ? t.encode(p.text, { addSpecial: true })
          : t.encode(await renderChat(nano, [{ role: 'user', content: p.text }], t, prompt));
      expect(ids).toEqual(p.prompt_ids);
    }
  });
});

// The text expected here is what Jinja2 3.1.6 makes of the template, with trim_blocks and lstrip_blocks as in training.
const features = `{%- set ns = namespace(first=true, text='') -%}
{%- for m in messages if m.role != 'system' %}
  {%- if '</think>' in m['content'] %}{% set ns.text = m.content.split('</think>')[-1] %}{% else %}{% set ns.text = m.content %}{% endif %}
  {% if not ns.first %}
,{% endif %}
{{ loop.index0 }}:{{ ns.text | trim }}
  {%- set ns.first = false %}
{%- endfor %}
{% if tools is defined %}
{{ tools | tojson }}{% endif %}{{ bos_token }}`;

describe('a chat template', () => {
  const messages: readonly Message[] = [
    { role: 'system', content: 'S' },
    { role: 'user', content: ' 你好 ' },
    { role: 'assistant', content: 'because</think> "Hi" ' },
  ];
  it('has the loops, namespaces, strings and white space of Jinja', async () => {
    const tools = [{ name: '查', n: [1, 2.5, true, null], q: '"<>&\'' }];
    expect(await renderTemplate(features, 'x', messages, { bos: '<s>', eos: null }, { ...whole, tools })).toBe(
      '0:你好,1:"Hi"[{"name": "查", "n": [1, 2.5, true, null], "q": "\\"<>&\'"}]<s>',
    );
    expect(await renderTemplate(features, 'x', messages, none, whole)).toBe('0:你好,1:"Hi"');
  });
  it('sees calls, thoughts and the wish to think', async () => {
    const source =
      "{% for m in messages %}{{ m.role }}|{{ m.reasoning_content }}|{% if m.tool_calls %}{% for c in m.tool_calls %}{{ c.id }} {{ c.type }} {{ c['function'].name }} {{ c['function'].arguments }}{% endfor %}{% endif %}{{ m.tool_call_id }};{% endfor %}{{ thinking }}{{ enable_thinking }}";
    const said: readonly Message[] = [
      { role: 'assistant', content: '', reasoning: 'hm', toolCalls: [{ id: 'c1', name: 'f', arguments: '{"a": 1}' }] },
      { role: 'tool', content: '2', toolCallId: 'c1' },
    ];
    expect(await renderTemplate(source, 'x', said, none, thinking)).toBe('assistant|hm|c1 function f {"a": 1};tool||c1;truetrue');
  });
  const write = (file: string, text: string): void => writeFileSync(join(dir, file), text);
  it('is looked for in its own file, then in tokenizer_config.json, then by the kind of model', async () => {
    const ask: readonly Message[] = [{ role: 'user', content: 'a' }];
    expect(hasTemplate(dir)).toBe(false);
    await expect(renderChat(dir, ask, none, prompt)).rejects.toThrow(
      `HK3411  ${dir} has no chat template\n  ${dir}/tokenizer_config.json\nV3.2 and V4 releases describe their prompts in Python instead; hkgai knows those by model_type in config.json.\nUse --raw to continue a text, or add chat_template.jinja.   hkgai explain HK3411`,
    );
    write('config.json', '{"model_type": "deepseek_v4"}');
    expect(await renderChat(dir, ask, none, thinking)).toBe('<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜><think>');
    write('tokenizer_config.json', '{"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "named"}]}');
    expect(await renderChat(dir, ask, none, prompt)).toBe('named');
    write('tokenizer_config.json', '{"chat_template": "plain"}');
    expect(await renderChat(dir, ask, none, prompt)).toBe('plain');
    write('chat_template.jinja', 'own');
    expect(await renderChat(dir, ask, none, prompt)).toBe('own');
    expect(hasTemplate(dir)).toBe(true);
  });
  it('that would be rendered otherwise is refused', async () => {
    await expect(renderTemplate("{{ x.rstrip('\\n') }}", 't.jinja', [], none, whole)).rejects.toThrow(
      "HK4412  the chat template in t.jinja has .rstrip('\\n'), which hkgai would render otherwise than the releases do\n  t.jinja\nA prompt that is nearly right makes a model worse without a sign of it.\nUse --raw to continue a text, or write the template without it.   hkgai explain HK4412",
    );
    expect(await renderTemplate('{{ bos_token.strip( ) }}', 't.jinja', [], { bos: ' b ', eos: null }, whole)).toBe('b');
  });
  it('that raises or does not parse is a refusal with its words', async () => {
    await expect(renderTemplate("{{ raise_exception('no system message') }}", 't.jinja', [], none, whole)).rejects.toThrow(
      'HK3412  the chat template in t.jinja failed: no system message\n  t.jinja\nUse --raw to continue a text, or correct the template.   hkgai explain HK3412',
    );
    await expect(renderTemplate('{% if %}', 't.jinja', [], none, whole)).rejects.toThrow(
      /^HK3412 {2}the chat template in t.jinja failed: /,
    );
  });
});

const turns: readonly Message[] = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: 'Hi' },
  { role: 'assistant', content: '<think>A greeting.</think>Hello!' },
  { role: 'user', content: '食咗飯未？' },
];
const plain = turns.map(m => ({ ...m, content: m.content.replace(/.*<\/think>/, '') }));
const bos = '<｜begin▁of▁sentence｜>';
const eos = '<｜end▁of▁sentence｜>';

describe('the formats of V2, V3, R1 and V3.1, whole', () => {
  it('V2', () => {
    expect(renderNamed('V2', plain, prompt)).toBe(`${bos}Be brief.\n\nUser: Hi\n\nAssistant: Hello!${eos}User: 食咗飯未？\n\nAssistant:`);
    expect(renderNamed('V2', plain.slice(1), whole)).toBe(`${bos}User: Hi\n\nAssistant: Hello!${eos}User: 食咗飯未？\n\n`);
  });
  it('V3', () => {
    expect(renderNamed('V3', plain, prompt)).toBe(
      `${bos}Be brief.<｜User｜>Hi<｜Assistant｜>Hello!${eos}<｜User｜>食咗飯未？<｜Assistant｜>`,
    );
    const call: Message = { role: 'assistant', content: '', toolCalls: [{ name: 'f', arguments: '{"a":1}' }] };
    expect(renderNamed('V3', [plain[1] as Message, call], whole)).toBe(
      `${bos}<｜User｜>Hi<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n\`\`\`json\n{"a":1}\n\`\`\`<｜tool▁call▁end｜><｜tool▁calls▁end｜>${eos}`,
    );
  });
  it('R1 forgets what it thought', () =>
    expect(renderNamed('R1', turns, prompt)).toBe(
      `${bos}Be brief.<｜User｜>Hi<｜Assistant｜>Hello!${eos}<｜User｜>食咗飯未？<｜Assistant｜><think>\n`,
    ));
  it('V3.1 says whether it shall think', () => {
    const said = `${bos}Be brief.<｜User｜>Hi<｜Assistant｜></think>Hello!${eos}<｜User｜>食咗飯未？<｜Assistant｜>`;
    expect(renderNamed('V3.1', turns, prompt)).toBe(`${said}</think>`);
    expect(renderNamed('V3.1', turns, thinking)).toBe(`${said}<think>`);
    const call: Message = { role: 'assistant', content: 'One moment.', toolCalls: [{ name: 'f', arguments: '{"a":1}' }] };
    expect(renderNamed('V3.1', [plain[1] as Message, call], whole)).toBe(
      `${bos}<｜User｜>Hi<｜Assistant｜></think>One moment.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a":1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>${eos}`,
    );
  });
});

const weather = {
  type: 'function',
  function: { name: 'weather', parameters: { type: 'object', properties: { 城市: { type: 'string' } } } },
};
const asked: readonly Message[] = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: '兩個城市嘅天氣？' },
  {
    role: 'assistant',
    content: '等陣。',
    reasoning: 'Two calls.',
    toolCalls: [
      { id: 'a', name: 'weather', arguments: '{"城市": "香港", "days": 3, "exact": 1.50, "more": {"k": [1e2, null, "\\u4f60\\n"]}}' },
      { id: 'b', name: 'weather', arguments: '{"城市": "深圳"}' },
    ],
  },
];
const v4Calls = `等陣。

<｜DSML｜tool_calls>
<｜DSML｜invoke name="weather">
<｜DSML｜parameter name="城市" string="true">香港</｜DSML｜parameter>
<｜DSML｜parameter name="days" string="false">3</｜DSML｜parameter>
<｜DSML｜parameter name="exact" string="false">1.5</｜DSML｜parameter>
<｜DSML｜parameter name="more" string="false">{"k": [100.0, null, "你\\n"]}</｜DSML｜parameter>
</｜DSML｜invoke>
<｜DSML｜invoke name="weather">
<｜DSML｜parameter name="城市" string="true">深圳</｜DSML｜parameter>
</｜DSML｜invoke>
</｜DSML｜tool_calls>${eos}`;

describe("V4's format, whole", () => {
  const two: readonly Message[] = [
    { role: 'user', content: 'Hi' },
    { role: 'assistant', content: 'Hello!', reasoning: 'A greeting.' },
    { role: 'user', content: '1+1?' },
  ];
  it('a conversation', () =>
    expect(renderNamed('V4', plain, prompt)).toBe(
      `${bos}Be brief.<｜User｜>Hi<｜Assistant｜></think>Hello!${eos}<｜User｜>食咗飯未？<｜Assistant｜></think>`,
    ));
  it('thoughts before the last question are dropped, the last are kept', () => {
    const begun = `${bos}<｜User｜>Hi<｜Assistant｜></think>Hello!${eos}<｜User｜>1+1?<｜Assistant｜><think>`;
    expect(renderNamed('V4', two, thinking)).toBe(begun);
    expect(renderNamed('V4', [...two, { role: 'assistant', content: '2', reasoning: 'Sum.' }], wholeThinking)).toBe(
      `${begun}Sum.</think>2${eos}`,
    );
    expect(renderNamed('V4', [...two, { role: 'assistant', content: '2', reasoning: 'Sum.' }], whole)).toBe(
      `${bos}<｜User｜>Hi<｜Assistant｜></think>Hello!${eos}<｜User｜>1+1?<｜Assistant｜></think>2${eos}`,
    );
  });
  it('calls, and results in the order of the calls', () =>
    expect(
      renderNamed(
        'V4',
        [...asked, { role: 'tool', content: '25', toolCallId: 'b' }, { role: 'tool', content: '{"t": 24}', toolCallId: 'a' }],
        prompt,
      ),
    ).toBe(
      `${bos}Be brief.<｜User｜>兩個城市嘅天氣？<｜Assistant｜></think>${v4Calls}<｜User｜><tool_result>{"t": 24}</tool_result>\n\n<tool_result>25</tool_result><｜Assistant｜></think>`,
    ));
  it('offered tools keep all thoughts', () => {
    const options = { ...thinking, tools: [weather], toolsText: 'You may call $1:\n{schemas}\nand no other.\n' };
    const schema = '{"name": "weather", "parameters": {"type": "object", "properties": {"城市": {"type": "string"}}}}';
    expect(renderNamed('V4', two, options)).toBe(
      `${bos}\n\nYou may call $1:\n${schema}\nand no other.\n<｜User｜>Hi<｜Assistant｜><think>A greeting.</think>Hello!${eos}<｜User｜>1+1?<｜Assistant｜><think>`,
    );
  });
  it('reminders, developers and tasks', () => {
    const reminded: readonly Message[] = [
      { role: 'system', content: 'S' },
      { role: 'latest_reminder', content: '2026-02-21' },
      { role: 'developer', content: 'Q' },
    ];
    expect(renderNamed('V4', reminded, thinking)).toBe(`${bos}S<｜latest_reminder｜>2026-02-21<｜User｜>Q<｜Assistant｜><think>`);
    const act: Message = { role: 'user', content: 'Q', task: 'action' };
    expect(renderNamed('V4', [act], prompt)).toBe(`${bos}<｜User｜>Q<｜Assistant｜></think><｜action｜>`);
    expect(renderNamed('V4', [act, { role: 'assistant', content: 'Search' }], whole)).toBe(
      `${bos}<｜User｜>Q<｜Assistant｜></think><｜action｜>Search${eos}`,
    );
    expect(renderNamed('V4', [{ role: 'user', content: 'Q', task: 'query' }], prompt)).toBe(`${bos}<｜User｜>Q<｜query｜>`);
    expect(
      renderNamed(
        'V4',
        [
          { role: 'user', content: 'Q' },
          { role: 'assistant', content: 'A', task: 'title' },
        ],
        whole,
      ),
    ).toBe(`${bos}<｜User｜>Q<｜Assistant｜></think>A${eos}<｜title｜>`);
  });
});

describe("V3.2's format, whole", () => {
  it('a conversation, thinking', () =>
    expect(
      renderNamed(
        'V3.2',
        [...plain.slice(0, 2), { role: 'assistant', content: 'Hello!', reasoning: 'A greeting.' }, ...plain.slice(3)],
        thinking,
      ),
    ).toBe(`${bos}Be brief.<｜User｜>Hi<｜Assistant｜></think>Hello!${eos}<｜User｜>食咗飯未？<｜Assistant｜><think>`));
  it('calls', () =>
    expect(renderNamed('V3.2', asked, wholeThinking)).toBe(
      `${bos}Be brief.<｜User｜>兩個城市嘅天氣？<｜Assistant｜><think>Two calls.</think>${v4Calls.replaceAll('tool_calls', 'function_calls')}`,
    ));
});

describe('what a format leaves open is refused', () => {
  const says = (run: () => string): string => {
    try {
      run();
    } catch (e) {
      expect(e).toBeInstanceOf(Refusal);
      return (e as Refusal).message;
    }
    return 'was rendered';
  };
  const what = (run: () => string): string => says(run).split('\n')[0] as string;
  const user: Message = { role: 'user', content: 'Q' };
  const answer: Message = { role: 'assistant', content: 'A' };
  const call = (text: string): Message => ({ role: 'assistant', content: '', toolCalls: [{ id: 'a', name: 'f', arguments: text }] });
  it('with a reason and a way on', () =>
    expect(says(() => renderNamed('V4', [user, user], prompt))).toBe(
      'HK4411  hkgai does not know how the V4 prompt writes two messages in a row that ask\nA prompt that is nearly right makes a model worse without a sign of it.\nJoin them, or put the answer between them.   hkgai explain HK4411',
    ));
  const unknown = 'HK4411  hkgai does not know how the';
  const cases: readonly (readonly [string, () => string])[] = [
    [`${unknown} V4 prompt writes the tools on offer`, () => renderNamed('V4', [user], { ...prompt, tools: [weather] })],
    [
      `${unknown} V3.2 prompt writes the tools on offer`,
      () => renderNamed('V3.2', [user], { ...prompt, tools: [weather], toolsText: '{schemas}' }),
    ],
    [`${unknown} V3 prompt writes the tools on offer`, () => renderNamed('V3', [user], { ...prompt, tools: [weather] })],
    [
      `${unknown} V3.2 prompt writes tool results`,
      () => renderNamed('V3.2', [user, call('{"a": 1}'), { role: 'tool', content: '' }], prompt),
    ],
    [`${unknown} V3.1 prompt writes tool results`, () => renderNamed('V3.1', [{ role: 'tool', content: '' }], prompt)],
    [`${unknown} V3.2 prompt writes developer messages`, () => renderNamed('V3.2', [{ role: 'developer', content: '' }], prompt)],
    [
      `${unknown} V4 prompt writes earlier developer messages`,
      () => renderNamed('V4', [{ role: 'developer', content: '' }, answer, user], thinking),
    ],
    [
      `${unknown} V4 prompt writes a system message that is not the first`,
      () => renderNamed('V4', [user, { role: 'system', content: '' }], prompt),
    ],
    [`${unknown} V4 prompt writes a call without arguments`, () => renderNamed('V4', [user, call('{}')], whole)],
    [`${unknown} V4 prompt writes two answers in a row`, () => renderNamed('V4', [user, answer, answer], whole)],
    [`${unknown} V4 prompt writes a prompt for an answer where nothing asks`, () => renderNamed('V4', [user, answer], prompt)],
    [`${unknown} V4 prompt writes an answer to the task query`, () => renderNamed('V4', [{ ...user, task: 'query' }, answer], prompt)],
    [`${unknown} R1 prompt writes tool calls`, () => renderNamed('R1', [user, call('{"a": 1}')], prompt)],
    [
      'HK2401  message 2 does not fit the V4 prompt: the arguments of f are not JSON: "}" where a key was expected',
      () => renderNamed('V4', [user, call('{"a": 1,}')], whole),
    ],
    [
      'HK2401  message 2 does not fit the V4 prompt: the arguments of f are not an object',
      () => renderNamed('V4', [user, call('[1]')], whole),
    ],
    [
      'HK2401  message 3 does not fit the V4 prompt: no call before it has the id x',
      () => renderNamed('V4', [user, call('{"a": 1}'), { role: 'tool', content: '', toolCallId: 'x' }], prompt),
    ],
    [
      'HK2401  message 2 does not fit the V4 prompt: no call stands before it',
      () => renderNamed('V4', [user, { role: 'tool', content: '' }], prompt),
    ],
    [
      'HK2401  message 1 does not fit the V4 prompt: the task cook is none of action, query, authority, domain, read_url',
      () => renderNamed('V4', [{ ...user, task: 'cook' }], prompt),
    ],
    [
      'HK2401  message 1 does not fit the V3 prompt: it has no role developer',
      () => renderNamed('V3', [{ role: 'developer', content: '' }], prompt),
    ],
  ];
  for (const [message, run] of cases) it(message, () => expect(what(run)).toBe(message));
});

describe("JSON as Python's json.dumps(ensure_ascii=False) writes it", () => {
  const dumps = (text: string): string => pythonJson(parseJson(text), text);
  it('separators, order, escapes', () =>
    expect(dumps('{"b":[1,2,{}],"10":"\\u00e9\\u2028\\u007f\\/","a":"\\u0001\\t\\"\\\\","":[]}')).toBe(
      '{"b": [1, 2, {}], "10": "é\u2028\u007f/", "a": "\\u0001\\t\\"\\\\", "": []}',
    ));
  it('numbers as they were written: integers of any size, floats by repr()', () =>
    expect(dumps('[5,5.0,-0,-0.0,12345678901234567890123,1e2,1E-5,1e16,123456789012345678.0,0.0001,1.5e300,true,false,null]')).toBe(
      '[5, 5.0, 0, -0.0, 12345678901234567890123, 100.0, 1e-05, 1e+16, 1.2345678901234568e+17, 0.0001, 1.5e+300, true, false, null]',
    ));
  it('floats', () =>
    expect([0.1, -2.5, 1e15, 2 ** 53, 1.7976931348623157e308, 5e-324, 123.456, 100].map(pythonFloat)).toEqual([
      '0.1',
      '-2.5',
      '1000000000000000.0',
      '9007199254740992.0',
      '1.7976931348623157e+308',
      '5e-324',
      '123.456',
      '100.0',
    ]));
});
