/** The process: binds the surfaces, holds the current generation, reloads it, and closes everything in order. */
import type { Socket } from "node:net";
import type { AdminServer } from "../admin/server.ts";
import { type LoadedConfig, loadConfig, type RejectedConfig } from "../config/load.ts";
import type { Config } from "../config/presets.ts";
import { restartOnlyChanges } from "../config/restart-only.ts";
import { durationMs } from "../duration.ts";
import type { BindAddress } from "../listener/bind.ts";
import type { PeerProcesses } from "../net/kernel/peer-process.ts";
import { mostOldGenerations, type Runtime, RuntimeHolder } from "../proxy/flow/runtime.ts";
import type { EventSink } from "../session/recorder.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { OwnListeners } from "../upstream/own-listeners.ts";
import { type AdminSurface, adminSurfaces, bindAdmin } from "./admin-surfaces.ts";
import { ProcessBounds } from "./bounds.ts";
import {
  buildProblems,
  ConfigRejected,
  rejectedProblems,
  withUnusedKeys,
} from "./build-problems.ts";
import { buildRuntime } from "./build.ts";
import { ChainReload, inputsDigest } from "./chaining/reload.ts";
import { type DataPlane, LocalPlane, type Refused } from "./data-plane.ts";
import { allDefinitions, definitionsFor, type Loaded } from "./definitions.ts";
import type { BoundAddresses } from "./listen-options.ts";
import { processGauges, statusOf } from "./gauges.ts";
import { makeProcessParts, type ProcessOptions, type ProcessParts } from "./process-parts.ts";
import { attendedBy } from "./approvals/operators.ts";
import { recordedApprovals } from "./approvals/records.ts";
import { Kills } from "./kills/kills.ts";
import { ReloadStatus } from "./reload-status.ts";
import { Reloader } from "./reloader.ts";
import { warnOf, warnOfOpenPipelines } from "./start-warnings.ts";

/** In place of a file. */
export interface GivenOptions {
  readonly load: () => Promise<Loaded | RejectedConfig>;
  /** Whether an operator's surface is opened. */
  opens(surface: AdminSurface["surface"]): boolean;
}

/** Options of an App. */
export interface AppOptions extends Pick<ProcessOptions, "attendant"> {
  readonly file: string;
  /** Absent: the file is read, and followed. */
  readonly given?: GivenOptions;
  /** Gets every event. */
  readonly events?: EventSink;
  readonly lenient: boolean;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly version: string;
  readonly log: Logger;
  /** Whether a chain through upstream proxies is tried before it is used. Default always. */
  readonly probe?: "always" | "never";
  /** Who holds the agent's namespaces, where it has its own: callers are looked for there. */
  readonly agentPid?: number;
  /** Makes what serves where that is not this thread; undefined for a file that wants one thread. */
  threads?(loaded: LoadedConfig, parts: ProcessParts, options: AppOptions): DataPlane | undefined;
}

/** What an App begins with. */
interface FirstGeneration {
  readonly loaded: Loaded;
  readonly parts: ProcessParts;
  /** What the files that it names held when they were read. */
  readonly inputs: string;
  readonly runtime: Runtime;
  /** Absent where this thread serves by itself. */
  readonly threads: DataPlane | undefined;
}

/** One running proxy. */
export class App {
  readonly #options: AppOptions;
  readonly #log: Logger;
  readonly #metrics: Metrics;
  readonly #otlp: ProcessParts["otlp"];
  readonly #services: ProcessParts["services"];
  readonly #plane: DataPlane;
  /** This thread serves by itself. */
  readonly #isAlone: boolean;
  readonly #peers: PeerProcesses;
  readonly #ownListeners: OwnListeners;
  readonly #admin: AdminServer[] = [];
  readonly #sessions: ProcessParts["sessions"];
  readonly #stateParts: ProcessParts["state"];
  readonly #bounds: ProcessBounds;
  readonly #runtimes: RuntimeHolder;
  readonly #status: ReloadStatus;
  readonly #serving: ProcessParts["serving"];
  readonly #kills: Kills;
  readonly #approvals: ProcessParts["approvals"];
  #loaded: Loaded;
  #reloader: Reloader | undefined;
  #chain: ChainReload | undefined;
  #addresses: BoundAddresses = {};
  readonly #startedAt = new Date().toISOString();
  #state: "starting" | "serving" | "draining" = "starting";

