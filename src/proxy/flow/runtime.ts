/** One configuration generation as flows see it, and the leases that keep it alive while they run. */
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import type { Destination } from "../../net/destination.ts";
import type { TlsPeer } from "../../pipeline/flow.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";
import type { OriginPools } from "../../upstream/origin-pools.ts";
import type { WorkloadIdentity } from "../../spiffe/workload-identity.ts";
import type { Upstream } from "../../upstream/upstream.ts";
import type { CallerAuthentication } from "./caller-authentication.ts";
import type { TlsBridge } from "./tls-bridge.ts";

/** Limits that a flow reads. Milliseconds and bytes; a time of 0 means no limit. */
export interface FlowLimits {
  readonly bodyTimeoutMs: number;
  readonly streamIdleTimeoutMs: number;
  readonly tunnelIdleTimeoutMs: number;
  /** How long the client of a tunnel that is not dialled yet may take to show its first bytes. */
  readonly firstBytesTimeoutMs: number;
  readonly maxBodyBytes: number;
  readonly maxTunnels: number;
}

/** The one service behind the reverse proxy (`listener.reverse_proxy_backend`). */
export interface Backend {
  readonly destination: Destination;
  /** Path of the URL, without a slash at its end; put before the path of every request. */
  readonly basePath: string;
  /** It speaks HTTP/2 without TLS (`h2c://`). */
  readonly priorKnowledge?: "always" | "where-needed" | undefined;
}

/** The services of one generation for a flow. Immutable: a reload makes another one. */
export interface Runtime {
  readonly generation: number;
  readonly inbound: Pipeline;
  readonly outbound: Pipeline;
  readonly upstream: Upstream;
  readonly origins: OriginPools;
  /** Hosts whose outbound flows skip the pipeline (`listener.skip_hosts`), matched on the dialled destination. */
  readonly skipHosts: { matches(host: string): boolean };
  readonly backend: Backend | undefined;
  /** Opens TLS connections; absent where `tls_bridge` is off. */
  readonly bridge: TlsBridge | undefined;
  /** Who may use the forward proxy; absent where everybody may. */
  readonly callers: CallerAuthentication | undefined;
  /** Who this workload is; absent where the file has no `spiffe` block. */
  readonly workload?: WorkloadIdentity | undefined;
  /** Who is behind the connections to a destination; undefined where they are not of mutual TLS. */
  peerOf?(this: void, destination: Destination): TlsPeer | undefined;
  /** Verified TLS over a connection of `upstream`. */
  secure(socket: Socket, destination: Destination): Promise<TLSSocket>;
  readonly limits: FlowLimits;
  /** Runs when the last lease has ended. */
  close(): Promise<void>;
}

/** One flow's hold on the generation that it started with. */
export interface Lease {
  readonly runtime: Runtime;
  /** Idempotent. */
  release(): void;
}

/** Counts the leases of one generation and closes it after the last. */
class Generation {
  readonly runtime: Runtime;
  #leases = 0;
  #retired = false;
  #settle: (() => void) | undefined;
  readonly done: Promise<void>;

  constructor(runtime: Runtime) {
    this.runtime = runtime;
    this.done = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  get leases(): number {
    return this.#leases;
  }

  get isOver(): boolean {
    return this.#settle === undefined;
  }

  acquire(): Lease {
    this.#leases += 1;
    let held = true;
    return {
      runtime: this.runtime,
      release: () => {
        if (!held) return;
        held = false;
        // Of a generation that was closed by force none are left.
        if (this.#leases > 0) this.#leases -= 1;
        this.#closeWhenIdle();
      },
    };
  }

  /** No new lease will come; close once the present ones have ended. */
  retire(): void {
    this.#retired = true;
    this.#closeWhenIdle();
  }

  /** Closes now, whether or not leases are held. */
  force(): void {
    this.#retired = true;
    this.#leases = 0;
    this.#closeWhenIdle();
  }

  #closeWhenIdle(): void {
    if (!this.#retired || this.#leases > 0 || this.#settle === undefined) return;
    const settle = this.#settle;
    this.#settle = undefined;
    // A failure to close has no receiver; the parts log their own faults.
    void this.runtime.close().then(settle, settle);
  }
}

/** How many old generations a process keeps for streams that do not end: each has its plugins and its connections. */
export const mostOldGenerations = 8;

/** The current generation. Swapping it never disturbs a flow that has its lease. */
export class RuntimeHolder {
  #current: Generation;
  /** Oldest first. */
  readonly #retired = new Set<Generation>();
  /** Those of them that have had their time. */
  readonly #overdue = new Set<Generation>();
  #kept: number;

  /** `kept`: how many old generations may outlast their time as long as they have flows, such as streams that go on for hours. */
  constructor(runtime: Runtime, kept = 0) {
    this.#current = new Generation(runtime);
    this.#kept = kept;
  }

  get runtime(): Runtime {
    return this.#current.runtime;
  }

  /** Flows that are in progress, those of retired generations included. */
  get flows(): number {
    let flows = this.#current.leases;
    for (const generation of this.#retired) {
      if (generation !== this.#current) flows += generation.leases;
    }
    return flows;
  }

  acquire(): Lease {
    return this.#current.acquire();
  }

  /** Serves new flows from `runtime`; the old generation closes after its last flow, or after `drainMs` where too many are kept. */
  swap(runtime: Runtime, drainMs: number): void {
    const old = this.#current;
    this.#current = new Generation(runtime);
    this.#retire(old, drainMs);
  }

  /** Closes everything; generations that still have flows get `drainMs`. */
  async close(drainMs: number): Promise<void> {
    this.#retire(this.#current, drainMs);
    this.#kept = 0;
    const timer = setTimeout(() => this.#forceOverdue(), drainMs);
    await Promise.all([...this.#retired].map((generation) => generation.done));
    clearTimeout(timer);
  }

  #retire(generation: Generation, drainMs: number): void {
    this.#retired.add(generation);
    const timer = setTimeout(() => {
      this.#overdue.add(generation);
      this.#forceOverdue();
    }, drainMs);
    timer.unref();
    void generation.done.then(() => {
      clearTimeout(timer);
      this.#retired.delete(generation);
      this.#overdue.delete(generation);
    });
    generation.retire();
  }

  /** Closes those that have had their time, the oldest first, until no more are left than are kept. */
  #forceOverdue(): void {
    let open = [...this.#retired].filter(({ isOver }) => !isOver).length;
    for (const generation of this.#overdue) {
      if (open <= this.#kept) return;
      this.#overdue.delete(generation);
      generation.force();
      open -= 1;
    }
  }
}
