/** Questions to persons, for operators: what is open, and deciding. */
import type { Decided, Order } from "../approval/deciding.ts";
import type { OpenAsk } from "../approval/ledger.ts";
import { shownAsk } from "../approval/told.ts";
import { parseDuration } from "../duration.ts";
import { type AdminReply, type AdminRoute, failure, json } from "./server.ts";

/** Where the routes look, and whom they tell. */
export interface ApprovalSources {
  pending(): readonly OpenAsk[];
  decide(order: Order): Promise<Decided>;
}

const known = ["decision", "scope", "duration", "reason"];

/** GET /v1/approvals and POST /v1/approvals/ID. */
export function approvalRoutes(sources: ApprovalSources): AdminRoute[] {
  return [
    {
      path: "/v1/approvals",
      takesOperators: true,
      handle: () => json({ approvals: sources.pending().map(shownAsk) }),
    },
    {
      path: "/v1/approvals/",
      takesForm: true,
      takesJson: true,
      takesOperators: true,
      handle: async ({ rest, form = new URLSearchParams(), operator }) => {
        if (operator === undefined)
          return failure(
            403,
            "auth.unauthorized",
            "nobody decides without a secret of their own: set session.api_secret_file, or approval.operators and use theirs",
          );
        const other = [...form.keys()].find(
          (name, at, all) => !known.includes(name) || all.indexOf(name) !== at,
        );
        if (other !== undefined)
          return malformed(`${JSON.stringify(other.slice(0, 32))} is unknown, or there twice`);
        const duration = form.get("duration") ?? "";
        const durationMs = duration === "" ? undefined : parseDuration(duration);
        if (duration !== "" && (durationMs === undefined || durationMs < 1))
          return malformed('duration must be one such as "30s", "15m" or "1h30m"');
        const order = {
          id: rest,
          decision: form.get("decision") ?? "",
          scope: form.get("scope") ?? "",
          durationMs,
          reason: form.get("reason") ?? "",
          by: operator,
        };
        return decidedReply(await sources.decide(order));
      },
    },
  ];
}

function malformed(message: string): AdminReply {
  return failure(400, "request.malformed", message);
}

/** What came of an order, for whoever gave it. */
export function decidedReply(decided: Decided): AdminReply {
  switch (decided.kind) {
    case "decided": {
      const { id, decision, by, scope, until } = decided.verdict;
      const { suggestion } = decided;
      const at = new Date(until).toISOString();
      return json({
        id,
        decision,
        by,
        scope,
        until: at,
        ...(suggestion && { policy: suggestion }),
      });
    }
    case "voted":
      return json({ id: decided.id, status: "pending", needs: "another operator" }, 202);
    case "unknown":
      return failure(404, "request.not-found", decided.message);
    case "over":
      return failure(409, "request.malformed", decided.message);
    case "away":
      return failure(503, "state.unavailable", decided.message);
    case "wrong":
      return malformed(decided.message);
  }
}
