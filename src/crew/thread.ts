/** A thread that serves: its own listeners, pipelines and connections, under the thread in control. */
import { parentPort } from "node:worker_threads";
import { ProcessBounds } from "../app/bounds.ts";
import { buildProblems } from "../app/build-problems.ts";
import { type BuildServices, buildRuntime } from "../app/build.ts";
import { LocalPlane, type Refused } from "../app/data-plane.ts";
import { definitionsFor } from "../app/definitions.ts";
import type { BoundAddresses, Crowd } from "../app/listen-options.ts";
import { hearLogouts } from "../app/logout.ts";
import { makeProcessParts, type ProcessParts } from "../app/process-parts.ts";
import { type LoadedConfig, parseConfig } from "../config/load.ts";
import { durationMs } from "../duration.ts";
import { ProxyError } from "../errors.ts";
import type { Kill } from "../pipeline/kill-switch.ts";
import { mostOldGenerations, type Runtime, RuntimeHolder } from "../proxy/flow/runtime.ts";
import { createLogger, type Logger, type LogLevel } from "../telemetry/log.ts";
import { LogDestination } from "../telemetry/log-destination.ts";
import { Channel, type Handlers, type Port } from "../threads/channel.ts";
import { SharedCounts } from "../threads/shared-count.ts";
import { formatProblem } from "../yaml/problem.ts";
import type { ControlCalls, Report, SentFile, StartOrder, ThreadCalls } from "./calls.ts";
import { keepServing } from "./faults.ts";
import { HeldStores, heldParts } from "./held-parts.ts";
import { Outbox } from "./outbox.ts";
import { RemoteLedger } from "./remote-ledger.ts";
import { shareOf } from "./share.ts";

/** What is counted is told this often, so that little of it is lost with the thread. */
const tellCountsMs = 1_000;
const logFlushMs = 20;

/** Begins in a thread that member.ts has started. */
export function serveThread(port: Port | null = parentPort): void {
  if (port === null) throw new ProxyError("internal.fault", "not a thread");
  // Before the first call there is nothing to serve.
  let thread: ServingThread | undefined;
  // What is being built hears of others already.
  let stores: HeldStores | undefined;
  const started = (): ServingThread => {
    if (thread === undefined) throw new ProxyError("internal.fault", "not started");
    return thread;
  };
  const handlers: Handlers<ThreadCalls> = {
    alive: () => undefined,
    start: async (order) => {
      const made = await ServingThread.start(order, channel, (held) => (stores = held));
      if (!(made instanceof ServingThread)) return made;
      thread = made;
      return undefined;
    },
    open: (bound) => started().open(bound),
    prepare: (file) => started().prepare(file),
    swap: (generation) => started().swap(generation),
    drop: (generation) => started().drop(generation),
    recheck: () => started().recheck(),
    kill: (kills) => started().kill(kills),
    report: (details) => started().report(details),
    // Both are told again when it serves.
    owns: (bound) => thread?.owns(bound),
    level: (level) => thread?.level(level),
    published: ({ store, channel: name, message }) => stores?.of(store).published(name, message),
    nameOf: (id) => started().nameOf(id),
    close: (drainMs) => started().close(drainMs),
  };
  const channel = new Channel<ControlCalls, ThreadCalls>(port, handlers);
}

/** A generation that waits for its turn. */
interface Prepared {
  readonly loaded: LoadedConfig;
  readonly runtime: Runtime;
  readonly generation: number;
  serves(this: void): void;
}

interface Made {
  readonly order: StartOrder;
  readonly channel: Channel<ControlCalls, ThreadCalls>;
  readonly log: Logger;
  readonly destination: LogDestination;
  readonly outbox: Outbox;
  readonly stores: HeldStores;
  readonly parts: ProcessParts;
  readonly loaded: LoadedConfig;
  readonly runtime: Runtime;
}

class ServingThread {
  readonly #made: Made;
  readonly #runtimes: RuntimeHolder;
  readonly #bounds: ProcessBounds;
  readonly #counting: NodeJS.Timeout;
  #loaded: LoadedConfig;
  #plane: LocalPlane | undefined;
  #prepared: Prepared | undefined;

