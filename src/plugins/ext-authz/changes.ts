/** Carries out what an authorization service wants changed, or says why it must not be. */
import { foldedName } from "../../http/field-names.ts";
import { type HeaderList, isFieldValue, isHopByHop, isToken } from "../../http/headers.ts";
import type { ReplyFields, RequestContext } from "../../pipeline/plugin.ts";
import { guardedFields } from "./config.ts";
import type { Allowed, FieldChange } from "./verdict.ts";

/** A verdict that cannot be followed: what it wants, and the key that would let it where there is one. */
export interface Forbidden {
  readonly what: string;
  readonly key?: "allow_headers";
}

/** Fields that frame the message or belong to its hop. */
const framing = new Set(["content-length", "te", "via", "expect", "forwarded"]);
const guarded: ReadonlySet<string> = new Set(guardedFields);

function isOfTheHop(name: string): boolean {
  return isHopByHop(name) || framing.has(name) || name.startsWith("proxy-");
}

/** Why one of the changes must not be made, before any is. */
export function forbiddenIn(
  { fields, responseFields, query }: Allowed,
  context: RequestContext,
  allowed: ReadonlySet<string>,
): Forbidden | undefined {
  const isInbound = context.flow.direction === "inbound";
  for (const { name, value } of fields) {
    const key = foldedName(name);
    if (key === ":path" && allowed.has(key) && isPath(value)) continue;
    if (!isToken(name) || isOfTheHop(key)) {
      const isGuarded = guarded.has(key);
      return { what: shownName(name), ...(isGuarded ? { key: "allow_headers" } : {}) };
    }
    if (!isFieldValue(value)) return { what: `${shownName(name)} with a control character` };
    if (guarded.has(key) && !allowed.has(key)) return { what: name, key: "allow_headers" };
    if (key === "host" && !isInbound) return { what: "the host of an outbound request" };
  }
  for (const { name, value } of responseFields)
    if (!isToken(name) || isOfTheHop(name.toLowerCase()) || !isFieldValue(value))
      return { what: `${shownName(name)} of the response` };
  const { set, removed } = query;
  if (context.stage === "connect" && set.length + removed.length > 0)
    return { what: "the query of a CONNECT" };
  return undefined;
}

function isPath(value: string): boolean {
  return /^\/[\x21-\x22\x24-\x7e]*$/.test(value);
}

type Changes = Omit<Allowed, "kind" | "metadata">;

/** The messages of a batch are allowed one by one, mostly with the same changes, of which each is made once. */
export function changesOf(verdicts: readonly Allowed[]): Changes {
  const [only, ...others] = verdicts;
  if (only !== undefined && others.length === 0) return only;
  const once = <Change>(of: (verdict: Allowed) => readonly Change[]): Change[] => [
    ...new Map(verdicts.flatMap(of).map((one) => [JSON.stringify(one), one])).values(),
  ];
  return {
    fields: once(({ fields }) => fields),
    removed: once(({ removed }) => removed),
    responseFields: once(({ responseFields }) => responseFields),
    query: { set: once(({ query }) => query.set), removed: once(({ query }) => query.removed) },
  };
}

/** Makes the changes to the request; false where there are none. */
export function changeRequest(context: RequestContext, allowed: Changes): boolean {
  const { headers } = context;
  const { fields, removed: gone, query } = allowed;
  if (fields.length + gone.length + query.set.length + query.removed.length === 0) return false;
  for (const name of gone)
    if (isToken(name) && !isOfTheHop(name.toLowerCase()) && name.toLowerCase() !== "host")
      headers.delete(name);
  for (const change of fields) {
    if (change.name.toLowerCase() === ":path") context.rewritePath(change.value);
    else changeField(headers, change);
  }
  const { set, removed } = query;
  if (set.length + removed.length > 0) context.rewritePath(withQuery(context.path, set, removed));
  return true;
}

/** The same for the response. Several lines of one name stay beside each other: they may be cookies. */
export function changeResponse(headers: HeaderList, changes: readonly FieldChange[]): void {
  const replaced = new Set<string>();
  for (const change of changes) {
    const name = change.name.toLowerCase();
    const isNext = replaced.has(name);
    if (change.action === "overwrite") replaced.add(name);
    changeField(headers, isNext ? { ...change, action: "append" } : change);
  }
}

function changeField(headers: HeaderList, { name, value, action }: FieldChange): void {
  const isThere = headers.has(name);
  if (action === "add" && isThere) return;
  if (action === "overwrite-if-exists" && !isThere) return;
  if (action === "append") headers.append(name, value);
  else headers.set(name, value);
}

function withQuery(
  path: string,
  set: readonly (readonly [string, string])[],
  removed: readonly string[],
): string {
  const [pathname = "", ...rest] = path.split("?");
  const names = new Set([...removed, ...set.map(([name]) => name)]);
  const kept = rest
    .join("?")
    .split("&")
    .filter((pair) => pair !== "" && !names.has(nameOf(pair)));
  const added = set.map(([name, value]) => `${encode(name)}=${encode(value)}`);
  const query = [...kept, ...added].join("&");
  return query === "" ? pathname : `${pathname}?${query}`;
}

function nameOf(pair: string): string {
  const name = pair.split("=", 1)[0] ?? "";
  try {
    return decodeURIComponent(name.replaceAll("+", " "));
  } catch {
    return name;
  }
}

function encode(text: string): string {
  return encodeURIComponent(text.toWellFormed());
}

/** The fields of a refusal that may be passed on. */
export function refusalFields(
  fields: readonly (readonly [name: string, value: string])[],
): ReplyFields {
  const lines = new Map<string, { readonly name: string; readonly values: string[] }>();
  for (const [name, value] of fields) {
    const key = name.toLowerCase();
    // Envoy does not pass them on either.
    if (key === "host" || isOfTheHop(key)) continue;
    if (!isToken(name) || !isFieldValue(value)) continue;
    const line = lines.get(key) ?? { name, values: [] };
    line.values.push(value);
    lines.set(key, line);
  }
  return Object.fromEntries(
    [...lines.values()].map(({ name, values }) => [
      name,
      values.length > 1 ? values : (values[0] ?? ""),
    ]),
  );
}

function shownName(name: string): string {
  return name.replace(/[^\x21-\x7e]/g, "?").slice(0, 64);
}
