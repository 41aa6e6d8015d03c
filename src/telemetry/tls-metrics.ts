/** Counters of TLS handshakes with clients: of the bridge, and of listeners that speak TLS themselves. */
import type { MakeTally, Tally } from "./instruments.ts";

/** How a handshake with a listener ended; `verified` is mutual TLS: the client's certificate was good. */
export type ClientHandshake = "verified" | "unverified" | "failed";

/** What `/stats` shows of handshakes, by outcome; a map is absent where nothing was counted. */
export interface TlsStats {
  readonly tls_bridge?: Readonly<Record<string, number>>;
  readonly mtls?: Readonly<Record<string, number>>;
}

/** Made by Metrics. */
export class TlsMetrics {
  readonly #tallies: { readonly bridge: Tally; readonly client: Tally };
  readonly #bridge = new Map<string, number>();
  readonly #client = new Map<string, number>();

  constructor(tally: MakeTally) {
    this.#tallies = {
      bridge: tally(
        "bridge_handshakes_total",
        "TLS handshakes of clients with the bridge, by outcome.",
        "outcome",
      ),
      client: tally(
        "client_handshakes_total",
        "TLS handshakes of clients with a listener; verified ones brought a certificate that its authority signed.",
        "outcome",
      ),
    };
  }

  /** `outcome` is the kind that the terminator reports, a closed set. */
  bridgeHandshake(outcome: string): void {
    this.#tallies.bridge.of(outcome).value += 1;
    this.#bridge.set(outcome, (this.#bridge.get(outcome) ?? 0) + 1);
  }

  clientHandshake(outcome: ClientHandshake): void {
    this.#tallies.client.of(outcome).value += 1;
    this.#client.set(outcome, (this.#client.get(outcome) ?? 0) + 1);
  }

  snapshot(): TlsStats {
    return {
      ...(this.#bridge.size === 0 ? {} : { tls_bridge: Object.fromEntries(this.#bridge) }),
      ...(this.#client.size === 0 ? {} : { mtls: Object.fromEntries(this.#client) }),
    };
  }
}
