/** Who hears what on many connections: whether words that are written from one moment on arrive anywhere. */
import type { Readable, Writable } from "node:stream";
import { eventually } from "./eventually.ts";

/** What nobody may hear. */
export const lateWords = "late-words";
const words = "words in time";

/** One end of a connection, of the client or of the origin. */
export interface End {
  /** What kind of connection it is of. */
  readonly name: string;
  readonly isClient: boolean;
  /** What it reads from; absent where it only writes. */
  readonly hears?: Readable | undefined;
  /** Its end is the end of the connection. */
  readonly lives: { readonly closed: boolean; readonly destroyed: boolean };
  /** Absent where it has nothing to say in time. */
  readonly says?: ((words: string) => void) | undefined;
  /** Says what comes too late, where that is said in another way. */
  readonly saysLate?: (words: string) => void;
}

/** Watches all ends of all connections of one test. */
export class Witness {
  /** Ends that heard what was said too late. */
  readonly late = new Set<string>();
  readonly #heard = { client: 0, origin: 0 };
  readonly #ends: End[] = [];
  #isLate = false;
  #isOver = false;

  /** Bytes that clients, and that origins, have heard. */
  get heard(): { readonly client: number; readonly origin: number } {
    return { ...this.#heard };
  }

  /** Those of clients that are open. */
  get openClients(): readonly End[] {
    return this.#ends.filter(({ isClient, lives }) => isClient && !isOver(lives));
  }

  watch(end: End): void {
    this.#ends.push(end);
    const { hears, isClient } = end;
    if (hears === undefined) return;
    let tail = "";
    // In place of whoever read its beginning.
    hears.removeAllListeners("readable");
    hears.on("error", () => undefined);
    hears.on("data", (chunk: Buffer) => {
      this.#heard[isClient ? "client" : "origin"] += chunk.length;
      tail += chunk.toString("latin1");
      if (tail.includes(lateWords)) this.late.add(sideOf(end));
      tail = tail.slice(-lateWords.length);
    });
    hears.resume();
  }

  /** From here on everybody talks, as fast as a turn allows. */
  begin(): void {
    setImmediate(() => this.#go());
  }

  /** Every second end reads nothing from here on, so that it does not notice the end of its connection. */
  deafen(): void {
    for (const { hears } of this.#every(2)) hears?.pause();
  }

  /** From here on all that is said comes too late; everybody says it at once, and those that read nothing read again. */
  sayLate(): void {
    this.#isLate = true;
    for (const end of this.#ends) {
      if (!isOver(end.lives)) (end.saysLate ?? end.says)?.(`${lateWords}\n`);
    }
    for (const { hears } of this.#ends) hears?.resume();
  }

  /** Nobody says anything more. */
  stop(): void {
    this.#isOver = true;
  }

  /** Resolves when every connection is over at both of its ends. */
  async over(): Promise<void> {
    try {
      await eventually(() => {
        const open = this.#ends.filter(({ lives }) => !isOver(lives));
        if (open.length > 0) throw new Error(`open: ${open.map(sideOf).join(", ")}`);
      });
    } finally {
      this.#isOver = true;
    }
  }

  #every(step: number): readonly End[] {
    return [true, false].flatMap((side) =>
      this.#ends.filter(({ isClient }) => isClient === side).filter((_, at) => at % step === 0),
    );
  }

  #go(): void {
    for (const { says, lives } of this.#ends) {
      if (!isOver(lives)) says?.(`${this.#isLate ? lateWords : words}\n`);
    }
    if (!this.#isOver) setImmediate(() => this.#go());
  }
}

/** Writes to it where it takes something. */
export function sayer(
  stream: Writable,
  frame: (words: string) => string = (said) => said,
): (words: string) => void {
  return (said) => {
    const isReady = stream.writable && stream.writableLength === 0;
    if (isReady || (said.startsWith(lateWords) && !stream.destroyed && stream.writable))
      stream.write(frame(said));
  };
}

const sideOf = ({ name, isClient }: End): string =>
  `the ${isClient ? "client" : "origin"} of ${name}`;

function isOver({ closed, destroyed }: End["lives"]): boolean {
  return closed || destroyed;
}
