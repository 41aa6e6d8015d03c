/** The decision log of `audit`: one line per decision, chained, so that a change of the past can be seen. */
import { constants, open } from "node:fs/promises";
import type { RequestContext } from "../pipeline/context.ts";
import { chained, decisionOf, firstLink, isRefused, type Link, linkOf } from "./audit-record.ts";
import type { SessionEvent } from "./event.ts";
import type { LineFile } from "./line-file.ts";

const tailBytes = 1_048_576;

/** Turns moments of flows into decisions. */
export class Decisions {
  readonly #write: (facts: object) => void;

  constructor(write: (facts: object) => void) {
    this.#write = write;
  }

  /** Writes down a decision; the response to a permitted message decides nothing, unless a step refuses it. */
  decided(event: SessionEvent, context: RequestContext): void {
    if (event.phase !== "response" || isRefused(event)) this.#write(decisionOf(event, context));
  }

  /** Writes down that the file exempts this destination from the pipeline (`listener.skip_hosts`). */
  exempted(context: RequestContext, at: number): void {
    const { flow, method, host } = context;
    this.#write({
      at: new Date(at).toISOString(),
      decision: "exempt",
      direction: flow.direction,
      request: flow.id,
      client: flow.client.address,
      host,
      method,
      steps: [],
    });
  }
}

/** Who vouches for the lines of a log. */
export interface Witness {
  /** The log took a line that is not written yet. */
  appended(line: string, link: Link): void;
  /** Says what the log held at its end. */
  close(): Promise<void>;
}

/** Writes decisions. One per process; the chain goes on over restarts and files. */
export class AuditLog {
  readonly #file: LineFile;
  readonly #witness: Witness | undefined;
  #last: Link;
  #lost = 0;

  constructor(file: LineFile, last: Link = { sequence: 0, hash: firstLink }, witness?: Witness) {
    this.#file = file;
    this.#last = last;
    this.#witness = witness;
  }

  /** The newest link: kept elsewhere, it shows when the end of the log was cut off. */
  get head(): Link {
    return this.#last;
  }

  async close(): Promise<void> {
    await this.#file.close();
    await this.#witness?.close();
  }

  /** A line that finds no room is not in the chain; the next one says how many there were. */
  append(facts: object): void {
    const { line, link } = chained(
      this.#last,
      this.#lost === 0 ? facts : { ...facts, lost: this.#lost },
    );
    if (this.#file.write(line)) {
      this.#witness?.appended(line, link);
      this.#last = link;
      this.#lost = 0;
    } else {
      this.#lost += 1;
    }
  }
}

/** The last whole line of a log, or of the file before it; the beginning where there is none. */
export async function lastLink(path: string): Promise<Link> {
  for (const file of [path, `${path}.1`]) {
    const lines = (await tailOf(file)).split("\n").reverse();
    for (const line of lines) {
      const link = linkOf(line);
      if (link !== undefined) return { sequence: link.sequence, hash: link.hash };
    }
  }
  return { sequence: 0, hash: firstLink };
}

/** The end of a file, as far as it is read at a start; nothing where it cannot be read. */
export async function tailOf(path: string): Promise<string> {
  let file;
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch {
    // It is not there, or cannot be read; whether it can be written shows with the first line.
    return "";
  }
  try {
    const stat = await file.stat();
    if (!stat.isFile()) return "";
    const start = Math.max(0, stat.size - tailBytes);
    const bytes = Buffer.alloc(stat.size - start);
    const { bytesRead } = await file.read(bytes, 0, bytes.length, start);
    return bytes.toString("utf8", 0, bytesRead);
  } finally {
    await file.close();
  }
}
