/** Reads what a policy said into allow or deny: only what clearly allows does. */

/** What a document's value means. */
export type Verdict =
  { readonly allowed: true } | { readonly allowed: false; readonly reason: string };

const denied = "policy denied";
/** A reason is sent to clients and written to logs; a policy can make it of whatever it was given. */
const maxReasonLength = 1_024;

/** `true` and `{"allow": true}` allow; everything else denies, with the reason that is sent to the client. */
export function readVerdict(value: unknown): Verdict {
  if (value === true) return { allowed: true };
  if (value === false) return { allowed: false, reason: denied };
  if (value === null || value === undefined) {
    return { allowed: false, reason: "no decision result" };
  }
  if (typeof value !== "object" || Array.isArray(value)) {
    const type = Array.isArray(value) ? "array" : typeof value;
    return { allowed: false, reason: `unexpected decision type ${type}` };
  }
  const { allow, reason } = value as { allow?: unknown; reason?: unknown };
  if (allow === true) return { allowed: true };
  if (allow !== false) return { allowed: false, reason: "unrecognized policy result shape" };
  const worded = typeof reason === "string" && reason !== "" ? reason : denied;
  return { allowed: false, reason: worded.slice(0, maxReasonLength) };
}
