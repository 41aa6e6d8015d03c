/** The form that a request to an operator surface brings. */
import type { IncomingMessage } from "node:http";

/** Why there is none, as the response says it. */
export interface NoForm {
  readonly status: number;
  readonly error: string;
  readonly message: string;
}

const maxBytes = 65_536;

/** Reads it whole. */
export async function readForm(request: IncomingMessage): Promise<URLSearchParams | NoForm> {
  const type = request.headers["content-type"]?.split(";", 1)[0]?.trim().toLowerCase();
  if (type !== "application/x-www-form-urlencoded") {
    return {
      status: 415,
      error: "request.unsupported-content",
      message: "a form is expected here",
    };
  }
  const chunks: Buffer[] = [];
  let bytes = 0;
  // What is left of a form that is too large must not take the response with it.
  const body: AsyncIterable<Buffer> = request.iterator({ destroyOnReturn: false });
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > maxBytes) {
      return { status: 413, error: "request.body-too-large", message: "the form is too large" };
    }
    chunks.push(chunk);
  }
  return new URLSearchParams(Buffer.concat(chunks).toString("utf8"));
}
