/** Words that say when they were said, by a clock that all processes of the machine have in common. */

/** Milliseconds of that clock. */
export function now(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** One event of a stream, and as good as any other bytes in a tunnel. */
export function stamp(): string {
  return `data: ${now().toFixed(3)}\n\n`;
}

const pattern = /data: (\d+\.\d{3})\n\n/g;

/** What one side has heard: when its last byte came, and when each word was said. */
export class Heard {
  lastByteAt = 0;
  #saidAt: number[] = [];

  /** Takes a chunk, and returns what is to be put in front of the next one of the same connection. */
  take(rest: string, chunk: Buffer): string {
    this.lastByteAt = now();
    const text = rest + chunk.toString("latin1");
    let end = 0;
    for (const found of text.matchAll(pattern)) {
      this.#saidAt.push(Number(found[1]));
      end = found.index + found[0].length;
    }
    return text.slice(Math.max(end, text.length - 32));
  }

  clear(): void {
    this.#saidAt = [];
  }

  /** How much of it was said after this moment. */
  saidAfter(at: number): number {
    return this.#saidAt.filter((one) => one > at).length;
  }
}
