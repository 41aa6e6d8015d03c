/**
 * `node bench/mcp.ts`: what mcp-parser and tool-policy cost: one call of 4 KiB, a streamed answer, one frame's delay.
 *
 * The proxy runs from src/ as a process; origin, client and bench share this one. Rounds are interleaved.
 */
import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { mcpParser } from "../src/plugins/parsers/mcp.ts";
import { toolPolicy } from "../src/plugins/tool-policy/plugin.ts";
import { message, PluginBench } from "../test/support/plugin-bench.ts";
import { ProxyProcess, settings } from "../test/support/proxy.ts";

const rounds = 5;
const config = {
  servers: [
    {
      name: "bench",
      rules: [
        {
          name: "pages",
          tools: ["fetch_url"],
          arguments: {
            url: { url: { hosts: ["api.weather.gov"] } },
            note: { max_length: 8000 },
            tag: { pattern: "[a-z]+" },
          },
        },
        { name: "stream", tools: ["stream"] },
      ],
    },
  ],
};

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

const quantile = (values: readonly number[], part: number): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length * part)] ?? Number.NaN;

/** Microseconds to parse and judge one tools/call of 4 KiB, from bytes to verdict. */
async function judging(schema: boolean): Promise<number> {
  const bench = new PluginBench();
  const parser = bench.create(mcpParser, {});
  const rule = schema
    ? {
        ...config.servers[0]?.rules[0],
        schema: { type: "object", properties: { note: { type: "string" } }, required: ["url"] },
      }
    : config.servers[0]?.rules[0];
  const policy = bench.create(toolPolicy, { servers: [{ name: "bench", rules: [rule] }] });
  const note = Array.from(
    { length: 60 },
    (_, at) => `line ${at}: some "text" of a note, with words.`,
  );
  const body = JSON.stringify({
    jsonrpc: "2.0",
    id: 1,
    method: "tools/call",
    params: {
      name: "fetch_url",
      arguments: {
        url: "https://api.weather.gov/points/39.7,-97.0",
        tag: "weather",
        note: note.join("\n").slice(0, 3000),
        list: Array.from({ length: 40 }, (_, at) => ({ key: `k${at}`, value: at })),
      },
    },
  });
  const times: number[] = [];
  for (let at = 0; at < 6_000; at += 1) {
    const context = message({
      to: "mcp.example:80",
      path: "/mcp",
      headers: { "Content-Type": "application/json" },
      body: Buffer.from(body),
    });
    const startedAt = performance.now();
    await parser.onRequest?.(context);
    const decision = await policy.onRequest?.(context);
    const took = performance.now() - startedAt;
    if (decision?.action !== "allow") throw new Error(JSON.stringify(decision));
    if (at >= 2_000) times.push(took * 1_000);
  }
  process.stdout.write(
    `  body of ${body.length} bytes, p99 ${quantile(times, 0.99).toFixed(0)} µs\n`,
  );
  return median(times);
}

const frameOf = (at: number, size: number): string =>
  `event: message\nid: ${at}\ndata: ${JSON.stringify({
    jsonrpc: "2.0",
    method: "notifications/progress",
    params: { progressToken: 1, progress: at, message: "x".repeat(size) },
  })}\n\n`;

const frames = 40_000;
const bulk = Buffer.from(Array.from({ length: 100 }, (_, at) => frameOf(at, 200)).join(""));

/** Streams as fast as it is read, or one frame in five milliseconds with the time in it. */
const origin = createServer((incoming: IncomingMessage, response: ServerResponse) => {
  incoming.resume();
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  if (incoming.headers["x-pace"] === undefined) pour(response);
  else drip(response);
});

function pour(response: ServerResponse): void {
  let left = frames / 100;
  const go = (): void => {
    while (left > 0) {
      left -= 1;
      if (!response.write(bulk)) {
        response.once("drain", go);
        return;
      }
    }
    response.end();
  };
  go();
}

function drip(response: ServerResponse): void {
  let at = 0;
  const timer = setInterval(() => {
    at += 1;
    response.write(frameOf(performance.now(), 20));
    if (at < 100) return;
    clearInterval(timer);
    response.end();
  }, 5);
}

const call = JSON.stringify({
  jsonrpc: "2.0",
  id: 1,
  method: "tools/call",
  params: { name: "stream", arguments: {} },
});

function open(port: number, url: string, pace: boolean): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const headers = {
      "Content-Type": "application/json",
      Accept: "text/event-stream",
      Host: new URL(url).host,
      ...(pace ? { "X-Pace": "1" } : {}),
    };
    const options = { host: "127.0.0.1", port, method: "POST", path: url, headers };
    request(options, resolve).once("error", reject).end(call);
  });
}

async function throughput(port: number, url: string): Promise<number> {
  const startedAt = performance.now();
  const answer = await open(port, url, false);
  let bytes = 0;
  for await (const chunk of answer) bytes += (chunk as Buffer).length;
  if (bytes !== (bulk.length * frames) / 100) throw new Error(`${bytes} bytes`);
  return bytes / 1_000 / (performance.now() - startedAt);
}

async function delays(port: number, url: string): Promise<number[]> {
  const answer = await open(port, url, true);
  const seen: number[] = [];
  for await (const chunk of answer) {
    const now = performance.now();
    for (const [, sentAt] of String(chunk).matchAll(/^id: ([\d.]+)$/gm))
      seen.push(now - Number(sentAt));
  }
  return seen;
}

process.stdout.write(`parse and judge: ${(await judging(false)).toFixed(1)} µs\n`);
process.stdout.write(`with a schema as well: ${(await judging(true)).toFixed(1)} µs\n`);

await new Promise<void>((resolve) => origin.listen(0, "127.0.0.1", resolve));
const url = `http://127.0.0.1:${(origin.address() as AddressInfo).port}/mcp`;
const chains: Readonly<Record<string, readonly unknown[]>> = {
  "no plugin": [],
  "mcp-parser": ["mcp-parser"],
  "mcp-parser and tool-policy": ["mcp-parser", { name: "tool-policy", config }],
};
const running = new Map<string, ProxyProcess>();
for (const [name, plugins] of Object.entries(chains)) {
  running.set(name, await ProxyProcess.start(settings({ pipeline: { outbound: { plugins } } })));
}
const rates = new Map<string, number[]>();
const late = new Map<string, number[]>();
for (let round = 0; round <= rounds; round += 1) {
  for (const [name, proxy] of running) {
    const rate = await throughput(proxy.forward.port, url);
    const delay = await delays(proxy.forward.port, url);
    if (round === 0) continue;
    rates.set(name, [...(rates.get(name) ?? []), rate]);
    late.set(name, [...(late.get(name) ?? []), ...delay]);
  }
}
const base = median(rates.get("no plugin") ?? []);
for (const name of running.keys()) {
  const rate = median(rates.get(name) ?? []);
  const delay = late.get(name) ?? [];
  process.stdout.write(
    `${name}: ${rate.toFixed(0)} MB/s (${(rate / base).toFixed(2)} of none), a frame's delay p50 ${median(delay).toFixed(2)} ms, p99 ${quantile(delay, 0.99).toFixed(2)} ms\n`,
  );
}
for (const proxy of running.values()) await proxy.close();
origin.close();
