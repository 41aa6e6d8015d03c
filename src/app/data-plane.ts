/** What serves traffic: the listeners of this thread, or threads that have listeners of their own. */
import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import type { DirectedBudgets } from "../admin/budgets.ts";
import type { PluginObservations } from "../admin/denials.ts";
import type { LoadedConfig } from "../config/load.ts";
import type { BindAddress } from "../listener/bind.ts";
import type { Kill } from "../pipeline/kill-switch.ts";
import type { SurfaceServices } from "../proxy/exchange/arrival.ts";
import { Callers } from "../proxy/flow/callers.ts";
import type { Runtime, RuntimeHolder } from "../proxy/flow/runtime.ts";
import { LiveExchanges } from "../proxy/flow/live-exchanges.ts";
import { TunnelRegistry } from "../proxy/flow/tunnel-registry.ts";
import { BridgeServer } from "../proxy/tunnel/bridge-server.ts";
import type { Problem } from "../yaml/problem.ts";
import type { ProcessBounds } from "./bounds.ts";
import { DataSurfaces } from "./data-surfaces.ts";
import { type BoundAddresses, type Crowd, listenerLimits } from "./listen-options.ts";
import type { ProcessParts } from "./process-parts.ts";

/** How much is going on. */
export interface Activity {
  readonly connections: number;
  readonly flows: number;
  readonly tunnels: number;
  readonly upstreamConnections: number;
  /** Requests that wait for a person. */
  readonly held: number;
}

/** Why a generation is not served: problems of its file, or a sentence. */
export type Refused = readonly Problem[] | string;

/** Serves generations one after another. */
export interface DataPlane {
  /** Binds the listeners and serves the generation that there is. */
  open(): Promise<BoundAddresses>;
  /** An operator's surface was bound: nothing that an agent says makes the proxy dial it. */
  owns(bound: BindAddress): void;
  /** Why there should be no traffic, or undefined. */
  notReady(): string | undefined;
  /** What is worth a line although there may be traffic. */
  note(): string | undefined;
  activity(): Activity;
  /**
   * Resolves when everything that is shown is as of now, as far as it can be had in time; with `details`, what plugins show
   * as well. Absent where it always is.
   */
  refresh?(details?: boolean): Promise<void>;
  /** Gets ready to serve another generation; what it resolves with is why that cannot be. */
  prepare(loaded: LoadedConfig, generation: number): Promise<Refused | undefined>;
  /** Serves what was prepared; `runtime` is this thread's. */
  swap(loaded: LoadedConfig, runtime: Runtime): Promise<void> | undefined;
  /** Closes open tunnels that the generation refuses; resolves with how many. */
  recheck(): Promise<number>;
  /** Stops these, and nothing else; resolves with how many tunnels and exchanges ran. */
  kill(kills: readonly Kill[]): Promise<number>;
  /** Serves a connection that something else accepted, as if a surface had; absent where that is in no thread's reach. */
  adopt?(surface: "forward" | "captured", socket: Socket): void;
  /** Of each thread, in the order of the steps. */
  observations(): readonly (readonly PluginObservations[])[];
  /** What each thread has seen. */
  budgets(): readonly DirectedBudgets[];
  /** The logger's level has changed. */
  levelChanged(): void;
  /** Stops accepting, lets what runs finish until the deadline, and cuts the rest. */
  close(drainMs: number): Promise<void>;
}

/** What the plane of one thread is made of. */
export interface LocalPlaneParts {
  readonly loaded: LoadedConfig;
  readonly parts: ProcessParts;
  readonly bounds: ProcessBounds;
  readonly runtimes: RuntimeHolder;
  /** Absent where this is the only thread. */
  readonly crowd?: Crowd | undefined;
}

/** The listeners of this thread. */
export class LocalPlane implements DataPlane {
  readonly #made: LocalPlaneParts;
  readonly #tunnels: TunnelRegistry;
  readonly #live: LiveExchanges;
  #bridge: BridgeServer | undefined;
  #surfaces: DataSurfaces | undefined;

