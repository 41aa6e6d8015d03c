/** What a soak has seen, and the verdicts that follow from it. */
import type { IncomingHttpHeaders } from "node:http";

/** How one request ended at its client; status 0 is a connection that was cut, -1 a client that left. */
export interface Answer {
  readonly status: number;
  /** Digest of the body, where one came whole. */
  readonly digest?: string;
  readonly head?: IncomingHttpHeaders;
  /** The body of a refusal. */
  readonly text?: string | undefined;
  /** Why a connection was cut, as its client says. */
  readonly why?: string | undefined;
}

/** The proxy after a cycle, at rest. */
export interface Sample {
  readonly rssMiB: number;
  readonly descriptors: number;
  /** Connections, tunnels and flows that its gauges still hold. */
  readonly held: number;
  readonly heapMiB: number;
  /** Timers that have not run and were not cleared, also those that keep no process alive. */
  readonly timers: number;
  /** Entries of all maps and sets. */
  readonly entries: number;
  /** Requests until then. */
  readonly asked: number;
}

const promises = ["lost", "byte", "rejection", "leak", "counted"] as const;

/** One promise that a stage is held to. */
export type Promised = (typeof promises)[number];

export interface Verdict {
  readonly promise: Promised;
  readonly isKept: boolean;
  readonly said: string;
}

/** What the samples of the last third may have more than those of the first, which fill caches and the heap. */
export const mayGrow = {
  rssMiB: 96,
  rssPart: 0.25,
  descriptors: 4,
  heapMiB: 48,
  timers: 12,
  entries: 500,
};
/** What is kept for a while of new names and tokens is no leak; an entry for each request is one. */
const entriesPerRequest = 0.1;

export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

/** Growth from the first third of the cycles to the last, by medians; the first quarter, which warms up, is left out. */
export function growth(samples: readonly Sample[], key: keyof Sample): number {
  const values = samples.slice(Math.floor(samples.length / 4)).map((sample) => sample[key]);
  const third = Math.max(1, Math.floor(values.length / 3));
  return median(values.slice(-third)) - median(values.slice(0, third));
}

/** The book of one stage. */
export class Ledger {
  /** Whether what is more than at first is waited for; a bug on purpose will not go away. */
  readonly isPatient: boolean;
  asked = 0;
  /** Answers that the proxy refused with, as clients saw them. */
  refusalsSeen = 0;
  /** Refusals as its metrics count them. */
  refusalsCounted = 0;
  readonly samples: Sample[] = [];
  readonly faults: string[] = [];
  readonly #lost: string[] = [];
  readonly #wrong: string[] = [];

  constructor(isPatient = true) {
    this.isPatient = isPatient;
  }

  /** Books an answer: one of `statuses` is due, and the bytes of `digest` where a 200 came. */
  answered(what: string, answer: Answer, statuses: readonly number[], digest?: string): void {
    this.asked += 1;
    if (answer.status >= 400) this.refusalsSeen += 1;
    const { status, why } = answer;
    if (!statuses.includes(status)) {
      this.lost(`${what}: ${status}${why === undefined ? "" : ` (${why})`}`);
    } else if (status === 200 && digest !== undefined && answer.digest !== digest) {
      this.#wrong.push(what);
    }
  }

  /** Books something that had to happen and did not. */
  lost(what: string): void {
    this.#lost.push(what);
  }

  verdicts(): Verdict[] {
    const some = (list: readonly string[]): string => {
      const kinds = [...new Set(list)];
      const more = kinds.length > 4 ? ", …" : "";
      return list.length === 0 ? "none" : `${list.length}: ${kinds.slice(0, 4).join(", ")}${more}`;
    };
    const grown = growthOf(this.samples);
    return [
      { promise: "lost", isKept: this.#lost.length === 0, said: some(this.#lost) },
      { promise: "byte", isKept: this.#wrong.length === 0, said: some(this.#wrong) },
      { promise: "rejection", isKept: this.faults.length === 0, said: some(this.faults) },
      { promise: "leak", isKept: grown.isKept, said: grown.said },
      {
        promise: "counted",
        isKept: this.refusalsCounted >= this.refusalsSeen,
        said: `${this.refusalsCounted} of ${this.refusalsSeen}`,
      },
    ];
  }
}

function growthOf(samples: readonly Sample[]): { isKept: boolean; said: string } {
  if (samples.length === 0) return { isKept: true, said: "not sampled" };
  const first = samples[0]?.rssMiB ?? 0;
  const held = samples.at(-1)?.held ?? 0;
  const grown: [what: string, by: number, most: number][] = [
    ["RSS MiB", growth(samples, "rssMiB"), Math.max(mayGrow.rssMiB, first * mayGrow.rssPart)],
    ["heap MiB", growth(samples, "heapMiB"), mayGrow.heapMiB],
    ["descriptors", growth(samples, "descriptors"), mayGrow.descriptors],
    ["timers", growth(samples, "timers"), mayGrow.timers],
    [
      "map entries",
      growth(samples, "entries"),
      mayGrow.entries + entriesPerRequest * growth(samples, "asked"),
    ],
  ];
  const said = grown.map(([what, by]) => `${what} ${by < 0 ? "" : "+"}${by.toFixed(0)}`);
  return {
    isKept: held === 0 && grown.every(([, by, most]) => by <= most),
    said: `${said.join(", ")}, ${held} held`,
  };
}