  static async start(
    order: StartOrder,
    channel: Channel<ControlCalls, ThreadCalls>,
    onStores: (stores: HeldStores) => void,
  ): Promise<ServingThread | Refused> {
    const destination = logOf(channel);
    const log = createLogger(order.level as LogLevel, destination);
    keepServing(log);
    const loaded = load(order.file, order.threads);
    if ("refused" in loaded) return loaded.refused;
    const { config } = loaded;
    const outbox = new Outbox(
      (moments) => channel.ask("moments", moments),
      (count) => (parts.metrics.counters.thread_moments_lost_total.of().value += count),
    );
    const stores = new HeldStores(channel, config);
    onStores(stores);
    const { version } = order;
    const { generation } = order.file;
    const held = heldParts(config, order, channel, { stores, outbox, log });
    const definitions = await definitionsFor(loaded);
    const parts = await makeProcessParts(config, definitions, {
      log,
      version,
      env: process.env,
      generation,
      held,
    });
    parts.kills.set(order.kills);
    // What is counted from here on is told.
    parts.metrics.changes();
    const built = await buildRuntime(config, generation, servicesOf(parts, order));
    if (built.kind === "failed") return buildProblems(loaded, built.problems);
    const { runtime } = built;
    built.serves();
    return new ServingThread({
      order,
      channel,
      log,
      destination,
      outbox,
      stores,
      parts,
      loaded,
      runtime,
    });
  }

  private constructor(made: Made) {
    const { loaded, runtime, parts, log, order } = made;
    this.#made = made;
    this.#loaded = loaded;
    this.#runtimes = new RuntimeHolder(runtime, mostOldGenerations);
    parts.approvals.serve(parts.serving.generation);
    const crowd = crowdOf(order, undefined);
    this.#bounds = new ProcessBounds(loaded.config, { metrics: parts.metrics, log, crowd });
    parts.onRecheck(() => void this.recheck());
    hearLogouts({
      runtime: () => this.#runtimes.runtime,
      log,
      metrics: parts.metrics,
      logouts: parts.state.logouts,
      recheck: () => void this.recheck(),
    });
    if (loaded.config.log.level !== undefined) log.level = loaded.config.log.level;
    this.#counting = setInterval(() => this.#tellCounts(), tellCountsMs).unref();
  }

  open(bound: BoundAddresses | undefined): Promise<BoundAddresses> {
    const { parts, loaded, order } = this.#made;
    const plane = new LocalPlane({
      loaded,
      parts,
      bounds: this.#bounds,
      runtimes: this.#runtimes,
      crowd: crowdOf(order, bound),
    });
    this.#plane = plane;
    return parts.approvals.start().then(() => plane.open());
  }

  /** Nothing is served differently until {@link swap}. */
  async prepare(file: SentFile): Promise<Refused | undefined> {
    const { parts, order } = this.#made;
    const loaded = load(file, order.threads);
    if ("refused" in loaded) return loaded.refused;
    const { generation } = file;
    const services = { ...servicesOf(parts, order), definitions: await definitionsFor(loaded) };
    const built = await buildRuntime(loaded.config, generation, services);
    if (built.kind === "failed") return buildProblems(loaded, built.problems);
    const { runtime, serves } = built;
    this.#prepared = { loaded, runtime, generation, serves };
    return undefined;
  }

  swap(generation: number): void {
    const prepared = this.#prepared;
    if (prepared?.generation !== generation)
      throw new ProxyError("internal.fault", `generation ${generation} is not ready`);
    this.#prepared = undefined;
    const { loaded, runtime, serves } = prepared;
    const { config } = loaded;
    this.#loaded = loaded;
    this.#made.parts.serving.generation = generation;
    if (config.log.level !== undefined) this.#made.log.level = config.log.level;
    this.#runtimes.swap(runtime, durationMs(config.limits.drain_timeout));
    serves();
    this.#plane?.swap(loaded, runtime);
    this.#made.parts.approvals.serve(generation);
  }

