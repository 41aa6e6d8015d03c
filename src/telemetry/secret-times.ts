/** When the secrets of the configuration were fetched and when they end, by the name of their source. */
import { BoundedMap } from "../bounded-map.ts";
import { secretGauges } from "./catalogue.ts";
import type { Tally } from "./instruments.ts";
import { Gauge, type Registry } from "./prom-client.ts";

/** What became of a secret; milliseconds since the epoch. */
interface Note {
  readonly kind: "fetched" | "failed" | "closed";
  readonly expiresAt?: number | undefined;
}

interface Times {
  readonly fetchedAt: number;
  readonly expiresAt: number;
}

/** The times of one source, or that it is no longer there. */
export type SecretChange = readonly [source: string, times: Times | undefined];

const maxSources = 1_000;

/** The sources of one process, as far as its threads have fetched them. */
export class SecretTimes {
  readonly #fetches: Tally<readonly [string, "ok" | "failed"]>;
  readonly #times = new BoundedMap<string, Times>(maxSources);
  readonly #untold = new BoundedMap<string, Times | undefined>(maxSources);

  constructor(registry: Registry, fetches: Tally<readonly [string, "ok" | "failed"]>) {
    this.#fetches = fetches;
    const readings = {
      secret_fetched_timestamp_seconds: ({ fetchedAt }) => fetchedAt / 1_000,
      secret_expiry_timestamp_seconds: ({ expiresAt }) => expiresAt / 1_000,
    } satisfies Readonly<Record<keyof typeof secretGauges, (times: Times) => number>>;
    for (const [name, read] of Object.entries(readings)) {
      const times = this.#times;
      const gauge: Gauge = new Gauge({
        name: `authbridge_${name}`,
        help: secretGauges[name as keyof typeof secretGauges],
        labelNames: ["source"],
        registers: [registry],
        collect(): void {
          gauge.reset();
          for (const [source, each] of times) {
            const value = read(each);
            if (Number.isFinite(value)) gauge.set({ source }, value);
          }
        },
      });
    }
  }

  note(source: string, { kind, expiresAt = Number.POSITIVE_INFINITY }: Note): void {
    if (kind !== "closed")
      this.#fetches.of(source, kind === "fetched" ? "ok" : "failed").value += 1;
    if (kind === "failed") return;
    const times = kind === "fetched" ? { fetchedAt: Date.now(), expiresAt } : undefined;
    this.#set(source, times);
    this.#untold.renew(source, times);
  }

  /** What has changed since this was asked last, for the thread that shows it. */
  changes(): readonly SecretChange[] {
    const changes = [...this.#untold];
    for (const [source] of changes) this.#untold.delete(source);
    return changes;
  }

  /** Takes what another thread has seen. */
  add(changes: readonly SecretChange[]): void {
    for (const [source, times] of changes) this.#set(source, times);
  }

  #set(source: string, times: Times | undefined): void {
    if (times === undefined) this.#times.delete(source);
    else this.#times.renew(source, times);
  }
}
