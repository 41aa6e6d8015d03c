/**
 * What context-guru takes for one request, and how many tokens it saves: `node bench/guru.ts`.
 *
 * Every kind of output is repeated or cut to 200 KB; the first time it is shortened, at later turns it is found.
 */
import { contextGuru } from "../src/plugins/context-guru/plugin.ts";
import { inferenceParser } from "../src/plugins/parsers/inference.ts";
import type { RequestContext } from "../src/pipeline/context.ts";
import { message, PluginBench } from "../test/support/plugin-bench.ts";
import {
  apiRows,
  gitDiff,
  outputs,
  requestsWith,
  serviceLog,
  sourceCode,
  testRun,
  webPage,
} from "../test/support/tool-outputs.ts";

const chars = 204_800;
const rounds = 100;
const times = (text: string): string =>
  `${text}\n`.repeat(Math.ceil(chars / text.length)).slice(0, chars);
const large: Readonly<Record<string, string>> = {
  "JSON of an API": apiRows(520),
  "log of a service": serviceLog(3_100).slice(0, chars),
  "run of tests": times(testRun()),
  diff: times(gitDiff()),
  "web page": times(webPage()),
  "source code": sourceCode(2_100).slice(0, chars),
};

function asked(text: string): RequestContext {
  const { path, body } = requestsWith(text)["openai chat"] ?? { path: "", body: {} };
  const context = message({ path, body });
  void inferenceParser.create({ endpoints: [] }, new PluginBench().deps).onRequest?.(context);
  return context;
}

/** The best and the median. */
const shown = (values: number[]): string => {
  const sorted = values.toSorted((a, b) => a - b);
  return [sorted[0] ?? 0, sorted[Math.floor(sorted.length / 2)] ?? 0]
    .map((ms) => ms.toFixed(2).padStart(6))
    .join(" ");
};
const tokens = (bytes: number): string => String(Math.ceil(bytes / 4)).padStart(7);

process.stdout.write("200 KB, ms          first turn    later turns  (best and median)\n");
for (const [name, text] of Object.entries(large)) {
  const first: number[] = [];
  const later: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const plugin = new PluginBench().create(contextGuru, { without_session: "caller" });
    for (const took of [first, later]) {
      const context = asked(text);
      const began = performance.now();
      const said = plugin.onRequest?.(context);
      took.push(performance.now() - began);
      if (said instanceof Promise) throw new Error("it waited");
    }
  }
  process.stdout.write(`${name.padEnd(18)}${shown(first)} ${shown(later)}\n`);
}

process.stdout.write("\nrequest with        before    after tokens\n");
for (const [name, text] of Object.entries(outputs)) {
  const context = asked(text);
  const before = context.body?.length ?? 0;
  void new PluginBench().create(contextGuru, { without_session: "caller" }).onRequest?.(context);
  process.stdout.write(
    `${name.padEnd(18)}${tokens(before)}  ${tokens(context.body?.length ?? 0)}\n`,
  );
}
