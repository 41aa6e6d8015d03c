/** A request body in memory, for plugins that read it. */
import type { BodySource } from "../../http/body-source.ts";
import { contentCodings, decodeBody, readBounded, type ReadLimits } from "../../http/body.ts";
import type { RequestContext } from "../../pipeline/context.ts";
import type { Denial } from "../../pipeline/decision.ts";
import type { StepJudge } from "../../pipeline/message-needs.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";
import type { Downstream } from "./downstream.ts";

/** Bytes of a body that count against the budget. */
export interface HeldBody {
  readonly chunks: readonly Buffer[];
  /** Gives the memory back to the budget. */
  readonly release: () => void;
}

/** A body that was read to its end, or the reason why it was not. */
export type BufferedBody =
  | { readonly kind: "body"; readonly bytes: Buffer; readonly release: () => void }
  /** Why it was not read; the bytes held so far precede those that the source still has. */
  | (HeldBody & { readonly kind: "unread"; readonly denial: Denial })
  /** With the error of the body, where it had one. */
  | { readonly kind: "gone"; readonly error: Error | undefined };

/** The denial for a body over the limit. */
export const bodyTooLarge: Denial = {
  code: "request.body-too-large",
  message: "request body too large (limits.max_body)",
};

/** The denial for a message when the memory budget for bodies is used up. */
export const overBudget: Denial = {
  code: "proxy.overloaded",
  message: "too many bodies are being inspected (limits.max_buffered)",
};

/**
 * Reads the body to its end and gives it to the context, in the clear as well where it is encoded.
 *
 * A body is read whole or not at all: no verdict rests on a prefix. Never rejects.
 */
export async function bufferBody(
  context: RequestContext,
  source: BodySource,
  limits: ReadLimits,
): Promise<BufferedBody> {
  const read = await readBounded(source, limits);
  switch (read.kind) {
    case "too-large":
      return { ...read, kind: "unread", denial: bodyTooLarge };
    case "over-budget":
      return { ...read, kind: "unread", denial: overBudget };
    case "failed":
      return { kind: "gone", error: read.error };
    case "aborted":
      return { kind: "gone", error: undefined };
    case "body":
  }
  const { bytes, release } = read;
  const encoding = context.headers.get("content-encoding");
  if (contentCodings(encoding).length === 0) {
    context.content.load(bytes);
    return read;
  }
  const { budget, limitBytes } = limits;
  // The decoded size is not known in advance: the maximum is reserved first.
  if (!budget.acquire(limitBytes)) {
    return { kind: "unread", denial: overBudget, chunks: [bytes], release };
  }
  const clear = await decodeBody(bytes, encoding, limitBytes);
  let clearBytes = clear.kind === "body" ? clear.bytes.length : 0;
  budget.release(limitBytes - clearBytes);
  context.content.load(bytes, clear);
  if (clear.kind === "too-large") context.unread = bodyTooLarge;
  return {
    kind: "body",
    bytes,
    release: () => {
      release();
      budget.release(clearBytes);
      clearBytes = 0;
    },
  };
}

/** What became of a body that some step wants, before the steps are asked. */
export type TakenBody =
  | {
      readonly kind: "taken";
      /** Absent where it is streamed after all. */
      readonly bytes?: Buffer;
      readonly release?: () => void;
      /** The beginning of what is streamed. */
      readonly held?: HeldBody;
      /** Who judges it as it is streamed. */
      readonly judges?: readonly StepJudge[];
    }
  | { readonly kind: "refused"; readonly denial: Denial }
  | { readonly kind: "gone"; readonly error: Error | undefined };

/** Whose body it is, and what bounds it. */
export interface TakingTerms extends ReadLimits {
  readonly context: RequestContext;
  readonly pipeline: Pipeline;
  readonly downstream: Downstream;
}

/** Reads the body, unless it is too large and may be streamed: past those that only record, or past judges. */
export function takeBody(
  need: "observers" | "guards",
  terms: TakingTerms,
): TakenBody | Promise<TakenBody> {
  const { context, downstream, limitBytes } = terms;
  const isTooLarge = Number(context.headers.get("content-length")) > limitBytes;
  const streamed = isTooLarge ? streamedBody(need, bodyTooLarge, terms) : undefined;
  if (streamed !== undefined) return streamed;
  if (downstream.expectsContinue) downstream.sendContinue();
  return bufferBody(context, downstream.body, terms).then((read) => {
    if (read.kind === "gone") return read;
    if (read.kind === "body") return { ...read, kind: "taken" as const };
    const rest = streamedBody(need, read.denial, terms);
    if (rest !== undefined) return { ...rest, held: read };
    read.release();
    return { kind: "refused" as const, denial: read.denial };
  });
}

/** Undefined where somebody who can refuse has to have it whole. */
function streamedBody(
  need: "observers" | "guards",
  denial: Denial,
  { context, pipeline }: TakingTerms,
): (TakenBody & { readonly kind: "taken" }) | undefined {
  // Where memory is short, a small body is refused: what is streamed holds some as well.
  const isLarge = denial === bodyTooLarge;
  const judges = need === "guards" && isLarge ? pipeline.bodyJudges(context) : undefined;
  if (need === "guards" && judges === undefined) return undefined;
  context.unread = denial;
  if (judges === undefined) return { kind: "taken" };
  context.isStreamed = true;
  return { kind: "taken", judges };
}
