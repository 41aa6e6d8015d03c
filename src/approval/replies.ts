/** What clients get whose request depends on a person. */
import type { RequestContext } from "../pipeline/context.ts";
import { type Decision, type Denial, deny, type Reply } from "../pipeline/decision.ts";
import { callerOf } from "../pipeline/flow.ts";
import type { ApprovalQuestion } from "../pipeline/approval-gate.ts";
import { messageOf } from "../errors.ts";
import type { Ledger, Standing } from "./ledger.ts";
import type { Ask, Verdict } from "./told.ts";

/** Where a client asks how it stands, at whatever origin its request was for. */
const pollPrefix = "/.well-known/authbridge/approvals/";
/** The field by which a client says of which question its request is a repetition. */
export const idField = "authbridge-approval";

/** The message is refused for now: nobody has decided. */
export function stillPending(
  { id, why, rule }: Ask,
  { stage }: RequestContext,
  isPolling: boolean,
  retryAfterMs: number,
): Decision {
  const poll = stage === "connect" ? undefined : pollPrefix + id;
  const retry = { "Retry-After": String(Math.ceil(retryAfterMs / 1_000)) };
  const said = isPolling
    ? "send the same request again once it is decided"
    : "nobody has decided while it waited (approval.hold): send the same request again";
  const denial: Denial = {
    code: "policy.approval-pending",
    message: `${why}; an approval is needed: ${said}`,
    rule,
    approval: { id, poll },
    // A success would open the tunnel.
    ...(isPolling && poll !== undefined ? { status: 202 } : {}),
    headers: poll === undefined ? retry : { ...retry, Location: poll },
  };
  return deny("approval_pending", denial, { approval: id });
}

/** Somebody has refused it. */
export function refusedBy(verdict: Verdict, rule: string | undefined): Decision {
  const { id, by, reason } = verdict;
  const why = reason === undefined ? "" : `: ${reason}`;
  return notApproved("approval_denied", `an operator has refused this request${why}`, {
    id,
    rule,
    by: by.join(" "),
  });
}

/** There is no approval, and there will be none. */
export function notApproved(
  reason: string,
  message: string,
  { id, rule, by }: { readonly id?: string; readonly rule?: string | undefined; by?: string } = {},
): Decision {
  const denial: Denial = {
    code: "policy.approval-denied",
    message,
    rule,
    ...(id === undefined ? {} : { approval: { id } }),
  };
  const details = {
    ...(id === undefined ? {} : { approval: id }),
    ...(by === undefined ? {} : { by }),
  };
  return deny(reason, denial, details);
}

/** It was allowed once, and that is over. */
export function usedBefore({ id }: Verdict, { rule }: ApprovalQuestion): Decision {
  const message =
    "an operator has approved this request once, and another one like it was first: send it again to ask again";
  return notApproved("used", message, { id, rule });
}

/** The time of the question is over. */
export function undecided({ id, rule }: Ask): Decision {
  return notApproved("expired", "nobody has decided in time (approval.expires)", { id, rule });
}

/** What was asked about the same request has ended, and nothing that is decided of it will be heard. */
export function askedBefore({ rule }: ApprovalQuestion): Decision {
  const message = "the earlier question about this request is over: send it again";
  return notApproved("asked_before", message, { rule });
}

/** The store is away: nobody knows what was decided. */
export function away(error: unknown, { rule }: ApprovalQuestion): Decision {
  const message = `the approval cannot be looked up: ${messageOf(error)}`;
  return deny("state_away", { code: "state.unavailable", message, unavailable: true, rule });
}

/** The response to whoever asks how it stands with a question of their own; undefined for every other message. */
export function standingFor(
  { method, path, flow }: RequestContext,
  ledger: Ledger,
  retryAfterMs: number,
): Reply | undefined {
  if (method !== "GET" || !path.startsWith(pollPrefix)) return undefined;
  const id = path.slice(pollPrefix.length);
  const found = ledger.standing(id);
  if (found === undefined) return undefined;
  const { host, port, caller } = found.request;
  const isTheirs =
    host === flow.destination.host &&
    port === flow.destination.port &&
    caller === callerOf(flow.client);
  return isTheirs ? standingReply(id, found, retryAfterMs) : undefined;
}

function standingReply(id: string, standing: Standing, retryAfterMs: number): Reply {
  const retry = { "Retry-After": String(Math.ceil(retryAfterMs / 1_000)) };
  const reply = (status: number, said: object, headers: Record<string, string> = {}): Reply => ({
    status,
    headers: { "Content-Type": "application/json", "Cache-Control": "no-store", ...headers },
    body: Buffer.from(`${JSON.stringify({ approval: id, ...said })}\n`),
  });
  switch (standing.kind) {
    case "pending":
      return reply(
        202,
        { status: "pending", expires: new Date(standing.ask.expiresAt).toISOString() },
        retry,
      );
    case "decided": {
      const { decision, reason } = standing.verdict;
      return decision === "allow"
        ? reply(200, { status: "allowed", message: "send the same request again" })
        : reply(403, { status: "denied", error: "policy.approval-denied", message: reason });
    }
    case "over":
      return reply(410, { status: standing.why, error: "policy.approval-denied" });
  }
}
