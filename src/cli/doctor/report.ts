/** What the doctor found: one line per check, with what to do about a failure. */
import { messageOf } from "../../errors.ts";
import { printableLine } from "../event-line.ts";

/** The outcome of one check. Nothing secret goes into its words. */
export interface Finding {
  readonly verdict: "pass" | "fail" | "skip";
  readonly text: string;
  /** What to do; for failures. */
  readonly remedy?: string;
}

/** A check that found nothing wrong. */
export function pass(text: string): Finding {
  return { verdict: "pass", text };
}

/** A check that found something wrong, and what to do about it. */
export function fail(text: string, remedy: string): Finding {
  return { verdict: "fail", text, remedy };
}

/** A check that had nothing to look at. */
export function skip(text: string): Finding {
  return { verdict: "skip", text };
}

const labels = { pass: "pass", fail: "FAIL", skip: "skip" } as const;
const nameWidth = 10;

/** A finding with the check that it is of. */
export interface NamedFinding extends Finding {
  readonly check: string;
}

/** A finding as a line for people. */
export function findingLine({ check, verdict, text, remedy: todo }: NamedFinding): string {
  const remedy = todo === undefined ? "" : ` — ${todo}`;
  return `${labels[verdict]}  ${check.padEnd(nameWidth)}  ${printableLine(text + remedy)}\n`;
}

/** Counts findings and passes them on as they come. */
export class DoctorReport {
  readonly #tell: (finding: NamedFinding) => void;
  #failures = 0;

  constructor(tell: (finding: NamedFinding) => void) {
    this.#tell = tell;
  }

  get failures(): number {
    return this.#failures;
  }

  add(name: string, finding: Finding): void {
    if (finding.verdict === "fail") this.#failures += 1;
    this.#tell({ check: name, ...finding });
  }

  /** Runs a check under a limit; one that throws or takes too long is a failure, and the next one is not its victim. */
  async check(
    name: string,
    limitMs: number,
    work: (signal: AbortSignal) => Promise<Finding | readonly Finding[]>,
  ): Promise<boolean> {
    const before = this.#failures;
    try {
      const found = await withinLimit(limitMs, work);
      for (const finding of [found].flat()) this.add(name, finding);
    } catch (error) {
      this.add(name, fail(messageOf(error), "see docs/trust.md"));
    }
    return this.#failures === before;
  }
}

/** The signal is aborted at the limit; work that does not listen is left behind. */
async function withinLimit<T>(
  limitMs: number,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const ending = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`no result within ${limitMs / 1_000} s`));
      ending.abort();
    }, limitMs);
  });
  try {
    return await Promise.race([work(ending.signal), limit]);
  } finally {
    clearTimeout(timer);
  }
}
