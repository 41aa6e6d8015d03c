/** The frames of one stream that plugins keep back until they know what follows. */
import { ProxyError } from "../../errors.ts";
import type { BodyBudget } from "../../http/body.ts";
import { type FrameKind, type StreamFrame, withData, writeFrame } from "../../http/frames.ts";
import { Gathered } from "../../http/gathered.ts";
import type { Denial, ResponseVerdict } from "../../pipeline/decision.ts";
import { overBudget } from "./buffered-body.ts";
import { BudgetReservation } from "../flow/budget-reservation.ts";
import { responseTooLarge } from "./response-head.ts";

type Pass = Extract<ResponseVerdict, { kind: "pass" }>;

/** What is forwarded now, or why the stream ends here. */
export type Settled = { readonly bytes: Buffer } | { readonly denial: Denial };

/** Bounded by the limit of one body, and counted as one. */
export class HeldFrames {
  readonly #maxBytes: number;
  readonly #reserved: BudgetReservation;
  readonly #frames = new Gathered();
  #kind: FrameKind = "sse";

  constructor(maxBytes: number, budget: BodyBudget) {
    this.#maxBytes = maxBytes;
    this.#reserved = new BudgetReservation(budget);
  }

  /** What becomes of a frame, and of those in front of it. */
  settle(frame: StreamFrame, verdict: Pass): Settled {
    this.#kind = frame.kind;
    const own = verdict.frame === undefined ? frame.raw : withData(frame, verdict.frame.data);
    const bytes = this.#instead(verdict) ?? own;
    return verdict.isHeld === true ? this.#keep(bytes) : { bytes: this.#release(bytes) };
  }

  /** The same for the end of the stream, which nothing follows. */
  end(verdict: Pass): Buffer {
    const bytes = this.#instead(verdict) ?? Buffer.alloc(0);
    if (verdict.isHeld === true) {
      throw new ProxyError("internal.fault", "a plugin waits for what follows the end of a stream");
    }
    return this.#release(bytes);
  }

  close(): void {
    this.#frames.clear();
    this.#reserved.close();
  }

  #instead({ instead }: Pass): Buffer | undefined {
    if (instead === undefined) return undefined;
    this.#drop();
    return Buffer.concat(instead.map((each) => writeFrame(this.#kind, each)));
  }

  #keep(bytes: Buffer): Settled {
    if (this.#reserved.bytes + bytes.length > this.#maxBytes) return { denial: responseTooLarge };
    if (!this.#reserved.take(bytes.length)) return { denial: overBudget };
    // A copy: the chunk that it is part of may be large.
    this.#frames.push(Buffer.from(bytes));
    return { bytes: Buffer.alloc(0) };
  }

  #release(bytes: Buffer): Buffer {
    if (this.#frames.length === 0) return bytes;
    this.#frames.push(bytes);
    const all = this.#frames.takeAll();
    this.#drop();
    return all;
  }

  #drop(): void {
    this.#frames.clear();
    this.#reserved.shrinkTo(0);
  }
}