  constructor(made: LocalPlaneParts) {
    this.#made = made;
    const { kills } = made.parts;
    this.#tunnels = new TunnelRegistry(made.crowd?.tunnels, kills);
    this.#live = new LiveExchanges(kills);
  }

  open(): Promise<BoundAddresses> {
    const { loaded, parts, crowd } = this.#made;
    const { config } = loaded;
    const services = this.#services();
    const bridge = new BridgeServer(services, listenerLimits(config));
    this.#bridge = bridge;
    const { ownListeners } = parts;
    this.#surfaces = new DataSurfaces({ loaded, services, bridge, ownListeners, crowd });
    return this.#surfaces.open();
  }

  owns({ host, port }: BindAddress): void {
    this.#made.parts.ownListeners.add(host, port);
  }

  notReady(): string | undefined {
    const { inbound, outbound, workload } = this.#made.runtimes.runtime;
    const unidentified = workload?.notReady();
    if (unidentified !== undefined) return `spiffe: ${unidentified}`;
    for (const pipeline of [inbound, outbound]) {
      const missing = pipeline.notReady();
      if (missing !== undefined) return `${pipeline.direction} plugin not ready: ${missing.plugin}`;
    }
    return this.#surfaces?.transparent.notReady();
  }

  note(): string | undefined {
    return this.#surfaces?.transparent.note();
  }

  activity(): Activity {
    const { runtimes } = this.#made;
    return {
      connections: this.#surfaces?.connections ?? 0,
      flows: runtimes.flows,
      tunnels: this.#tunnels.size,
      upstreamConnections: runtimes.runtime.origins.connections,
      held: this.#made.parts.approvals.held,
    };
  }

  prepare(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  swap({ config }: LoadedConfig, runtime: Runtime): undefined {
    this.#surfaces?.judgePeers(config, runtime);
  }

  recheck(): Promise<number> {
    return this.#tunnels.recheck(this.#made.runtimes.runtime);
  }

  kill(kills: readonly Kill[]): Promise<number> {
    this.#made.parts.kills.set(kills);
    // Exchanges first: inside of a tunnel they can still be answered.
    const ended = this.#live.endKilled();
    return Promise.resolve(ended + this.#tunnels.cutKilled());
  }

  adopt(surface: "forward" | "captured", socket: Socket): void {
    this.#surfaces?.adopt(surface, socket);
  }

  observations(): readonly (readonly PluginObservations[])[] {
    return [this.#made.runtimes.runtime.outbound.observations()];
  }

  budgets(): readonly DirectedBudgets[] {
    const { inbound, outbound } = this.#made.runtimes.runtime;
    return [{ inbound: inbound.budgets(), outbound: outbound.budgets() }];
  }

  levelChanged(): void {
    // There is one logger.
  }

  async close(drainMs: number): Promise<void> {
    this.#bridge?.drain();
    const cut = setTimeout(() => this.#tunnels.cutAll(), drainMs);
    await this.#surfaces?.close(drainMs);
    clearTimeout(cut);
    this.#tunnels.cutAll();
    this.#bridge?.close();
  }

  #services(): SurfaceServices {
    const { loaded, parts, bounds, runtimes, crowd } = this.#made;
    return {
      ...bounds.shared(),
      recorder: parts.recorder,
      // Unique to this process, so that a message that comes back is recognised and a chain of proxies is not.
      pseudonym: crowd?.pseudonym ?? makePseudonym(),
      runtimes,
      tunnels: this.#tunnels,
      live: this.#live,
      receipts: parts.receipts,
      callers: new Callers(parts.peers, parts.recorder.log, loaded.config.session.executables),
    };
  }
}

/** A name of this process in Via fields. */
export function makePseudonym(): string {
  return `authbridge-${randomBytes(6).toString("hex")}`;
}
