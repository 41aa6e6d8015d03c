/** What the harness asks of the load generator, one JSON object per line on stdin. */
export type LoadCommand = HttpLoad | BridgeLoad | TunnelLoad | BulkLoad | HoldLoad | ReleaseLoad;

export interface HttpLoad {
  readonly mode: "http";
  readonly port: number;
  /** The request head without content-length and the final blank line. */
  readonly head: string;
  readonly bodyBytes: number;
  /** Body bytes that every answer must carry to count. */
  readonly expectBytes: number;
  readonly connections: number;
  readonly seconds: number;
  /** Ends before the time is up, once so many were answered. */
  readonly most?: number;
}

/** GET inside TLS that the proxy opens: over kept connections of HTTP/1.1, over HTTP/2, or each after a handshake. */
export interface BridgeLoad {
  readonly mode: "bridge";
  readonly protocol: "h1" | "h2" | "fresh";
  readonly port: number;
  readonly authority: string;
  readonly path: string;
  readonly expectBytes: number;
  readonly connections: number;
  readonly seconds: number;
}

export interface Route {
  readonly port: number;
  /** Authority for CONNECT; absent where the peer relays to the origin without being asked. */
  readonly authority: string | undefined;
}

export interface TunnelLoad extends Route {
  readonly mode: "tunnels";
  readonly connections: number;
  readonly seconds: number;
}

export interface BulkLoad extends Route {
  readonly mode: "bulk";
  readonly direction: "down" | "up";
  readonly connections: number;
  readonly seconds: number;
}

/** Connections that stay open and idle: tunnels, or such that asked for something once. */
export type HoldLoad = { readonly mode: "hold"; readonly count: number } & (
  | (Route & { readonly kind: "tunnel" })
  | {
      readonly kind: "keep-alive";
      readonly port: number;
      readonly head: string;
      readonly expectBytes: number;
    }
  | {
      readonly kind: "bridged";
      readonly port: number;
      readonly authority: string;
      readonly head: string;
      readonly expectBytes: number;
    }
);

export interface ReleaseLoad {
  readonly mode: "release";
}

/** What one command gave. `count` is operations in the window, or bytes for a bulk transfer. */
export interface LoadResult {
  readonly count: number;
  /** Operations or bytes over the whole life of the run, ramp included: the base for CPU cost. */
  readonly total: number;
  readonly failed: number;
  readonly firstFailure: string | undefined;
  readonly seconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** Collects latencies in a ring of fixed size, and failures by count with the first one's text. */
export class Tally {
  static readonly #CAPACITY = 1 << 19;
  readonly #latencies = new Float32Array(Tally.#CAPACITY);
  count = 0;
  failed = 0;
  firstFailure: string | undefined;

  record(ms: number): void {
    this.#latencies[this.count % Tally.#CAPACITY] = ms;
    this.count += 1;
  }

  fail(reason: string): void {
    this.failed += 1;
    this.firstFailure ??= reason.slice(0, 200);
  }

  result(seconds: number): LoadResult {
    const used = this.#latencies.slice(0, Math.min(this.count, Tally.#CAPACITY)).sort();
    const at = (q: number): number =>
      used[Math.min(used.length - 1, Math.floor(used.length * q))] ?? 0;
    return {
      count: this.count,
      total: this.count,
      failed: this.failed,
      firstFailure: this.firstFailure,
      seconds,
      p50Ms: at(0.5),
      p99Ms: at(0.99),
    };
  }
}