  async drop(generation: number): Promise<void> {
    const prepared = this.#prepared;
    if (prepared?.generation !== generation) return;
    this.#prepared = undefined;
    await prepared.runtime.close();
  }

  async recheck(): Promise<number> {
    if (!this.#loaded.config.reload.recheck_tunnels) return 0;
    return (await this.#plane?.recheck()) ?? 0;
  }

  async kill(kills: readonly Kill[]): Promise<number> {
    this.#made.parts.kills.set(kills);
    return (await this.#plane?.kill(kills)) ?? 0;
  }

  async report(details: boolean): Promise<Report> {
    const plane = this.#plane;
    this.#tellCounts();
    await this.#made.outbox.flush();
    const none = { connections: 0, flows: 0, tunnels: 0, upstreamConnections: 0, held: 0 };
    return {
      activity: plane?.activity() ?? none,
      notReady: plane === undefined ? "starting" : plane.notReady(),
      note: plane?.note(),
      observations: details ? (plane?.observations().flat() ?? []) : [],
      budgets: details ? plane?.budgets()[0] : undefined,
    };
  }

  owns({ host, port }: { readonly host: string; readonly port: number }): void {
    this.#made.parts.ownListeners.add(host, port);
  }

  level(level: string): void {
    this.#made.log.level = level;
  }

  nameOf(id: string): string | undefined {
    const { sessions } = this.#made.parts;
    return sessions?.ledger instanceof RemoteLedger ? sessions.ledger.nameOf(id) : undefined;
  }

  async close(drainMs: number): Promise<void> {
    const { parts, outbox, destination } = this.#made;
    parts.approvals.drain();
    await this.#plane?.close(drainMs);
    // Before the generation that knows the way to the collector.
    await parts.otlp?.close(2_000);
    await this.#runtimes.close(1_000);
    this.#bounds.close();
    parts.approvals.close();
    parts.peers.close();
    await parts.sessions?.close();
    await parts.state.close();
    clearInterval(this.#counting);
    this.#tellCounts();
    await outbox.flush();
    parts.metrics.close();
    await destination.close();
  }

  #tellCounts(): void {
    const { parts, channel } = this.#made;
    const metrics = parts.metrics.changes();
    const durations = parts.otlp?.durations?.changes();
    const { counters, histograms, services } = metrics;
    const isAny = counters.length + histograms.length + services.length > 0;
    if (isAny || durations !== undefined) channel.tell("counted", { metrics, durations });
  }
}

/** Files of all threads are written by the one in control, and it alone tries chains. */
function servicesOf({ services }: ProcessParts, { thread }: StartOrder): BuildServices {
  const { acceptance: _acceptance, ...rest } = services;
  return { ...rest, isEcho: thread > 0 };
}

function load(
  { bytes, path, lenient }: SentFile,
  threads: number,
): LoadedConfig | { readonly refused: string } {
  const loaded = parseConfig(bytes, path, { lenient, env: process.env });
  // The thread in control has loaded the same bytes.
  if (loaded.kind === "rejected") return { refused: loaded.problems.map(formatProblem).join("\n") };
  return { ...loaded, config: shareOf(loaded.config, threads) };
}

function crowdOf(order: StartOrder, bound: BoundAddresses | undefined): Crowd {
  const { threads, counts, thread, pseudonym } = order;
  const shared = new SharedCounts(threads, counts);
  return {
    pseudonym,
    tunnels: shared.of("tunnels", thread),
    buffered: shared.of("buffered bytes", thread),
    connections: (surface) => shared.of(`${surface} connections`, thread),
    bound,
  };
}

/** Lines go to the thread in control, as one write to stderr may tear those of another thread. */
function logOf(channel: Channel<ControlCalls, ThreadCalls>): LogDestination {
  return new LogDestination(2, {
    flushMs: logFlushMs,
    fileSystem: {
      write: (_fd, bytes, done) => {
        const taken = (): void => done(null, bytes.length);
        channel.ask("lines", bytes.toString("utf8")).then(taken, taken);
      },
      writeSync: (_fd, bytes) => bytes.length,
    },
  });
}
