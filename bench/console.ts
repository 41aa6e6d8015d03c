/**
 * `node bench/console.ts [ROUNDS]`: when a browser first shows something of the console, over loopback.
 *
 * Each round is a browser context of its own, so nothing is cached; once with an empty proxy and once with 10,000 events
 * kept; then the frames of the page while 500 events a second come. First paint is the browser's own figure (Paint Timing, `first-contentful-paint`), from the start of the navigation.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser } from "playwright-core";
import { browserPath, launchBrowser } from "../test/support/browser.ts";
import { freePorts } from "./stage.ts";

const rounds = Number(process.argv[2] ?? 9);
const flows = 5_000;
const concurrency = 16;
const eventsPerSecond = 500;
const framesMs = 10_000;
const main = join(import.meta.dirname, "..", "dist", "main.js");
const agent = new http.Agent({ keepAlive: true, maxSockets: concurrency });

interface Seen {
  readonly paintMs: number;
  readonly liveMs: number;
}

async function start(folder: string, forward: number, sessions: number): Promise<ChildProcess> {
  const file = join(folder, "config.yaml");
  writeFileSync(
    file,
    `listener: { roles: [forward], forward_proxy_addr: "127.0.0.1:${forward}", session_api_addr: "127.0.0.1:${sessions}", health_addr: "127.0.0.1:0", transparent_proxy_addr: "off" }
stats: { address: "127.0.0.1:0" }
egress: { allow_ips: [127.0.0.0/8] }
session: { max_events: 20000 }
`,
  );
  const child = spawn(process.execPath, [main, "--config", file], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  await new Promise<void>((resolve, reject) => {
    child.stderr?.on("data", (chunk: Buffer) => {
      if (log.includes('"msg":"serving"')) return;
      log += chunk.toString();
      if (log.includes('"msg":"serving"')) resolve();
    });
    child.once("exit", () => reject(new Error(log.slice(-400))));
  });
  return child;
}

function send(proxy: number, origin: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const path = `http://127.0.0.1:${origin}/page`;
    http
      .get({ host: "127.0.0.1", port: proxy, path, agent }, (response) => {
        response.resume().on("end", resolve);
      })
      .on("error", reject);
  });
}

async function look(browser: Browser, url: string): Promise<Seen> {
  const context = await browser.newContext({ viewport: { width: 1500, height: 850 } });
  try {
    const page = await context.newPage();
    const startedAt = performance.now();
    await page.goto(url);
    await page.locator('#feed[data-state="live"]').waitFor();
    const liveMs = performance.now() - startedAt;
    const paint = await page.waitForFunction(
      `performance.getEntriesByName("first-contentful-paint")[0]?.startTime`,
    );
    return { paintMs: Number(await paint.jsonValue()), liveMs };
  } finally {
    await context.close();
  }
}

function median(values: readonly number[]): number {
  return [...values].sort((one, other) => one - other)[values.length >> 1] ?? Number.NaN;
}

async function measure(browser: Browser, title: string, url: string): Promise<void> {
  // The first page of a browser waits for the browser itself.
  await look(browser, url);
  const seen: Seen[] = [];
  for (let round = 0; round < rounds; round += 1) seen.push(await look(browser, url));
  const paints = seen.map(({ paintMs }) => paintMs);
  process.stdout.write(
    `${title}: first paint median ${median(paints).toFixed(0)} ms, worst ${Math.max(...paints).toFixed(0)} ms; ` +
      `live list median ${median(seen.map(({ liveMs }) => liveMs)).toFixed(0)} ms\n`,
  );
}

/** Frames of the page while `perSecond` requests a second are shown: the longest, and how many took more than 50 ms. */
async function frames(
  browser: Browser,
  url: string,
  view: string,
  send: () => Promise<void>,
): Promise<void> {
  const context = await browser.newContext({ viewport: { width: 1500, height: 850 } });
  try {
    const page = await context.newPage();
    await page.goto(`${url}#${view}`);
    await page.locator('#feed[data-state="live"]').waitFor();
    await page.evaluate(
      `window.gaps = []; (function next(last) { requestAnimationFrame((now) => { gaps.push(now - last); next(now); }); })(performance.now());
       window.tasks = []; new PerformanceObserver((list) => tasks.push(...list.getEntries().map((e) => e.duration))).observe({ type: "longtask" });`,
    );
    // Two events of each request.
    const every = 2_000 / eventsPerSecond;
    const startedAt = performance.now();
    const pending = new Set<Promise<void>>();
    for (let sent = 0; performance.now() - startedAt < framesMs; sent += 1) {
      const one: Promise<void> = send().finally(() => pending.delete(one));
      pending.add(one);
      const waitMs = startedAt + (sent + 1) * every - performance.now();
      if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    }
    await Promise.all(pending);
    const gaps = (await page.evaluate("gaps")) as number[];
    const tasks = (await page.evaluate("tasks")) as number[];
    const late = gaps.filter((gap) => gap > 50).length;
    process.stdout.write(
      `${view}, ${eventsPerSecond} events a second: ${gaps.length} frames, median ${median(gaps).toFixed(0)} ms, ` +
        `${late} over 50 ms, longest ${Math.max(...gaps).toFixed(0)} ms; ${tasks.length} long tasks` +
        `${tasks.length === 0 ? "" : `, the longest ${Math.max(...tasks).toFixed(0)} ms`}\n`,
    );
  } finally {
    await context.close();
  }
}

async function run(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "authbridge-console-bench-"));
  const origin = http.createServer((_request, response) => response.end("page"));
  origin.listen(0, "127.0.0.1");
  await once(origin, "listening");
  const [forward = 0, sessions = 0] = await freePorts(2);
  const proxy = await start(folder, forward, sessions);
  const browser = await launchBrowser();
  try {
    const url = `http://127.0.0.1:${sessions}/`;
    await measure(browser, "no events", url);
    const { port } = origin.address() as AddressInfo;
    for (let sent = 0; sent < flows; sent += concurrency)
      await Promise.all(Array.from({ length: concurrency }, () => send(forward, port)));
    await measure(browser, `${2 * flows} events`, url);
    for (const view of ["overview", "flows"])
      await frames(browser, url, view, () => send(forward, port));
  } finally {
    await browser.close();
    proxy.kill("SIGTERM");
    agent.destroy();
    origin.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

if (browserPath === undefined) process.stdout.write("SKIPPED: no Chromium on this machine\n");
else await run();
