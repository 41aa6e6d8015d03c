/** What an authorization service is told of a request's body. */
import { isUtf8 } from "node:buffer";
import { type Decision, deny, type RequestContext } from "../../pipeline/plugin.ts";
import type { ExtAuthzConfig } from "./config.ts";

/** The bytes, where it is told any, or why the request is refused. */
export type ToldBody =
  | { readonly bytes: Buffer | undefined; readonly isPartial: boolean }
  | { readonly refusal: Decision };

/** Whether the body, as far as its length is known, is longer than what the service may be told. */
export function isTooLong(
  context: RequestContext,
  { with_request_body: wanted }: ExtAuthzConfig,
): boolean {
  if (wanted === undefined || wanted.allow_partial_message) return false;
  const length = context.body?.length ?? Number(context.headers.get("content-length") ?? 0);
  return length > wanted.max_request_bytes;
}

export function toldBodyOf(context: RequestContext, config: ExtAuthzConfig): ToldBody {
  const { with_request_body: wanted, http_service: http } = config;
  if (wanted === undefined || context.stage === "connect")
    return { bytes: undefined, isPartial: false };
  if (isTooLong(context, config)) {
    const message = `the body is longer than the ${wanted.max_request_bytes} bytes that the authorization service is shown (ext-authz: with_request_body.max_request_bytes)`;
    return { refusal: deny("body_too_large", { code: "request.body-too-large", message }) };
  }
  const { body = Buffer.alloc(0) } = context;
  const isPartial = body.length > wanted.max_request_bytes;
  const bytes = isPartial ? body.subarray(0, wanted.max_request_bytes) : body;
  // The body of a message of HTTP has any bytes; a text of gRPC has characters.
  if (http !== undefined || wanted.pack_as_bytes) return { bytes, isPartial };
  if (!isUtf8(bytes) && !(isPartial && isUtf8(body))) {
    const message =
      "the body is not UTF-8 text, as which the authorization service is shown it (ext-authz: with_request_body.pack_as_bytes)";
    return { refusal: deny("body_not_text", { code: "request.unsupported-content", message }) };
  }
  return { bytes: wholeCharacters(bytes), isPartial };
}

/** Without the beginning of a character whose rest is not shown. */
function wholeCharacters(bytes: Buffer): Buffer {
  for (let cut = 0; cut < 4; cut += 1) {
    const shorter = bytes.subarray(0, bytes.length - cut);
    if (isUtf8(shorter)) return shorter;
  }
  return bytes;
}
