/** What findings come to: records, counts and refusals, none of which says what was found. */
import type { Finding } from "../../dlp/detectors.ts";
import { detectorNames } from "../../dlp/detectors.ts";
import { classifyRpc, messagesOf } from "../../http/json-rpc.ts";
import {
  type ApprovalQuestion,
  type Decision,
  type Denial,
  deny,
  observe,
  type RequestContext,
  type RpcRefusal,
} from "../../pipeline/plugin.ts";
import { requestJson } from "../../protocols/message-json.ts";
import type { Ruling, Side } from "./host-plan.ts";
import type { Redaction } from "./redaction.ts";
import type { PartScan, Placed } from "./request-texts.ts";

const maxShown = 4;
const builtin: ReadonlySet<string> = new Set(detectorNames);

/** What a message's findings demand, and who says so. */
export interface Demand {
  readonly action: Ruling["action"] | "none";
  readonly by?: { readonly placed: Placed; readonly ruling: Ruling };
}

/** The strictest action among the findings. */
export function demandOf({ placed }: PartScan, side: Side): Demand {
  let demand: Demand = { action: "none" };
  for (const one of placed) {
    const ruling = side.rulingOf(one.finding);
    if (ruling === undefined) continue;
    if (rank[ruling.action] > rank[demand.action])
      demand = { action: ruling.action, by: { placed: one, ruling } };
  }
  return demand;
}

const rank = { none: 0, observe: 1, redact: 2, ask: 3, refuse: 4 } as const;

/** `refuse_own_secrets`; detectors of the file are counted by what they are. */
export function eventOf(
  action: Ruling["action"],
  { detector }: Finding,
  lists: ReadonlySet<string>,
): string {
  const name = builtin.has(detector) ? detector : lists.has(detector) ? "list" : "pattern";
  return `${action}_${name}`;
}

function named({ detector, kind }: Finding): string {
  return kind === undefined || kind === detector ? detector : `${detector} (${kind})`;
}

/** For the record of a step. */
export function detailsOf(placed: readonly Placed[]): Record<string, string | number> {
  const shown = placed.slice(0, maxShown).map(({ finding, shown: place }) => {
    const via = finding.via.length === 0 ? "" : ` below ${finding.via.join(" in ")}`;
    return `${named(finding)} in ${place}${via} #${finding.hash}`;
  });
  return { findings: shown.join("; "), count: placed.length };
}

/** What is judged; `said` is a message of the server of a WebSocket. */
type What = "request" | "response" | "message" | "said";

/** A refusal because of a finding. */
export function refusal(
  what: What,
  { by }: Demand,
  placed: readonly Placed[],
  how: { readonly context: RequestContext; readonly why?: string | undefined },
): Decision {
  const { ruling } = by ?? {};
  const tail = how.why === undefined ? "" : `: ${how.why}`;
  const denial: Denial = {
    code: "dlp.refused",
    status: isOfOrigin(what) ? 502 : 403,
    unavailable: false,
    message: `${findingWords(what, by, how.context)}${tail}`,
    rule: ruling?.rule,
    ...rpcOf(what, how.context),
  };
  return deny("found", denial, { ...detailsOf(placed), rule: ruling?.rule ?? "" });
}

/** What is asked of a person. */
export function questionAbout(
  { by }: Demand,
  context: RequestContext,
  redaction: Redaction,
): ApprovalQuestion {
  return {
    rule: by?.ruling.rule,
    reason: findingWords("request", by, context),
    conceal: (text, kind) =>
      (kind === "target"
        ? redaction.target(text)
        : redaction.body(Buffer.from(text), undefined)?.toString()) ?? "[redacted]",
  };
}

function isOfOrigin(what: What): boolean {
  return what === "response" || what === "said";
}

function findingWords(what: What, by: Demand["by"], { destination }: RequestContext): string {
  const found =
    by === undefined ? "something" : `${named(by.placed.finding)} in ${by.placed.shown}`;
  const about = isOfOrigin(what) ? "from" : "to";
  const place = by?.placed.part === "host" ? "this destination" : `${about} ${destination.host}`;
  return `the ${what === "said" ? "message" : what} ${place} holds ${found}`;
}

/** A refusal because the message could not be looked through. */
export function unread(what: What, context: RequestContext, message: string): Decision {
  const denial: Denial = {
    code: "dlp.unread",
    status: isOfOrigin(what) ? 502 : 403,
    unavailable: false,
    message,
    ...rpcOf(what, context),
  };
  return deny("unread", denial);
}

/** The refusal as JSON-RPC has it, for a request that is such a call. */
export function rpcOf(what: What, context: RequestContext): { readonly rpc?: RpcRefusal } {
  if (what === "message" || what === "said" || context.content.bytes === undefined) return {};
  const json = requestJson(context);
  if (json.kind !== "json") return {};
  const { value } = json;
  const body = classifyRpc(value);
  const ids = messagesOf(body).flatMap((one) => (one.kind === "request" ? [one.id] : []));
  return ids.length === 0 ? {} : { rpc: { ids, isBatch: body.kind === "batch" } };
}

/** A record of what goes on. It permits nothing: what else is in the message is for other plugins to judge. */
export function recorded(reason: "found" | "redacted", placed: readonly Placed[]): Decision {
  return observe(reason, detailsOf(placed));
}
