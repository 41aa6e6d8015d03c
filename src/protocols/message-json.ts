/** What messages and frames say as JSON, read once however many plugins ask. */
import { contentCodings } from "../http/body.ts";
import { isAwsChunked } from "../http/signed-fields.ts";
import { parseStrictJson, type StrictJson } from "../http/strict-json.ts";
import { type Decision, type RequestContext, type ResponseView, skip } from "../pipeline/plugin.ts";

const maxDepth = 128;
const readings = new WeakMap<Buffer, StrictJson>();

/** The bytes as strict JSON. The value is shared: it must not be changed. */
export function jsonOf(bytes: Buffer): StrictJson {
  const known = readings.get(bytes);
  if (known !== undefined) return known;
  const reading = parseStrictJson(bytes, { maxDepth });
  readings.set(bytes, reading);
  return reading;
}

/** The same for what is judged by its values: whole numbers that this reader would round make it invalid. */
export function exactJsonOf(bytes: Buffer): StrictJson {
  const reading = jsonOf(bytes);
  return reading.kind === "json" && reading.mayBeRounded === true
    ? parseStrictJson(bytes, { maxDepth, exactIntegers: true })
    : reading;
}

/** OpenAI ends its streams with a word that is no JSON. */
export function isEndOfEvents(data: Buffer): boolean {
  return data.length === 6 && data.toString("latin1") === "[DONE]";
}

/** JSON that its client may read and we do not; other texts, such as keep-alives, say nothing to clients either. */
export function unreadableJson(bytes: Buffer): string | undefined {
  // UTF-16 and UTF-32 have zeros where UTF-8 has none.
  const start = bytes.toString("latin1", 0, 64).replace(/^(?:ï»¿|ÿþ|þÿ)|\0/g, "");
  if (!/^\s*[[{]/.test(start) || isEndOfEvents(bytes)) return undefined;
  const json = jsonOf(bytes);
  return json.kind === "invalid" ? `the answer is ${json.reason}` : undefined;
}

/** A request's body as JSON; `absent` when it has none or nobody read it. */
export type JsonBody = StrictJson | { readonly kind: "absent" };

/** The request's body as strict JSON, its Content-Encoding undone within `limits.max_body`. */
export function requestJson(context: RequestContext): JsonBody {
  const clear = context.clearBody;
  if (clear === undefined) return { kind: "absent" };
  switch (clear.kind) {
    case "body":
      return clear.bytes.length === 0 ? { kind: "absent" } : jsonOf(clear.bytes);
    case "unsupported":
      return { kind: "invalid", reason: "in a content coding that cannot be undone" };
    case "too-large":
      return { kind: "invalid", reason: "longer than limits.max_body when it is unpacked" };
    case "corrupt":
      return { kind: "invalid", reason: "corrupt in its content coding" };
  }
}

/**
 * Whether nobody here undoes the coding of the request's body, so that its server may find any message in it. In the frames
 * of an upload to an object store, which no server of agents undoes, there is none.
 */
export function isHidden({ clearBody, body, headers }: RequestContext): boolean {
  if (clearBody === undefined || clearBody.kind === "body") return false;
  if (!isAwsChunked(headers)) return true;
  const inside = contentCodings(headers.get("content-encoding")).filter(
    (coding) => coding !== "aws-chunked",
  );
  // Some servers look for the one word: what begins as a frame does is nothing that they could unpack.
  const isFrame = beginsFrame.test(body?.toString("latin1", 0, 16) ?? "");
  return inside.length > 0 && !(inside.join() === "gzip" && isFrame);
}

const beginsFrame = /^[\da-f]{1,8}[;\r]/i;

/** What a parser records of a message whose body it was not shown; undefined where it was, or wanted none. */
export function unreadOf(message: RequestContext | ResponseView | undefined): Decision | undefined {
  const why = message?.unread;
  return why === undefined ? undefined : skip("unread", { why: why.message });
}

/** Types of content that no reader of JSON reads. */
const neverJson =
  /^\s*(?:multipart|image|audio|video|font)\/|^\s*application\/(?:octet-stream|grpc|x-git|zip|gzip|x-tar|pdf|wasm|x-www-form-urlencoded|vnd\.docker)/i;

/**
 * Whether a request's body may be JSON, by what its head says of it: uploads need not be held in memory.
 *
 * A type that is missing or says something else about text counts as JSON, because there are servers that do not look.
 */
export function mayBeJson(context: RequestContext): boolean {
  return !neverJson.test(context.headers.get("content-type") ?? "");
}
