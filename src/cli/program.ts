// The verbs and their options; each verb's work is in a file of its own and loaded when asked for.
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { Refusal } from '../../ir/problem.js';
import { usage } from './problems.js';

const whole = (text: string): number => {
  const n = Number(text);
  if (!Number.isSafeInteger(n) || n < 1) throw new InvalidArgumentError('A whole number above 0 is expected.');
  return n;
};
const real = (text: string): number => {
  const n = Number(text);
  if (text.trim() === '' || !Number.isFinite(n) || n < 0) throw new InvalidArgumentError('A number of 0 or more is expected.');
  return n;
};
const zeroOrMore = (text: string): number => (text === '0' ? 0 : whole(text));
const bits = (text: string): number => {
  const n = Number(text.replace(/bpw$/, ''));
  if (!(n > 0 && n <= 32)) throw new InvalidArgumentError('Bits a weight are expected, as 4.5.');
  return n;
};
const memory = (text: string): number => {
  const m = /^(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?$/i.exec(text);
  if (!m) throw new InvalidArgumentError('A size is expected, as 512M or 2G.');
  return Math.floor(Number(m[1]) * 1024 ** ['', 'k', 'm', 'g', 't'].indexOf((m[2] as string).toLowerCase()));
};
const each = (text: string, before: readonly string[] = []): readonly string[] => [...before, text];
const joined = (text: string, before?: string): string => (before === undefined ? text : `${before},${text}`);
const list = (text: string, before: readonly string[] = []): readonly string[] => [...before, ...text.split(',').filter(t => t !== '')];

export async function run(args: readonly string[], version: string): Promise<number> {
  let code = 0;
  const program = new Command('hkgai')
    .description(
      'Compile DeepSeek-style checkpoints into programs and checkpoints for the chips at hand.\nNeeds Node alone; no network, no Python, no device.',
    )
    .version(version, '-V, --version')
    .showSuggestionAfterError()
    .exitOverride()
    .configureOutput({ writeErr: text => void text, outputError: () => {} });
  const json = new Option('--json', 'one JSON document on stdout');
  const progress = new Option('--progress <form>', 'progress on stderr').choices(['auto', 'tty', 'plain', 'json', 'none']).default('auto');
  const quiet = new Option('-q, --quiet', 'say nothing but errors');

  program
    .command('compile')
    .description('compile a checkpoint directory into a bundle')
    .argument('<model>', 'directory with config.json and safetensors')
    .requiredOption('-o, --out <dir>', 'where the bundle goes; must not exist, or be an earlier bundle with --force')
    .option('-t, --target <name>', 'target[:chip], may be given more than once', list)
    .option('--quantise <recipe>', 'recipe: none, bf16, int8, int4, w8a8, w4a16, … (hkgai targets lists them), or a JSON file')
    .option('--runtime <name>', 'engine that reads the directory, name or name@version: vllm, sglang, vllm-ascend@0.23, llama.cpp, …')
    .option('--format <name>', "form of the engine's directory, where an engine reads several")
    .addOption(new Option('--search <how>', 'how scales are found').choices(['absmax', 'mse', 'gptq']))
    .option(
      '--calibration <file>',
      'text that the model is run over, so that columns count by how much comes in there; or the calibration.safetensors of a bundle',
    )
    .option('--budget <bpw>', 'bits a weight that all linears may take, as 4.5 or 4.5bpw; storages are chosen by measured error', bits)
    .option('--gate <file>', 'refuse (exit 6) when an error figure is worse than in this baseline')
    .option('--baseline <file>', 'write the error figures as a baseline')
    .option(
      '--parallel <way>',
      'devices that it is to run on, as tp=8 or dp=16,ep=16,nodes=2[,redundant=16], or a row of a plan, PLAN.json#2: launch files, and weights in files by rank of their experts',
    )
    .option('--served-name <name>', 'with --parallel: the name that requests call the model by')
    .option('--port <n>', 'with --parallel: port of the HTTP server (8000)', whole)
    .option('--image <reference>', 'with --parallel: container image of the engine; a documented one, or a blank, where not given')
    .addOption(
      new Option('--model-source <kind>', 'with --parallel: where a pod finds the model (pvc)').choices(['image', 'pvc', 'hostpath']),
    )
    .option(
      '--experts <file[:labels]>',
      'with --parallel: routing trace (run --trace), counts or a placement; experts are renumbered so that ranks have even loads',
    )
    .addOption(
      new Option('--experts-form <form>', 'say a placement by new numbers for experts, or by maps for engines alone').choices([
        'renumber',
        'map',
      ]),
    )
    .option('--materialise', 'with --parallel: also a weight file for each rank, with a proof that they make the whole; engines need none')
    .option('--uneven', 'with --materialise: shares may differ, and what cannot be cut is whole on each rank')
    .option('-j, --jobs <n>', 'threads that convert weights', zeroOrMore)
    .option('--max-memory <size>', 'memory the compile may take, as 512M or 2G', memory)
    .option('--restart', 'discard the unfinished work of another command')
    .option('--no-cache', 'do not use what was hashed and made before')
    .option('--dry-run', 'say what would be written, and how long it takes; write nothing')
    .addOption(new Option('--state <storage>', 'storage of the caches').choices(['f32', 'bf16', 'f16']).default('f32'))
    .addOption(new Option('--mtp <what>', 'multi-token prediction blocks').choices(['keep', 'quantise', 'drop']))
    .addOption(new Option('--weights <how>', 'unchanged weight files in the bundle').choices(['auto', 'link', 'copy']).default('auto'))
    .option('--context <n>', 'positions a sequence may hold', whole)
    .option('--sequences <n>', 'sequences held at once', whole, 4)
    .option('--chunk <n>', 'rows of one call, a prompt is read in chunks of this', whole, 128)
    .option('--dump <what>', 'print the IR after passes: all, changed, or a pass name')
    .option('--stop-after <pass>', 'stop after this pass and write nothing')
    .option('--force', 'replace an earlier bundle at --out')
    .option('--allow-phantom-keys', 'accept index entries that no shard holds')
    .addOption(json)
    .addOption(progress)
    .addOption(quiet)
    .action(async (model, options) => {
      code = await (await import('./compile-command.js')).compileCommand(model, options, version);
    });

  program
    .command('plan')
    .description('what compile would write: bytes, memory, disk, time; or with --devices how it would stand on devices; nothing is written')
    .argument('<model>', 'directory with config.json and safetensors; with --devices headers or config.json alone will do')
    .option('-t, --target <name>', 'target[:chip], may be given more than once', list)
    .option('--quantise <recipe>', 'recipe by name, or a JSON file; with --compare also target:chip=recipe, with commas between', joined)
    .option('--runtime <name>', 'engine that reads the directory, name or name@version')
    .option('--format <name>', "form of the engine's directory")
    .addOption(new Option('--search <how>', 'how scales are found').choices(['absmax', 'mse', 'gptq']))
    .addOption(new Option('--mtp <what>', 'multi-token prediction blocks').choices(['keep', 'quantise', 'drop']))
    .option('--budget <bpw>', 'bits a weight that all linears may take', bits)
    .option('-j, --jobs <n>', 'threads that convert weights', zeroOrMore)
    .option('--max-memory <size>', 'memory the compile may take', memory)
    .option('--allow-phantom-keys', 'accept index entries that no shard holds')
    .option('--devices <n>', 'devices (dies, not packages) to spread the model over: lists the ways, what each rank holds, how fast', whole)
    .option('--nodes <n>', 'nodes that they stand on; by the chip where not said', whole)
    .option('--topology <file>', 'devices and links as a JSON file, in place of what is known of the chip')
    .option('--parallel <way>', 'one way alone: tp=8,dp=2,pp=1,ep=16, or a row of a saved plan, PLAN.json#2')
    .option('--compare <chips...>', 'the same model on several chips, target:chip each, on --devices or on the fewest that hold it')
    .addOption(new Option('--goal <what>', 'what is best').choices(['latency', 'throughput', 'devices']))
    .option('--context <n>', 'positions of a sequence', whole)
    .option('--prompt <n>', 'of them, tokens of the prompt', whole)
    .option('--batch <n>', 'sequences at once over all devices', whole)
    .addOption(new Option('--kv <storage>', 'storage of the caches').choices(['bf16', 'fp8']))
    .option('--redundant <n>', 'replicas of experts beyond one each', zeroOrMore)
    .option('--drafts <proposed:taken>', 'tokens that the MTP block proposes a step, and how many are taken on the mean, as 1:0.7')
    .option('--imbalance <x>', 'tokens of the busiest rank of experts over the mean, as a placement says', real)
    .option('--power <watts>', 'of a device, for energy, in place of what its file says; a number, or target:chip=number', list)
    .option('--price <amount>', 'of a device and hour, for cost; a number, or target:chip=number', list)
    .option('--rows <n>', 'rows of the table, and of --json where said', whole)
    .addOption(json)
    .action(async (model, options) => {
      code = await (await import('./plan-command.js')).planAction(model, options, version);
    });

  program
    .command('diff')
    .description('what differs between two outputs: tensors, forms, errors, files')
    .argument('<a>', 'bundle or model directory')
    .argument('<b>', 'bundle or model directory')
    .option('--values', 'compare the values of tensors whose bytes differ')
    .addOption(json)
    .action(async (a, b, options) => {
      code = await (await import('./diff-command.js')).diffCommand(a, b, options);
    });

  program
    .command('run')
    .description('talk to a model: text in, text out')
    .argument('<model>', 'a compiled bundle or a checkpoint directory')
    .argument('[prompt...]', 'what to say; read from stdin when absent')
    .option('--raw', 'continue the text as it is, without the chat template')
    .option('--system <text>', 'system message')
    .option('--think', 'ask a reasoning model to think first')
    .option('-n, --max-tokens <n>', 'tokens to generate at most', whole, 256)
    .option('--temperature <t>', '0 is greedy', real, 0)
    .option('--top-p <p>', 'sample from the smallest set of tokens with this probability', real, 1)
    .option('--seed <n>', 'of the sampling', whole, 1)
    .option('--threads <n>', 'threads of the native program', whole)
    .addOption(new Option('--with <engine>', 'what runs the model').choices(['auto', 'native', 'reference']).default('auto'))
    .option('--chat', 'keep talking: each line of stdin is a turn')
    .option('--trace <file>', 'read texts, or the prompt, and count which experts their tokens choose; adds to the file')
    .option('--text <file[:label]>', 'with --trace: a UTF-8 text, each line a sequence; labels keep languages apart; more than once', each)
    .addOption(json)
    .addOption(quiet)
    .action(async (model, prompt, options) => {
      code = await (await import('./run-command.js')).runCommand(model, prompt, options);
    });

  program
    .command('inspect')
    .description('what a checkpoint, a config.json or a bundle holds')
    .argument('<model>', 'checkpoint directory (headers alone will do), config.json, or bundle')
    .option('--tensors [pattern]', 'list tensors, those whose name holds the pattern')
    .option('--ir', 'print the graph as IR text')
    .option('--kernels', 'kernels of a token and the bytes they move, every op apart and fused')
    .option('--layer <n>', 'with --ir or --rank: only this layer', (t: string) => (t === '0' ? 0 : whole(t)))
    .option(
      '--parallel <numbers>',
      'what ranks hold when the model is dealt to several: tp=2,dp=2,pp=1,ep=4, or a row of a plan, PLAN.json#2',
    )
    .option('--rank <n>', "with --parallel: print this rank's graph as IR text", (t: string) => (t === '0' ? 0 : whole(t)))
    .option('--uneven', 'with --parallel: shares may differ, and what cannot be cut stays whole')
    .option('--allow-phantom-keys', 'accept index entries that no shard holds')
    .addOption(json)
    .action(async (model, options) => {
      code = await (await import('./inspect-command.js')).inspectCommand(model, options);
    });

  program
    .command('verify')
    .description("check a bundle: its files, each engine's rules, and the native program against the reference, layer by layer")
    .argument('<model>', 'compiled bundle, checkpoint directory, or with --engine any directory of weights')
    .option('--engine <target>', "hold the directory against the rules of this target's engines alone, target[:chip]")
    .option('--format <name>', 'with --engine: the form it is to be in; else told from what lies there')
    .option('--runtime <name>', 'with --engine: the engine, name or name@version')
    .option('--golden <file>', 'compare with recorded logits (seqN.input_ids, seqN.logits, … in a safetensors file)')
    .option('--tolerance <t>', 'largest difference of a logit', real, 2e-4)
    .addOption(new Option('--with <engine>', 'what is checked').choices(['auto', 'native', 'reference']).default('auto'))
    .option('--emulate', 'run the self-tests of programs for chips that are not here, under their emulators')
    .addOption(json)
    .addOption(progress)
    .addOption(quiet)
    .action(async (model, options) => {
      code = await (await import('./verify-command.js')).verifyCommand(model, options);
    });

  program
    .command('doctor')
    .description('what this machine has: compiler, vector units, memory, disk')
    .addOption(json)
    .action(async options => {
      code = await (await import('./doctor-command.js')).doctorCommand(options, version);
    });

  program
    .command('targets')
    .description('the targets and chips this version knows, and what was proved on them')
    .argument('[target]', 'one of them; with its chip, as cuda:h20, every figure of it with its source')
    .addOption(json)
    .action(async (target, options) => {
      code = await (await import('./targets-command.js')).targetsCommand(target, options);
    });

  program
    .command('explain')
    .description('an error code at length, or where a tensor of a model goes')
    .argument('[code]', 'HKnnnn, or a tensor name with --model')
    .option('--model <dir>', 'checkpoint directory')
    .addOption(json)
    .action(async (what, options) => {
      code = await (await import('./explain-command.js')).explainCommand(what, options);
    });

  try {
    if (args.length === 0) {
      program.outputHelp();
      return 2;
    }
    await program.parseAsync(args, { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return 0;
      throw new Refusal([usage(error.message.replace(/^error: /, ''))]);
    }
    throw error;
  }
  return code;
}
