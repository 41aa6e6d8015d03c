/** The proxy of one stage: its file, its process, and what of it is measured. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { ProcessOptions, Settings } from "../../test/support/program.ts";
import { sumOf } from "../../test/support/program.ts";
import { merge, ProxyProcess, settings } from "../../test/support/proxy.ts";
import { type Ledger, mayGrow, type Sample } from "./ledger.ts";
import { Parties } from "./parties.ts";
import type { Measure } from "./probe.ts";

/** Each with the promise that it breaks. */
export const bugs = {
  lost: "lost",
  byte: "byte",
  rejection: "rejection",
  memory: "leak",
  descriptor: "leak",
  timer: "leak",
  map: "leak",
  uncounted: "counted",
} as const;
export type Bug = keyof typeof bugs;

/** Of a request to a token endpoint, and some more. */
const longestTimeoutMs = 40_000;
const probeUrl = new URL("probe.ts", import.meta.url).href;
/** Where the probes of a proxy's threads listen. */
const probes = new WeakMap<ProxyProcess, string>();

/** How much of everything a run does. */
export interface Extent {
  readonly tunnels: number;
  readonly idle: number;
  readonly requests: number;
  readonly reloads: number;
  readonly cycles: number;
  readonly cuts: number;
  readonly attackSeconds: number;
}

export class Ground {
  readonly parties = new Parties();
  readonly folder = mkdtempSync(join(tmpdir(), "authbridge-soak-"));
  readonly bug: Bug | undefined;

  constructor(bug?: Bug) {
    this.bug = bug;
  }

  async open(): Promise<this> {
    await this.parties.start();
    writeFileSync(join(this.folder, "origin-ca.pem"), this.parties.caPem);
    return this;
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** Starts the proxy with a probe in it. */
  async start(config: Settings, options: ProcessOptions = {}): Promise<ProxyProcess> {
    const folder = mkdtempSync(this.path("probe-"));
    const env = { NODE_OPTIONS: `--import=${probeUrl}`, SOAK_PROBE: folder, ...options.env };
    const proxy = await ProxyProcess.start(config, { ...options, env });
    probes.set(proxy, folder);
    return proxy;
  }

  /** The file of every stage; `over` is merged into it. */
  file(over: Settings = {}): Settings {
    const { parties } = this;
    const exchange = {
      token_url: `${parties.issuer}/token`,
      identity: { type: "client-secret", client_id: "soak", client_secret: "soak" },
      routes: { rules: [{ host: "exchanged.test", target_audience: "soak" }] },
    };
    const tools = {
      servers: [
        {
          name: "m",
          hosts: ["mcp.test"],
          ports: [parties.origin.port],
          rules: [{ name: "add", tools: ["add"] }],
        },
      ],
    };
    const validation = {
      issuer: parties.issuer,
      jwks_url: `${parties.issuer}/jwks`,
      audience: "agent",
    };
    const base = settings({
      listener: {
        roles: ["forward", "reverse"],
        reverse_proxy_backend: `http://127.0.0.1:${parties.backend.port}`,
      },
      plugin_modules: [fileURLToPath(new URL("seeded.ts", import.meta.url))],
      session: { enabled: false },
      // This machine may be a busy one.
      limits: { drain_timeout: "60s", connect_timeout: "60s", header_timeout: "60s" },
      state: { timeout: "30s" },
      egress: {
        hosts: Object.fromEntries(
          ["exchanged.test", "mcp.test", "parented.test"].map((name) => [name, ["127.0.0.1"]]),
        ),
      },
      upstream_proxy: {
        routes: [{ host: "parented.test", proxy: `http://127.0.0.1:${parties.parent.port}` }],
      },
      tls_bridge: {
        mode: "enabled",
        ca_dir: this.path("ca"),
        generate_ca: true,
        ports: [parties.securePort],
        upstream_ca_bundle: this.path("origin-ca.pem"),
      },
      pipeline: {
        inbound: { plugins: [{ name: "jwt-validation", config: validation }] },
        outbound: {
          default: "allow",
          plugins: [
            { name: "mcp-parser" },
            { name: "tool-policy", config: tools },
            { name: "token-exchange", config: exchange },
            ...this.#seeded(),
          ],
        },
      },
    });
    return merge(base, over);
  }

  #seeded(): Settings[] {
    if (this.bug === undefined) return [];
    const name = this.bug === "byte" ? "seeded-byte" : "seeded-bug";
    return [{ name, config: { bug: this.bug } }];
  }

