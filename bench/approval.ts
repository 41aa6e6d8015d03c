/**
 * What requests cost that wait for a person: `node bench/approval.ts [MINUTES] [REQUESTS]`, 10 and 1,000 unless said.
 *
 * Half are POSTs of 1 KiB that wait in silence, half calls of an MCP tool whose clients are told every 15 seconds that they
 * wait. Memory is resident memory of the proxy, which is another process: before the first question, each minute, and after
 * all were allowed and responded to.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import { startProxy } from "./proxy-child.ts";
import { portOf } from "./ready.ts";
import { freePorts } from "./stage.ts";

const minutes = Number(process.argv[2] ?? 10);
const count = Number(process.argv[3] ?? 1_000);
const batch = 50;
const bodyBytes = 1_024;
const minuteMs = 60_000;

const directory = mkdtempSync(join(tmpdir(), "authbridge-bench-"));
const secret = "bench-secret";
const secretFile = join(directory, "secret");
writeFileSync(secretFile, secret);

let served = 0;
const origin = createServer((request, response) => {
  served += 1;
  request.resume();
  response.writeHead(200, { "Content-Type": "application/json" });
  response.end('{"jsonrpc":"2.0","id":1,"result":{}}');
});
await new Promise<void>((resolve) => origin.listen(0, "127.0.0.1", 1_024, resolve));
const originPort = portOf(origin);

const [forward = 0, sessions = 0, health = 0, stats = 0] = await freePorts(4);
const rules = [{ allow: { method: "GET", path: "/**" } }, { ask: { method: "POST", path: "/**" } }];
const endpoint = { host: "127.0.0.1", port: originPort, protocol: "rest", enforcement: "enforce" };
const config = {
  listener: {
    roles: ["forward"],
    forward_proxy_addr: `127.0.0.1:${forward}`,
    session_api_addr: `127.0.0.1:${sessions}`,
    health_addr: `127.0.0.1:${health}`,
    transparent_proxy_addr: "off",
  },
  stats: { address: `127.0.0.1:${stats}` },
  session: { api_secret_file: secretFile },
  // All come from one address here.
  approval: {
    hold: "2h",
    expires: "2h",
    max_pending_per_caller: count,
    max_held_per_caller: count,
  },
  egress: { allow_ips: ["127.0.0.0/8"] },
  limits: { max_connections: 2 * count + 100 },
  pipeline: {
    outbound: {
      plugins: [
        {
          name: "egress-policy",
          config: { network_policies: { bench: { endpoints: [{ ...endpoint, rules }] } } },
        },
      ],
    },
  },
};
const proxy = await startProxy(directory, "approval", config, health);

function shapeOf(at: number): { readonly head: string; readonly body: string } {
  const isCall = at % 2 === 1;
  const call = { name: "pay", arguments: { at, note: "x".repeat(bodyBytes) } };
  const body = isCall
    ? JSON.stringify({ jsonrpc: "2.0", id: at, method: "tools/call", params: call })
    : `n=${at}&`.padEnd(bodyBytes, "x");
  const type = isCall
    ? "Content-Type: application/json\r\nAccept: application/json, text/event-stream"
    : "Content-Type: application/x-www-form-urlencoded";
  const place = `127.0.0.1:${originPort}`;
  const head = `POST http://${place}/pay HTTP/1.1\r\nHost: ${place}\r\nConnection: close\r\n${type}\r\nContent-Length: ${body.length}\r\n\r\n`;
  return { head, body };
}

/** The text of one response, once it has ended. */
function sent(at: number): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    const socket = connect(forward, "127.0.0.1", () => {
      const { head, body } = shapeOf(at);
      socket.write(head + body);
    });
    socket.on("data", (bytes: Buffer) => (text += bytes.toString("latin1")));
    socket.on("error", () => undefined);
    socket.on("close", () => resolve(text));
  });
}

async function api(path: string, form?: Record<string, string>): Promise<Record<string, unknown>> {
  const response = await fetch(`http://127.0.0.1:${sessions}${path}`, {
    headers: { Authorization: `Bearer ${secret}` },
    ...(form === undefined ? {} : { method: "POST", body: new URLSearchParams(form) }),
  });
  return (await response.json()) as Record<string, unknown>;
}

async function open(): Promise<readonly { readonly id: string }[]> {
  return (await api("/v1/approvals"))["approvals"] as { id: string }[];
}

const rss = (): number => proxy.usage().rssBytes / 1e6;
const say = (text: string): void => void process.stdout.write(`${text}\n`);

// What the first question loads and compiles is no cost of waiting.
const warm = Array.from({ length: batch }, (_, at) => sent(count + at));
while ((await open()).length < batch) await after(100);
for (const { id } of await open()) await api(`/v1/approvals/${id}`, { decision: "allow" });
await Promise.all(warm);
served = 0;
await after(2_000);
const before = rss();
say(`before: ${before.toFixed(1)} MB`);
const responses: Promise<string>[] = [];
while (responses.length < count) {
  responses.push(...Array.from({ length: batch }, (_, at) => sent(responses.length + at)));
  await after(100);
}
while ((await open()).length < count) await after(200);
say(`${count} wait: ${(rss() - before).toFixed(1)} MB more`);
let most = rss();
for (let minute = 1; minute <= minutes; minute += 1) {
  await after(minuteMs);
  most = Math.max(most, rss());
  say(`after ${minute} min: ${(rss() - before).toFixed(1)} MB more`);
}
const waiting = await open();
if (waiting.length !== count || served > 0) throw new Error("some did not wait");
for (const { id } of waiting) await api(`/v1/approvals/${id}`, { decision: "allow" });
const texts = await Promise.all(responses);
const good = texts.filter((text) => text.startsWith("HTTP/1.1 200") && text.includes('"result"'));
say(
  `${good.length} of ${count} were responded to, ${served} reached the origin; most: ${(most - before).toFixed(1)} MB more, afterwards ${(rss() - before).toFixed(1)}`,
);
await proxy.stop();
rmSync(directory, { recursive: true, force: true });
process.exit(good.length === count ? 0 : 1);
