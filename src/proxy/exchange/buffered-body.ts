/** A request body in memory, for plugins that read it. */
import type { Readable } from "node:stream";
import { contentCodings, decodeBody, readBounded, type ReadLimits } from "../../http/body.ts";
import type { RequestContext } from "../../pipeline/context.ts";
import type { Denial } from "../../pipeline/decision.ts";

/** A body that was read to its end, or what became of it instead. */
export type BufferedBody =
  | {
      readonly kind: "body";
      readonly bytes: Buffer;
      /** Gives the memory back to the budget. */
      readonly release: () => void;
    }
  | { readonly kind: "refused"; readonly denial: Denial }
  | { readonly kind: "gone" };

const tooLarge: BufferedBody = {
  kind: "refused",
  denial: {
    code: "request.body-too-large",
    message: "request body too large (limits.max_body)",
  },
};

const overBudget: BufferedBody = {
  kind: "refused",
  denial: {
    code: "proxy.overloaded",
    message: "too many bodies are being inspected (limits.max_buffered)",
  },
};

/**
 * Reads the body to its end and gives it to the context, in the clear as well where it is encoded.
 *
 * A body is read whole or refused: nothing is ever judged by its beginning. Never rejects.
 */
export async function bufferBody(
  context: RequestContext,
  stream: Readable,
  limits: ReadLimits,
): Promise<BufferedBody> {
  const read = await readBounded(stream, limits);
  switch (read.kind) {
    case "too-large":
      return tooLarge;
    case "over-budget":
      return overBudget;
    case "aborted":
    case "failed":
      return { kind: "gone" };
    case "body":
  }
  const { bytes, release } = read;
  const encoding = context.headers.get("content-encoding");
  if (contentCodings(encoding).length === 0) {
    context.content.load(bytes);
    return read;
  }
  const { budget, limitBytes } = limits;
  // What it unpacks to is not known before: the most that it may be is taken first.
  if (!budget.acquire(limitBytes)) {
    release();
    return overBudget;
  }
  const clear = await decodeBody(bytes, encoding, limitBytes);
  let clearBytes = clear.kind === "body" ? clear.bytes.length : 0;
  budget.release(limitBytes - clearBytes);
  context.content.load(bytes, clear);
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