  async close(): Promise<void> {
    await this.parties.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Refusals in a scrape: flows that did not end well, and clients refused before there was a flow. */
export function refusals(text: string): number {
  let sum = sumOf(text, "authbridge_refused_total");
  for (const outcome of ["denied", "unavailable", "upstream_error", "error"]) {
    sum += sumOf(text, "authbridge_flows_total", { outcome });
  }
  return sum;
}

/** Books what the proxy says of itself, when nothing is in progress. */
export async function takeStock(proxy: ProxyProcess, ledger: Ledger): Promise<void> {
  const held = await atRest(proxy);
  const { timers, entries, descriptors } = await measured(proxy, ledger);
  const status = readFileSync(`/proc/${proxy.pid}/status`, "utf8");
  const text = (await proxy.stats("/metrics")).text;
  ledger.samples.push({
    rssMiB: Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1_024,
    descriptors,
    held,
    heapMiB: sumOf(text, "nodejs_heap_size_used_bytes") / 1_048_576,
    timers,
    entries,
    asked: ledger.asked,
  });
}

/**
 * What the process holds. A time-out that nobody waits for any more may still run to its end, and connections to the IdP are kept
 * for a while: what is more than at first is waited for.
 */
async function measured(
  proxy: ProxyProcess,
  ledger: Ledger,
): Promise<Pick<Sample, "timers" | "entries" | "descriptors">> {
  const until = performance.now() + longestTimeoutMs;
  for (;;) {
    const measures = (await askProbes(proxy, "measure")) as readonly Measure[];
    const total = (key: keyof Measure): number =>
      measures.reduce((sum, measure) => sum + measure[key], 0);
    const descriptors = readdirSync(`/proc/${proxy.pid}/fd`).length;
    const measure = { timers: total("timers"), entries: total("entries"), descriptors };
    const [first] = ledger.samples;
    const isMore =
      first !== undefined &&
      (measure.timers > first.timers + mayGrow.timers ||
        descriptors > first.descriptors + mayGrow.descriptors);
    if (!isMore || !ledger.isPatient || performance.now() > until) return measure;
    await delay(2_000);
  }
}

/** Sets the wall clock of every thread so far from the machine's. */
export async function setClock(proxy: ProxyProcess, offsetMs: number): Promise<void> {
  await askProbes(proxy, `clock ${offsetMs}`);
}

/** What the probes of all threads that are there answer. */
async function askProbes(proxy: ProxyProcess, words: string): Promise<unknown[]> {
  const folder = probes.get(proxy) ?? "";
  const answers: unknown[] = [];
  for (const name of readdirSync(folder)) {
    const answer = await askProbe(join(folder, name), words);
    // A thread that has ended leaves its socket behind.
    if (answer === undefined) rmSync(join(folder, name), { force: true });
    else answers.push(JSON.parse(answer));
  }
  if (answers.length === 0) throw new Error("no probe answers");
  return answers;
}

function askProbe(path: string, words: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    let text = "";
    const socket = net.connect(path, () => socket.write(`${words}\n`));
    socket.on("data", (chunk: Buffer) => (text += chunk.toString()));
    socket.on("error", () => resolve(undefined));
    socket.on("close", () => resolve(text === "" ? undefined : text));
  });
}

/** Seconds of processor time that the process has taken. */
export function processorSeconds(proxy: ProxyProcess): number {
  const stat = readFileSync(`/proc/${proxy.pid}/stat`, "utf8");
  const [user, system] = stat.slice(stat.lastIndexOf(")")).split(" ").slice(12, 14);
  return (Number(user) + Number(system)) / 100;
}

/** Waits for the proxy to hold nothing for anybody; answers what it still holds when it was given time enough. */
async function atRest(proxy: ProxyProcess): Promise<number> {
  const names = ["client_connections", "upstream_connections", "active_tunnels", "active_flows"];
  let held = 0;
  for (let tries = 0; tries < 150; tries += 1) {
    const text = (await proxy.stats("/metrics")).text;
    held = names.reduce((sum, name) => sum + sumOf(text, `authbridge_${name}`), 0);
    if (held === 0) return 0;
    await delay(200);
  }
  return held;
}

/** Books what the process said until now, and its refusals. */
export async function hear(proxy: ProxyProcess, ledger: Ledger): Promise<void> {
  ledger.refusalsCounted += refusals((await proxy.stats("/metrics")).text);
  hearLog(proxy, ledger);
}

/** The same of a process that has ended, which tells no metrics. */
export function hearLog(proxy: ProxyProcess, ledger: Ledger): void {
  for (const line of proxy.faults)
    ledger.faults.push(`${line.msg} ${JSON.stringify(line["err"] ?? {})}`);
}

/** Ends the proxy as Kubernetes does. */
export async function end(proxy: ProxyProcess, ledger: Ledger): Promise<void> {
  const { code } = await proxy.stop();
  if (code !== 0) ledger.lost(`the process ended with ${code}`);
  await proxy.close();
}
