/**
 * `node bench/events.ts [EVENTS]`: what so many session events take in the memory of a running proxy.
 *
 * Requests to a model, with 2 KiB of messages each, pass through a proxy that parses them and keeps their events without
 * their bodies. RSS does not fall back after a peak in Node, so the same traffic is also sent through a proxy that keeps no
 * events: the difference is what the events take.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePorts } from "./stage.ts";

const events = Number(process.argv[2] ?? 100_000);
const concurrency = 32;
const main = join(import.meta.dirname, "..", "dist", "main.js");
const question = JSON.stringify({
  model: "model-1",
  messages: [{ role: "user", content: "x".repeat(2_048) }],
});
const answer = JSON.stringify({
  model: "model-1",
  choices: [{ message: { role: "assistant", content: "y".repeat(512) }, finish_reason: "stop" }],
  usage: { prompt_tokens: 500, completion_tokens: 100, total_tokens: 600 },
});
const agent = new http.Agent({ keepAlive: true, maxSockets: concurrency });

interface Seen {
  readonly rssMb: number;
  readonly kept: number;
}

async function text(port: number, path: string): Promise<string> {
  return (await fetch(`http://127.0.0.1:${port}${path}`)).text();
}

function send(proxy: number, origin: number, number: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const path = `http://127.0.0.1:${origin}/v1/chat/completions?n=${number}`;
    const headers = {
      host: `127.0.0.1:${origin}`,
      "content-type": "application/json",
      "content-length": question.length,
    };
    const request = http.request(
      { port: proxy, path, method: "POST", agent, headers },
      (response) => {
        response.resume().on("end", () => {
          if (response.statusCode === 200) resolve();
          else reject(new Error(`answered ${response.statusCode}`));
        });
      },
    );
    request.on("error", reject);
    request.end(question);
  });
}

async function run(isEnabled: boolean, origin: number): Promise<Seen> {
  const [proxy = 0, session = 0, health = 0, stats = 0] = await freePorts(4);
  const directory = mkdtempSync(join(tmpdir(), "authbridge-events-"));
  const file = join(directory, "proxy.yaml");
  const settings = {
    listener: {
      roles: ["forward"],
      forward_proxy_addr: `127.0.0.1:${proxy}`,
      session_api_addr: `127.0.0.1:${session}`,
      health_addr: `127.0.0.1:${health}`,
    },
    stats: { address: `127.0.0.1:${stats}` },
    egress: { allow_ips: ["127.0.0.0/8"] },
    session: { enabled: isEnabled, bodies: "off", max_events: events, max_bytes: "1GiB" },
    pipeline: { outbound: { plugins: ["inference-parser"] } },
  };
  writeFileSync(file, JSON.stringify(settings));
  const child: ChildProcess = spawn(process.execPath, [main, "--config", file], {
    stdio: "ignore",
  });
  try {
    for (let ready = false; !ready;) {
      ready = await text(health, "/readyz").then(
        (body) => body === "",
        () => false,
      );
    }
    let next = 0;
    await Promise.all(
      Array.from({ length: concurrency }, async () => {
        while (next < events / 2) await send(proxy, origin, next++);
      }),
    );
    const metrics = await text(stats, "/metrics");
    const rss = /^process_resident_memory_bytes (\S+)$/m.exec(metrics)?.[1];
    const sessions = isEnabled ? await text(session, "/v1/sessions") : "";
    const kept = /"eventCount":(\d+)/.exec(sessions)?.[1];
    return { rssMb: Number(rss) / 1e6, kept: Number(kept ?? 0) };
  } finally {
    child.kill("SIGKILL");
    rmSync(directory, { recursive: true, force: true });
  }
}

const origin = http.createServer((request, response) => {
  request.resume().on("end", () => {
    response.writeHead(200, { "content-type": "application/json" }).end(answer);
  });
});
await new Promise<void>((resolve) => origin.listen(0, "127.0.0.1", resolve));
const { port } = origin.address() as AddressInfo;
const without = await run(false, port);
const kept = await run(true, port);
process.stdout.write(`without events: ${without.rssMb.toFixed(0)} MB RSS
${kept.kept} events: ${kept.rssMb.toFixed(0)} MB RSS, ${(kept.rssMb - without.rssMb).toFixed(0)} MB more
`);
agent.destroy();
origin.close();
