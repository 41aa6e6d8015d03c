/** What an agent reads in place of a tool call that was not made. */
import type { Decision, RequestContext } from "../../pipeline/plugin.ts";
import { respond } from "../../pipeline/plugin.ts";
import type { DecisionDetails } from "../../pipeline/decision.ts";
import { type McpFact, mcpFact } from "../../protocols/mcp-message.ts";
import type { Issue } from "./reflector.ts";

/** Says what was wrong, so that the agent asks its user for what is missing. */
export function clarification(issues: readonly Issue[]): string {
  const start =
    "This tool call was not executed because it could not be verified against the conversation. ";
  const reasons = issues.filter(({ explanation }) => explanation !== "");
  if (reasons.length === 0) {
    return `${start}Please confirm the request details with the user before retrying.`;
  }
  const lines = reasons.map(({ explanation, correction }) =>
    correction === undefined
      ? `\n- ${explanation}`
      : `\n- ${explanation} (suggested fix: ${correction})`,
  );
  return `${start}Reason(s):${lines.join("")}\nAsk the user for the exact, missing, or corrected information, then retry.`;
}

/** The first reason, for refusals and the record. */
export function firstReason(issues: readonly Issue[]): string {
  const reason = issues.find(({ explanation }) => explanation !== "")?.explanation;
  return reason ?? "tool call not grounded in the conversation";
}

/** The calls of tools are answered with the text as their result; undefined where nobody waits for one. */
export function reflected(
  context: RequestContext,
  text: string,
  details: DecisionDetails,
): Decision | undefined {
  const fact = context.facts.get(mcpFact);
  const messages: readonly McpFact[] = fact?.batch ?? (fact === undefined ? [] : [fact]);
  const answered = messages.filter(
    ({ method, rpcId }) => method !== undefined && rpcId !== undefined,
  );
  if (!answered.some(({ method }) => method === "tools/call")) return undefined;
  const responses = answered.map(({ method, rpcId: id }) =>
    method === "tools/call"
      ? { jsonrpc: "2.0", id, result: resultOf(text) }
      : { jsonrpc: "2.0", id, error: { code: -32_000, message: "the batch was not executed" } },
  );
  const json = JSON.stringify(fact?.batch === undefined ? responses[0] : responses);
  const accept = context.headers.get("accept")?.toLowerCase() ?? "";
  const isStreamOnly =
    accept.includes("text/event-stream") && !/application\/(?:json|\*)|\*\/\*/.test(accept);
  return respond(
    "reflected",
    {
      status: 200,
      headers: { "Content-Type": isStreamOnly ? "text/event-stream" : "application/json" },
      body: Buffer.from(isStreamOnly ? `event: message\ndata: ${json}\n\n` : json),
    },
    details,
  );
}

function resultOf(text: string): object {
  return {
    content: [{ type: "text", text }],
    isError: false,
    _meta: { sparc: { reflected: true } },
  };
}
