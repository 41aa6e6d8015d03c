/**
 * `node bench/stream.ts`: what parsing a streamed answer of a language model costs, in throughput and in delay per event.
 *
 * One process is origin and client, so that both read one clock; each proxy is `node dist/main.js` in a process of its own.
 * Rounds are interleaved and medians are shown.
 */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const rounds = Number(process.argv[2] ?? 7);
const burstEvents = 20_000;
const pacedEvents = 400;
const pacedIntervalMs = 2;

const words = "the quick brown fox jumps over the lazy dog and then some more of the same ".slice(
  0,
  60,
);

function event(at: number): string {
  const chunk = {
    id: "chatcmpl-0123456789",
    object: "chat.completion.chunk",
    created: at,
    model: "gpt-4o",
    choices: [{ index: 0, delta: { content: words }, finish_reason: null }],
  };
  return `data: ${JSON.stringify(chunk)}\n\n`;
}

/** Streams at once, or one event at a time with the moment at which it was written. */
const origin = createServer((incoming, response) => {
  incoming.resume();
  incoming.on("end", () => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    if (incoming.url?.startsWith("/burst") === true) {
      let left = burstEvents;
      const go = (): void => {
        while (left > 0) {
          left -= 1;
          if (!response.write(event(left))) {
            response.once("drain", go);
            return;
          }
        }
        response.end();
      };
      go();
      return;
    }
    let left = pacedEvents;
    const timer = setInterval(() => {
      left -= 1;
      const now = Math.round(performance.now() * 1_000);
      if (left < 0) {
        clearInterval(timer);
        response.end();
      } else response.write(event(now));
    }, pacedIntervalMs);
  });
});

interface Proxy {
  readonly name: string;
  readonly child: ChildProcess;
  readonly port: number;
}

async function start(name: string, plugins: readonly string[], directory: string): Promise<Proxy> {
  const file = join(directory, `${name}.json`);
  const config = {
    listener: {
      roles: ["forward"],
      forward_proxy_addr: "127.0.0.1:0",
      session_api_addr: "127.0.0.1:0",
      health_addr: "127.0.0.1:0",
    },
    stats: { address: "127.0.0.1:0" },
    egress: { allow_ips: ["127.0.0.0/8"] },
    pipeline: { outbound: { plugins } },
  };
  writeFileSync(file, JSON.stringify(config));
  const program = fileURLToPath(new URL("../dist/main.js", import.meta.url));
  const child = spawn(process.execPath, [program, "--config", file], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  const port = await new Promise<number>((resolve, reject) => {
    child.once("exit", () => reject(new Error(`${name} ended; is dist/ built?`)));
    createInterface({ input: child.stderr }).on("line", (line) => {
      if (!line.includes('"serving"')) return;
      const { addresses } = JSON.parse(line) as { addresses: { forward: { port: number } } };
      resolve(addresses.forward.port);
    });
  });
  return { name, child, port };
}

const body = JSON.stringify({
  model: "gpt-4o",
  stream: true,
  messages: [{ role: "user", content: "tell me a story" }],
});

/** Calls through the proxy; `onChunk` hears of the answer's bytes as they come. */
function call(proxy: Proxy, path: string, onChunk: (chunk: Buffer) => void): Promise<void> {
  const { port } = origin.address() as AddressInfo;
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        host: "127.0.0.1",
        port: proxy.port,
        method: "POST",
        path: `http://127.0.0.1:${port}${path}/v1/chat/completions`,
        headers: { host: `127.0.0.1:${port}`, "content-type": "application/json" },
      },
      (response) => {
        if (response.statusCode !== 200) reject(new Error(`answered ${response.statusCode}`));
        response.on("data", onChunk).on("end", resolve).on("error", reject);
      },
    );
    outgoing.on("error", reject).end(body);
  });
}

async function burst(proxy: Proxy): Promise<number> {
  let bytes = 0;
  const startedAt = performance.now();
  await call(proxy, "/burst", (chunk) => (bytes += chunk.length));
  const seconds = (performance.now() - startedAt) / 1_000;
  if (bytes < burstEvents * 100) throw new Error("the stream is not whole");
  return burstEvents / seconds;
}

/** Milliseconds from the write at the origin to the bytes at the client, per event. */
async function paced(proxy: Proxy): Promise<number[]> {
  const delays: number[] = [];
  await call(proxy, "/paced", (chunk) => {
    const now = performance.now();
    for (const [, at] of chunk.toString("latin1").matchAll(/"created":(\d+)/g)) {
      delays.push(now - Number(at) / 1_000);
    }
  });
  return delays;
}

const quantile = (values: readonly number[], share: number): number =>
  values.toSorted((a, b) => a - b)[Math.floor((values.length - 1) * share)] ?? Number.NaN;

const directory = mkdtempSync(join(tmpdir(), "authbridge-stream-"));
await new Promise<void>((resolve) => origin.listen(0, "127.0.0.1", resolve));
const proxies: Proxy[] = [];
try {
  proxies.push(await start("unparsed", [], directory));
  proxies.push(await start("parsed", ["inference-parser"], directory));
  proxies.push(
    await start("three parsers", ["mcp-parser", "a2a-parser", "inference-parser"], directory),
  );
  const rates = new Map(proxies.map(({ name }) => [name, [] as number[]]));
  const delays = new Map(proxies.map(({ name }) => [name, [] as number[]]));
  for (const proxy of proxies) await burst(proxy);
  for (let round = 0; round < rounds; round += 1) {
    for (const proxy of proxies) {
      rates.get(proxy.name)?.push(await burst(proxy));
      delays.get(proxy.name)?.push(...(await paced(proxy)));
    }
  }
  const base = quantile(rates.get("unparsed") ?? [], 0.5);
  process.stdout.write("| chain | events/s | of unparsed | delay p50 ms | p99 ms |\n");
  process.stdout.write("| --- | --- | --- | --- | --- |\n");
  for (const { name } of proxies) {
    const rate = quantile(rates.get(name) ?? [], 0.5);
    const late = delays.get(name) ?? [];
    const figures = [
      String(Math.round(rate)),
      `${Math.round((rate / base) * 100)} %`,
      quantile(late, 0.5).toFixed(2),
      quantile(late, 0.99).toFixed(2),
    ];
    process.stdout.write(`| ${name} | ${figures.join(" | ")} |\n`);
  }
} finally {
  for (const { child } of proxies) child.kill();
  origin.close();
  origin.closeAllConnections();
  rmSync(directory, { recursive: true });
}
