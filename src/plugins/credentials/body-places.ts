/** Places in the body of a request, and in the first message of a WebSocket. What is not the stand-in stays byte for byte. */
import { isObject } from "../../http/json-access.ts";
import { type JsonPath, spliceJson } from "../../http/json-splice.ts";
import { hasSignedBody } from "../../http/signed-fields.ts";
import { parseStrictJson } from "../../http/strict-json.ts";
import type { Message, RequestContext } from "../../pipeline/plugin.ts";
import { type PlaceConfig, shownPlace } from "./place-config.ts";
import type { Find, Place, Recognise } from "./place.ts";
import { eachMember } from "./target-places.ts";

/** Why a body cannot be searched. It quotes nothing of it. */
export class UnreadableBody extends Error {}

const jsonType = /^application\/(?:[\w.+-]+\+)?json$/;

/** Whether the body is of the kind that the place is in. */
export function isBodyOf(place: PlaceConfig, { headers, hasBody }: RequestContext): boolean {
  if (!hasBody) return false;
  const [type = ""] = (headers.get("content-type") ?? "").toLowerCase().split(";", 1);
  return place.form === undefined
    ? jsonType.test(type.trim())
    : type.trim() === "application/x-www-form-urlencoded";
}

/** The body in the clear, with the credentials that it has already; throws {@link UnreadableBody}. */
function bodyOf(context: RequestContext): Buffer {
  if (context.sentBody !== undefined) return context.sentBody;
  const clear = context.clearBody;
  if (clear?.kind === "too-large")
    throw new UnreadableBody("it is larger than limits.max_body in the clear");
  if (clear?.kind !== "body") throw new UnreadableBody("its Content-Encoding cannot be undone");
  if (hasSignedBody(context.headers, context.path))
    throw new UnreadableBody("a signature or a digest of the request covers it");
  return clear.bytes;
}

/** Members of a form. */
export const findForm: Find = (context, place, recognise) => {
  if (!isBodyOf(place, context)) return [];
  const isMeant = (member: string): boolean => member === place.form;
  let standIn: string | undefined;
  eachMember(bodyOf(context).toString("latin1"), (member, value) => {
    if (isMeant(member) && recognise(value, { place })) standIn ??= value;
    return undefined;
  });
  if (standIn === undefined) return [];
  const fill = (to: RequestContext, credential: string): void => {
    const filled = eachMember(bodyOf(to).toString("latin1"), (member, value) =>
      isMeant(member) && value === standIn ? encodeURIComponent(credential) : undefined,
    );
    to.attachToBody(Buffer.from(filled, "latin1"));
  };
  return [{ shown: shownPlace(place), standIn, fits: () => true, fill }];
};

/** A text in a JSON body. */
export const findJson: Find = (context, place, recognise) => {
  if (!isBodyOf(place, context)) return [];
  const path = pathIn(jsonOf(bodyOf(context)), place.json ?? "");
  return path === undefined ? [] : inJson(context, { place, paths: [path], recognise });
};

/** A member of `params._meta`. */
export const findMeta: Find = (context, place, recognise) => {
  if (!isBodyOf(place, context)) return [];
  const value = jsonOf(bodyOf(context));
  const own = ["params", "_meta", place.mcp_meta ?? ""];
  const paths = Array.isArray(value) ? value.map((_, index) => [index, ...own]) : [own];
  return inJson(context, { place, paths, recognise });
};

interface Search {
  readonly place: PlaceConfig;
  readonly paths: readonly JsonPath[];
  readonly recognise: Recognise;
}

function inJson(context: RequestContext, search: Search): Place[] {
  const hits = hitsIn(jsonOf(bodyOf(context)), search);
  const [first] = hits;
  if (first === undefined) return [];
  const { standIn } = first;
  const paths = hits.filter((hit) => hit.standIn === standIn).map(({ path }) => path);
  const fill = (to: RequestContext, credential: string): void =>
    to.attachToBody(spliced(bodyOf(to), paths, credential));
  return [{ shown: shownPlace(search.place), standIn, fits: () => true, fill }];
}

function hitsIn(value: unknown, { place, paths, recognise }: Search) {
  return paths.flatMap((path) => {
    const text = valueAt(value, path);
    if (typeof text !== "string" || !recognise(text, { place })) return [];
    return [{ path, standIn: text }];
  });
}

/** A place in a message: what is sent in place of the message is returned. */
export interface MessagePlace {
  readonly shown: string;
  readonly standIn: string;
  fill(value: string): Buffer;
}

/** The text in the first message of a WebSocket; undefined where the message has none, or is no JSON. */
export function findInMessage(
  { kind, data }: Message,
  place: PlaceConfig,
  recognise: Recognise,
): MessagePlace | undefined {
  if (kind !== "text") return undefined;
  const read = parseStrictJson(data);
  if (read.kind !== "json") return undefined;
  const path = pathIn(read.value, place.websocket_first_message ?? "");
  const [hit] = path === undefined ? [] : hitsIn(read.value, { place, paths: [path], recognise });
  if (hit === undefined || path === undefined) return undefined;
  const fill = (value: string): Buffer => spliced(data, [path], value);
  return { shown: shownPlace(place), standIn: hit.standIn, fill };
}

function jsonOf(bytes: Buffer): unknown {
  const read = parseStrictJson(bytes);
  if (read.kind === "invalid") throw new UnreadableBody(`as JSON it is ${read.reason}`);
  return read.value;
}

function spliced(bytes: Buffer, paths: readonly JsonPath[], value: string): Buffer {
  const json = JSON.stringify(value);
  return Buffer.from(
    spliceJson(
      bytes.toString("utf8"),
      paths.map((path) => ({ path, json })),
    ),
  );
}

/** RFC 6901; undefined where it leads nowhere. */
function pathIn(root: unknown, pointer: string): JsonPath | undefined {
  const path: (string | number)[] = [];
  let value = root;
  for (const token of pointer.split("/").slice(1)) {
    const name = token.replaceAll("~1", "/").replaceAll("~0", "~");
    const step = Array.isArray(value) && /^(?:0|[1-9]\d*)$/.test(name) ? Number(name) : name;
    if (!isObject(value) && typeof step === "string") return undefined;
    value = valueAt(value, [step]);
    path.push(step);
  }
  return path;
}

/** Nothing is inherited. */
function valueAt(root: unknown, path: JsonPath): unknown {
  let value = root;
  for (const step of path) {
    if (typeof step === "number") value = Array.isArray(value) ? value[step] : undefined;
    else value = isObject(value) && Object.hasOwn(value, step) ? value[step] : undefined;
  }
  return value;
}
