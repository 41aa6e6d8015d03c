/** What goes on the wire for a permitted request: the context's fields and body, and our own Via. */
import type { BodyBudget } from "../../http/body.ts";
import type { RequestContext } from "../../pipeline/context.ts";
import type { OutgoingRequest } from "../../upstream/upstream.ts";
import type { ExchangeRequest } from "./exchange-request.ts";
import type { HeldBody } from "./buffered-body.ts";
import { RequestBody } from "./request-body.ts";
import { isGrpc } from "./request-head.ts";

/** What an outgoing message is made of. */
export interface OutgoingParts {
  readonly request: ExchangeRequest;
  readonly context: RequestContext;
  /** The name of this proxy in Via fields. */
  readonly pseudonym: string;
  /** Bytes of bodies that the process may hold. */
  readonly budget: BodyBudget;
  /** The body, where it was read for the chain. */
  readonly buffered: Buffer | undefined;
  /** The beginning of a body that was to be read and is streamed after all. */
  readonly held: HeldBody | undefined;
  /** Whether the chain reads the answer's body, which then has to come in the clear. */
  readonly isAnswerRead: boolean;
}

/** The message, and its body where that is streamed. */
export function outgoingMessage(parts: OutgoingParts): {
  readonly outgoing: OutgoingRequest;
  readonly streamed: RequestBody | undefined;
} {
  const { request, context, pseudonym, budget, buffered, held, isAnswerRead } = parts;
  const { downstream, basePath = "", upgrade } = request;
  const { headers, content, sentPath } = context;
  if (content.replaced) headers.delete("content-encoding");
  const bytes = content.replaced ? content.bytes : buffered;
  if (bytes !== undefined) headers.set("Content-Length", String(bytes.length));
  if (isAnswerRead) headers.delete("accept-encoding");
  const isStreamed = bytes === undefined && downstream.hasBody;
  // Whoever began to read the body has told the client to send it.
  if (isStreamed && downstream.expectsContinue && held === undefined) downstream.sendContinue();
  const streamed = isStreamed ? new RequestBody(downstream.body, budget, held) : undefined;
  return {
    outgoing: {
      method: downstream.method,
      path: basePath + sentPath,
      headers: [...headers.raw, "Via", `${downstream.httpVersion} ${pseudonym}`],
      body: streamed ?? bytes ?? null,
      needsHttp2: isGrpc(headers.get("content-type")),
      ...(upgrade === undefined ? {} : { upgrade: upgrade.protocol }),
    },
    streamed,
  };
}
