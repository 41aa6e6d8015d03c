/** stub */
import type { Readable } from "node:stream";
export class BodyBudget {
  #left: number;
  constructor(n: number) {
    this.#left = n;
  }
  acquire(n: number): boolean {
    if (n > this.#left) return false;
    this.#left -= n;
    return true;
  }
  release(n: number): void {
    this.#left += n;
  }
}
export type BoundedRead =
  | { kind: "body"; bytes: Buffer; release(): void }
  | { kind: "too-large" }
  | { kind: "over-budget" }
  | { kind: "aborted" };
export async function readBounded(
  stream: Readable,
  o: { limitBytes: number; budget: BodyBudget; signal: AbortSignal },
): Promise<BoundedRead> {
  const chunks: Buffer[] = [];
  let n = 0;
  try {
    for await (const c of stream) {
      n += c.length;
      if (n > o.limitBytes) return { kind: "too-large" };
      chunks.push(c);
    }
  } catch {
    return { kind: "aborted" };
  }
  return { kind: "body", bytes: Buffer.concat(chunks), release() {} };
}
