/** Look-ups of names whose server is silent keep nobody else from theirs. */
import { createServer, request as ask, type ClientRequest } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type DnsServer, dnsServer } from "../support/dns-server.ts";
import { eventually } from "../support/eventually.ts";
import type { Address } from "../support/http-client.ts";
import { type Settings, testThreads } from "../support/program.ts";
import { ProxyProcess, settings } from "../support/proxy.ts";

const closing: (() => unknown)[] = [];
let dns: DnsServer;
let port = 0;

beforeEach(async () => {
  const names = ["good.test", "other.test", "backend.test"];
  dns = await dnsServer(new Map(names.map((name) => [name, "127.0.0.1"])));
  closing.push(() => dns.close());
  const origin = createServer((_request, response) => response.end("found"));
  await new Promise<void>((resolve) => origin.listen(0, "127.0.0.1", resolve));
  port = (origin.address() as AddressInfo).port;
  closing.push(() => {
    origin.closeAllConnections();
    origin.close();
  });
});
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close();
});

async function started(limits: Settings, resolveTimeout = "60s"): Promise<ProxyProcess> {
  const proxy = await ProxyProcess.start(
    settings({
      listener: { reverse_proxy_backend: `http://backend.test:${port}` },
      egress: { dns_servers: [dns.address], resolve_timeout: resolveTimeout },
      limits,
    }),
  );
  closing.push(() => proxy.close());
  return proxy;
}

interface Answer {
  readonly status: number;
  readonly retryAfter: string | undefined;
  readonly text: string;
}

interface Asked {
  readonly sent: ClientRequest;
  readonly answer: Promise<Answer>;
}

/** Asks the proxy for a path of a name, from this loopback address. */
function askFor({ host, port: at }: Address, name: string, localAddress = "127.0.0.1"): Asked {
  const headers = { host: `${name}:${port}` };
  const path = `http://${name}:${port}/`;
  const sent = ask({ host, port: at, localAddress, path, headers, agent: false });
  const answer = new Promise<Answer>((resolve, reject) => {
    sent.once("error", reject);
    sent.once("response", (message) => {
      let text = "";
      message.on("data", (chunk: Buffer) => (text += chunk.toString()));
      message.once("end", () =>
        resolve({
          status: message.statusCode ?? 0,
          retryAfter: message.headers["retry-after"],
          text,
        }),
      );
    });
  });
  answer.catch(() => undefined);
  sent.end();
  return { sent, answer };
}

test("a caller with silent names has its share; others, and the operator's names, have theirs", async () => {
  const share = 3 * testThreads;
  const proxy = await started({ max_name_lookups_per_caller: share });
  const silent = Array.from({ length: 40 }, (_, at) => askFor(proxy.forward, `s${at}.test`));
  await eventually(() => dns.unanswered.size === share);
  const other = await askFor(proxy.forward, "good.test", "127.0.0.2").answer;
  expect(other).toMatchObject({ status: 200, text: "found" });
  const inbound = await askFor(proxy.reverse, "backend.test").answer;
  expect(inbound).toMatchObject({ status: 200, text: "found" });
  expect(dns.unanswered.size).toBe(share);
  // Its own next name waits for its turn, which comes as soon as the others are given up.
  const waiting = askFor(proxy.forward, "good.test").answer;
  for (const { sent } of silent) sent.destroy();
  expect(await waiting).toMatchObject({ status: 200, text: "found" });
});

test("all look-ups of callers together leave the operator's names alone", async () => {
  const most = 2 * testThreads;
  const proxy = await started({ max_name_lookups: most });
  for (let at = 1; at <= 30; at += 1) askFor(proxy.forward, `s${at}.test`, `127.0.0.${at}`);
  await eventually(() => dns.unanswered.size === most);
  expect(await askFor(proxy.reverse, "backend.test").answer).toMatchObject({ status: 200 });
  expect(dns.unanswered.size).toBe(most);
});

test("a look-up without its turn in time is 503 that names the key, and is counted and told once", async () => {
  const limits = { max_name_lookups_per_caller: testThreads };
  const proxy = await started(limits, "500ms");
  // Those that come late may find that the first has given up.
  const asked = Array.from({ length: 20 }, (_, at) => askFor(proxy.forward, `s${at}.test`));
  const answers = await Promise.all(asked.map(({ answer }) => answer));
  expect(answers.some(({ status }) => status === 502)).toBe(true);
  const refused = answers.filter(({ status }) => status === 503);
  expect(refused.length).toBeGreaterThan(0);
  for (const { text, retryAfter } of refused) {
    expect(text).toContain("limits.max_name_lookups_per_caller");
    expect(Number(retryAfter)).toBeGreaterThan(0);
  }
  expect(await proxy.metric("authbridge_upstream_refused_total", { what: "lookup" })).toBe(
    refused.length,
  );
  await proxy.stop();
  const told = proxy.logs.filter(({ limit }) => limit === "caller").length;
  expect(told).toBeGreaterThan(0);
  expect(told).toBeLessThanOrEqual(testThreads);
});

test("200 silent names of clients that left keep no later name back", async () => {
  const proxy = await started({});
  const silent = Array.from({ length: 200 }, (_, at) => askFor(proxy.forward, `s${at}.test`));
  await eventually(() => dns.unanswered.size === 64);
  for (const { sent } of silent) sent.destroy();
  expect(await askFor(proxy.forward, "good.test").answer).toMatchObject({ status: 200 });
  expect(await askFor(proxy.reverse, "backend.test").answer).toMatchObject({ status: 200 });
});
