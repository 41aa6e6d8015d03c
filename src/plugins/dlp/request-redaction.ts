/** Redaction of the parts of a request, and of what records show of one that is refused. */
import type { HeaderList } from "../../http/headers.ts";
import { hasSignedBody, isSignedField } from "../../http/signed-fields.ts";
import type { RequestContext } from "../../pipeline/plugin.ts";
import type { Side } from "./host-plan.ts";
import type { Redaction } from "./redaction.ts";
import type { Placed } from "./request-texts.ts";

/** Takes out of records what was found. */
export function hide(
  context: RequestContext,
  placed: readonly Placed[],
  redaction: Redaction,
): void {
  if (placed.some(({ part }) => part === "target"))
    context.rewritePath(redaction.target(context.path) ?? "/");
  if (placed.some(({ part }) => part === "body")) redaction.facts(context);
}

/** Replaces what was found; a text says why that cannot be done. */
export function redactRequest(
  context: RequestContext,
  what: {
    readonly placed: readonly Placed[];
    readonly side: Side;
    readonly redaction: Redaction;
  },
): string | undefined {
  const { placed, side, redaction } = what;
  const has = (part: Placed["part"]): boolean =>
    placed.some((one) => one.part === part && side.rulingOf(one.finding)?.action === "redact");
  const { headers, path, clearBody, isResigned } = context;
  if (has("host")) return "a host name cannot be redacted";
  if (has("target")) {
    const target = redaction.target(path);
    if (target === undefined) return "its path cannot be redacted";
    const isSigned = hasSignedBody(headers, path) && !isResigned;
    if (isSigned || headers.has("signature")) return "its path is signed";
    context.rewritePath(target);
  }
  if (has("field") && !redactFields(headers, placed, redaction, { path, isResigned }))
    return "its fields cannot be redacted";
  if (!has("body")) return undefined;
  if (hasSignedBody(headers, path, isResigned)) return "its body is signed";
  if (clearBody?.kind !== "body") return "its body cannot be redacted";
  const body = redaction.body(clearBody.bytes, headers.get("content-type"));
  if (body === undefined) return "its body cannot be redacted";
  context.setBody(body);
  redaction.facts(context);
  return undefined;
}

/** False where one of the fields cannot be redacted. */
export function redactFields(
  headers: HeaderList,
  placed: readonly Placed[],
  redaction: Redaction,
  { path, isResigned }: { readonly path: string; readonly isResigned: boolean } = {
    path: "",
    isResigned: false,
  },
): boolean {
  const names = new Set(placed.flatMap(({ name }) => (name === undefined ? [] : [name])));
  for (const name of names) {
    const values = headers.getAll(name).map((value) => redaction.field(name, value));
    const isFree = isResigned && !headers.has("signature-input");
    if (!isFree && isSignedField(headers, path, name)) return false;
    headers.delete(name);
    for (const value of values) {
      if (value === undefined) return false;
      headers.append(name, value);
    }
  }
  return true;
}