  /** Loads the file and builds the first generation. Rejects with {@link ConfigRejected}. */
  static async start(options: AppOptions): Promise<App> {
    const { file, lenient, env, given } = options;
    const loaded = await withUnusedKeys(given?.load() ?? loadConfig(file, { lenient, env }));
    if (loaded.kind === "rejected") throw new ConfigRejected(await rejectedProblems(loaded));
    const parts = await makeProcessParts(loaded.config, await definitionsFor(loaded), options);
    const threads = options.threads?.(loaded, parts, options);
    const services = { ...parts.services, isEcho: threads !== undefined };
    const inputs = inputsDigest(loaded.config);
    const built = await buildRuntime(loaded.config, 1, services, {
      probe: options.probe !== "never",
      serve: threads === undefined,
    });
    if (built.kind === "failed") {
      await parts.sessions?.close();
      await parts.state.close();
      parts.metrics.close();
      throw new ConfigRejected(buildProblems(loaded, built.problems));
    }
    const app = new App(options, { loaded, parts, inputs, runtime: built.runtime, threads });
    built.serves();
    try {
      await app.#open();
    } catch (error) {
      await app.close(0);
      throw error;
    }
    return app;
  }

  private constructor(options: AppOptions, first: FirstGeneration) {
    const { loaded, parts, inputs, runtime, threads } = first;
    this.#options = options;
    this.#loaded = loaded;
    this.#log = options.log;
    this.#metrics = parts.metrics;
    this.#otlp = parts.otlp;
    this.#services = parts.services;
    this.#ownListeners = parts.ownListeners;
    this.#sessions = parts.sessions;
    this.#stateParts = parts.state;
    this.#serving = parts.serving;
    this.#peers = parts.peers;
    this.#kills = Kills.of(parts, {
      log: this.#log,
      file: loaded.config.kill_switch.file,
      apply: (kills) => this.#plane.kill(kills),
    });
    this.#approvals = recordedApprovals(parts, this.#log);
    attendedBy(options.attendant, loaded.config, this.#approvals);
    parts.onRecheck(() => void this.#recheckTunnels());
    this.#runtimes = new RuntimeHolder(runtime, mostOldGenerations);
    this.#status = new ReloadStatus(loaded.sha256, inputs);
    this.#bounds = new ProcessBounds(loaded.config, { ...parts, log: options.log });
    const made = { loaded, parts, bounds: this.#bounds, runtimes: this.#runtimes };
    this.#plane = threads ?? new LocalPlane(made);
    this.#isAlone = threads === undefined;
  }

  get addresses(): BoundAddresses {
    return this.#addresses;
  }

  /** Stops accepting, drains for `limits.drain_timeout` (or `drainMs`), closes everything. Idempotent enough. */
  async close(
    drainMs: number = durationMs(this.#loaded.config.limits.drain_timeout),
  ): Promise<void> {
    this.#state = "draining";
    this.#chain?.close();
    await this.#reloader?.close();
    this.#approvals.drain();
    await this.#plane.close(drainMs);
    // Before the generation that knows the way to the collector.
    await this.#otlp?.close(2_000);
    await this.#runtimes.close(1_000);
    await Promise.all(this.#admin.map((server) => server.close()));
    this.#kills.close();
    this.#approvals.close();
    this.#bounds.close();
    this.#peers.close();
    await this.#sessions?.close();
    await this.#stateParts.close();
    this.#metrics.close();
  }

  /** Serves a connection that something else accepted, as if a surface had. */
  adopt(surface: "forward" | "captured", socket: Socket): void {
    if (this.#plane.adopt === undefined) socket.destroy();
    else this.#plane.adopt(surface, socket);
  }

  /** Why the process should get no traffic, or undefined. */
  readiness(): string | undefined {
    if (this.#state !== "serving") return this.#state;
    // Beside other threads, this one has the X.509-SVID that is mirrored to files.
    const unidentified = this.#isAlone
      ? undefined
      : this.#runtimes.runtime.workload?.x509NotReady();
    return unidentified === undefined ? this.#plane.notReady() : `spiffe: ${unidentified}`;
  }

  /** Stops all traffic, as a signal asks for it. */
  async killAll(by: string): Promise<void> {
    await this.#kills.kill({ scope: "all", value: "", reason: by }, by);
  }

  /** Serves what `load` gives in place of what was served before; resolves with why not, and then nothing has changed. */
  async reload(load: GivenOptions["load"]): Promise<Refused | undefined> {
    return this.#reloader?.reload(load) ?? "the proxy is closed";
  }

  /** What changed the level of the log outside the file says so. */
  levelChanged(): void {
    this.#plane.levelChanged();
  }

  /** Binds every surface; health is last, so that probes fail until everything else is there. */
  async #open(): Promise<void> {
    const { config } = this.#loaded;
    await this.#kills.start();
    await this.#approvals.start();
    const addresses: { -readonly [Surface in keyof BoundAddresses]: BindAddress } =
      await this.#plane.open();
    const admin = adminSurfaces(config, {
      log: this.#log,
      metrics: this.#metrics,
      heads: this.#bounds.heads,
      sessions: this.#sessions,
      definitions: () => allDefinitions(this.#loaded),
      config: () => this.#loaded.config,
      reloadStatus: () => this.#status.view(),
      chain: () => this.#services.acceptance.view(),
      readiness: () => this.readiness(),
      plane: this.#plane,
      runtime: () => this.#runtimes.runtime,
      logouts: this.#stateParts.logouts,
      recheck: () => void this.#recheckTunnels(),
      kills: this.#kills,
      approvals: this.#approvals,
      warnings: () => this.#loaded.warnings,
      status: () => this.#statusNow(),
    });
    const { given } = this.#options;
    const opened = admin.filter(({ surface }) => given?.opens(surface) ?? true);
    await bindAdmin(opened, this.#log, (surface, server, bound) => {
      this.#admin.push(server);
      this.#ownListeners.add(bound.host, bound.port);
      this.#plane.owns(bound);
      addresses[surface] = bound;
    });
    this.#addresses = addresses;
    processGauges(this.#metrics, {
      activity: () => this.#plane.activity(),
      runtime: () => this.#runtimes.runtime,
      readiness: () => this.readiness(),
    });
    if (config.reload.enabled) this.#reloader = this.#makeReloader(config);
    this.#state = "serving";
    this.#setLogLevel(config);
    warnOf(this.#loaded, this.#log);
    this.#log.info(
      {
        version: this.#options.version,
        addresses,
        egressEnforcement: config.egress_enforcement,
        config: this.#options.file,
      },
      "serving",
    );
  }

  #statusNow(): ReturnType<typeof statusOf> {
    return statusOf({
      version: this.#options.version,
      reason: this.readiness(),
      egressEnforcement: this.#loaded.config.egress_enforcement,
      startedAt: this.#startedAt,
      generation: this.#serving.generation,
      addresses: this.#addresses,
      metrics: this.#metrics,
    });
  }

  #makeReloader(config: Config): Reloader {
    const { file, lenient, env, given } = this.#options;
    this.#chain = new ChainReload(config, this.#services, () => void this.#reloader?.reload());
    return new Reloader({
      file: given === undefined ? file : undefined,
      debounceMs: durationMs(config.reload.debounce),
      chain: this.#chain,
      status: this.#status,
      log: this.#log,
      metrics: this.#metrics,
      load: async () => (given === undefined ? loadConfig(file, { lenient, env }) : this.#loaded),
      apply: (loaded) => this.#apply(loaded),
    });
  }

  /** Swaps a new generation in, whole or not at all. */
  async #apply(loaded: Loaded): Promise<Refused | undefined> {
    const fixed = restartOnlyChanges(this.#loaded.config, loaded.config);
    if (fixed.length > 0 && loaded.given !== undefined)
      return fixed.map((key) => loaded.problemAt([key], "cannot change while the proxy listens"));
    if (fixed.length > 0)
      return `unreloadable field changed, pod restart required: [${fixed.join(" ")}]`;
    const generation = this.#serving.generation + 1;
    this.#chain?.trying(loaded.config);
    const definitions = await definitionsFor(loaded);
    const services = { ...this.#services, definitions, isEcho: !this.#isAlone };
    const built = await buildRuntime(loaded.config, generation, services, {
      probe: this.#options.probe !== "never",
      serve: this.#isAlone,
    });
    if (built.kind === "failed") return buildProblems(loaded, built.problems);
    const refused = await this.#plane.prepare(loaded, generation);
    if (refused !== undefined) {
      await built.runtime.close();
      await this.#services.acceptance.dropped();
      return refused;
    }
    this.#serving.generation = generation;
    this.#loaded = loaded;
    this.#setLogLevel(loaded.config);
    this.#runtimes.swap(built.runtime, durationMs(loaded.config.limits.drain_timeout));
    built.serves();
    await this.#plane.swap(loaded, built.runtime);
    this.#approvals.serve(generation);
    this.#chain?.accepted(loaded.config);
    warnOfOpenPipelines(loaded, this.#log);
    await this.#recheckTunnels();
    return undefined;
  }

  /** Closes the open tunnels that the current generation would refuse. */
  async #recheckTunnels(): Promise<void> {
    if (!this.#loaded.config.reload.recheck_tunnels) return;
    const cut = await this.#plane.recheck();
    if (cut > 0) this.#log.info({ cut }, "tunnels that the new rules refuse were closed");
  }

  /** The file's level wins over the environment's; without one, the level stays as it is. */
  #setLogLevel(config: Config): void {
    if (config.log.level !== undefined) this.#log.level = config.log.level;
  }
}
