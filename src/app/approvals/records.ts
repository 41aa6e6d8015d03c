/** What is written down of questions and decisions: the log, the decision log, counters. Paths' queries and arguments are not. */
import { type Ask, idOf } from "../../approval/told.ts";
import type { Desk } from "../../approval/desk.ts";
import type { Heard } from "../../approval/desk-options.ts";
import type { Logger } from "../../telemetry/log.ts";
import type { Webhook } from "./webhook.ts";
import type { Metrics } from "../../telemetry/metrics.ts";

/** What the records are about, and where they go. */
interface Recorded {
  readonly approvals: Desk;
  readonly metrics: Metrics;
  readonly webhook: Webhook | undefined;
  readonly sessions:
    { readonly audit?: { readonly log: { append(facts: object): void } } | undefined } | undefined;
}

/** The desk of the thread in control, which records everything that it hears. */
export function recordedApprovals(
  { approvals: desk, metrics, webhook, sessions }: Recorded,
  log: Logger,
): Desk {
  desk.serve(1);
  metrics.gauge("approvals_pending", () => desk.pending.length);
  desk.onHeard((heard, ask) => {
    if (heard.kind === "asked") webhook?.tell({ ask: heard.ask });
    if (heard.kind === "withdrawn" && ask !== undefined)
      webhook?.tell({ ask, withdrawn: heard.why });
    const event = eventOf(heard);
    if (event !== "voted") metrics.counters.approvals_total.of(event).value += 1;
    const facts = { ...factsOf(ask), ...saidOf(heard) };
    log.info({ approval: heardId(heard), event, ...facts }, "approval");
    sessions?.audit?.log.append({
      at: new Date().toISOString(),
      decision: `approval_${event}`,
      approval: heardId(heard),
      ...facts,
    });
  });
  return desk;
}

function eventOf(heard: Heard): "asked" | "voted" | "allowed" | "denied" | "expired" | "withdrawn" {
  if (heard.kind !== "decided") return heard.kind;
  return heard.verdict.decision === "allow" ? "allowed" : "denied";
}

function heardId(heard: Heard): string {
  return heard.kind === "expired" ? heard.ask.id : idOf(heard);
}

function saidOf(heard: Heard): object {
  switch (heard.kind) {
    case "decided": {
      const { by, scope, until, reason } = heard.verdict;
      return { by, scope, until: new Date(until).toISOString(), reason };
    }
    case "voted":
      return { by: [heard.by] };
    case "withdrawn":
      return { reason: heard.why };
    case "asked":
    case "expired":
      return {};
  }
}

function factsOf(ask: Ask | undefined): object {
  if (ask === undefined) return {};
  const { request, digest, plugin, rule, session } = ask;
  const { direction, method, scheme, host, port, path, caller, subject, upgrade } = request;
  const { tool, bodySha256 } = request;
  return {
    digest,
    plugin,
    rule,
    session,
    direction,
    method,
    scheme,
    host,
    port,
    path: path.split("?", 1)[0],
    caller,
    subject,
    upgrade,
    tool,
    bodySha256,
  };
}
