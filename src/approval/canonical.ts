/** The exact request that a decision is bound to: everything that makes it another request is in its digest. */
import { hash } from "node:crypto";
import { isObject } from "../http/json-access.ts";
import { isHopByHop } from "../http/headers.ts";
import { hasOddNumber, parseStrictJson } from "../http/strict-json.ts";
import type { ApprovalQuestion } from "../pipeline/approval-gate.ts";
import type { RequestContext } from "../pipeline/context.ts";
import { callerOf } from "../pipeline/flow.ts";
import { boundFields } from "./attempt-fields.ts";
import { shownText } from "./visible.ts";

/** What operators see of it: nothing in its texts is unseen, and what is left out says so. */
export interface ShownRequest {
  readonly direction: string;
  readonly method: string;
  readonly scheme: string;
  readonly host: string;
  readonly port: number;
  /** With the query; empty for a CONNECT. */
  readonly path: string;
  readonly caller: string;
  readonly subject?: string | undefined;
  /** The protocol to which the connection would change. */
  readonly upgrade?: string | undefined;
  readonly bodyBytes?: number | undefined;
  readonly bodySha256?: string | undefined;
  readonly tool?: string | undefined;
  /** JSON with its keys in order. */
  readonly arguments?: string | undefined;
}

/** A request and the text whose digest is its name. */
export interface CanonicalRequest {
  readonly text: string;
  readonly shown: ShownRequest;
}

const maxShown = 2_048;
const maxName = 256;

/** Undefined where the message has a body that nobody has read. */
export function canonicalRequest(
  context: RequestContext,
  conceal: NonNullable<ApprovalQuestion["conceal"]> = (text) => text,
): CanonicalRequest | undefined {
  const { flow, stage, method, path, hasBody, body, identity, upgrade } = context;
  if (hasBody && body === undefined) return undefined;
  const { scheme, host, port } = flow.destination;
  const place = {
    direction: flow.direction,
    method,
    scheme,
    host,
    port,
    path,
    caller: callerOf(flow.client),
    subject: identity?.subject,
  };
  const content = body === undefined ? undefined : contentOf(context, body, conceal);
  const exact = {
    ...place,
    upgrade,
    address: flow.client.caller === undefined ? flow.client.address : undefined,
    fields: stage === "connect" ? [] : fieldsOf(context),
    body: content?.digest,
  };
  return {
    text: canonicalJson(exact),
    shown: {
      ...place,
      path: shownText(conceal(path, "target"), maxShown),
      subject: place.subject === undefined ? undefined : shownText(place.subject, maxName),
      upgrade: upgrade === undefined ? undefined : shownText(upgrade, maxName),
      ...(body === undefined ? {} : { bodyBytes: body.length, bodySha256: hash("sha256", body) }),
      ...content?.call,
    },
  };
}

function fieldsOf({ headers }: RequestContext): readonly string[] {
  const boundOf = boundFields(headers);
  const fields: string[] = [];
  for (const [name, value] of headers) {
    const field = name.toLowerCase();
    const bound = isHopByHop(field) ? undefined : boundOf(field, value);
    if (bound !== undefined) fields.push(`${field}: ${bound}`);
  }
  // The order of fields of different names means nothing (RFC 9110 section 5.3), that of one name does.
  return fields.sort((one, other) =>
    nameOf(one) < nameOf(other) ? -1 : Number(nameOf(one) > nameOf(other)),
  );
}

function nameOf(field: string): string {
  return field.slice(0, field.indexOf(":"));
}

interface Content {
  readonly digest: string;
  readonly call?: Pick<ShownRequest, "tool" | "arguments">;
}

/** A call of JSON-RPC has another id at every attempt; everything else is bound byte for byte. */
function contentOf(
  { clearBody, headers }: RequestContext,
  body: Buffer,
  conceal: NonNullable<ApprovalQuestion["conceal"]>,
): Content {
  const raw = { digest: `bytes ${hash("sha256", body)}` };
  const isJson = /^application\/(?:[\w.-]+\+)?json\b/i.test(headers.get("content-type") ?? "");
  if (!isJson || clearBody?.kind !== "body") return raw;
  if (hasOddNumber(clearBody.bytes.toString("latin1"))) return raw;
  const parsed = parseStrictJson(clearBody.bytes);
  if (parsed.kind !== "json") return raw;
  const { value } = parsed;
  const messages: readonly unknown[] = Array.isArray(value) ? value : [value];
  if (messages.length === 0 || !messages.every(isCall)) return raw;
  const calls = messages.map(withoutAttempt);
  const params = messages.length === 1 ? objectIn(messages[0], "params") : undefined;
  const tool = params?.["name"];
  const isTool = objectOfMessage(messages[0])?.["method"] === "tools/call";
  return {
    digest: `calls ${hash("sha256", canonicalJson(Array.isArray(value) ? calls : calls[0]))}`,
    ...(isTool && typeof tool === "string"
      ? {
          call: {
            tool: shownText(conceal(tool, "json"), maxName),
            arguments: shownText(
              conceal(canonicalJson(params?.["arguments"] ?? {}), "json"),
              maxShown,
            ),
          },
        }
      : {}),
  };
}

function objectOfMessage(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return isObject(value) ? value : undefined;
}

function objectIn(value: unknown, key: string): Readonly<Record<string, unknown>> | undefined {
  return objectOfMessage(objectOfMessage(value)?.[key]);
}

function isCall(value: unknown): boolean {
  const message = objectOfMessage(value);
  return message?.["jsonrpc"] === "2.0" && typeof message["method"] === "string";
}

function withoutAttempt(value: unknown): unknown {
  const message = { ...objectOfMessage(value) };
  if (isOfAttempt(message["id"])) message["id"] = "";
  const params = objectIn(value, "params");
  const meta = objectIn(params, "_meta");
  if (meta === undefined || !isOfAttempt(meta["progressToken"])) return message;
  const { progressToken: _, ...rest } = meta;
  const { _meta: __, ...others } = params ?? {};
  // What has no other note than this one is the same as what has no notes.
  const noted = Object.keys(rest).length === 0 ? others : { ...others, _meta: rest };
  return { ...message, params: noted };
}

/** A longer text could say more than which attempt it is, and would go out unseen. */
const maxOfAttempt = 128;

/** What stands for an attempt, and says nothing itself. */
function isOfAttempt(value: unknown): boolean {
  return typeof value === "number" || (typeof value === "string" && value.length <= maxOfAttempt);
}

/** JSON with the keys of every object in order. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, member: unknown) =>
    isObject(member)
      ? Object.fromEntries(
          Object.entries(member).sort(([one], [other]) => (one < other ? -1 : one > other ? 1 : 0)),
        )
      : member,
  );
}
