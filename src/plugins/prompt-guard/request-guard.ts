/** Judges what requests carry to a model or to the agent: outputs of tools, and messages. */
import { isObject } from "../../http/json-access.ts";
import { classifyRpc, messagesOf } from "../../http/json-rpc.ts";
import { type JsonReplacement, spliceJson } from "../../http/json-splice.ts";
import { hasSignedBody } from "../../http/signed-fields.ts";
import type { DecisionDetails } from "../../pipeline/decision.ts";
import {
  type Decision,
  deny,
  type Denial,
  observe,
  type RequestContext,
} from "../../pipeline/plugin.ts";
import { requestJson } from "../../protocols/message-json.ts";
import { OutputTools, type ToolOutput, toolOutputs } from "../../protocols/tool-outputs.ts";
import { detailsOf, type GuardJudge, noticeOf, type Verdict } from "./judge.ts";
import { joined, type JsonText, rewriteTexts, textsOf } from "./json-texts.ts";
import type { Origin } from "./guard-rule.ts";

/** What became of one part of a request. */
interface Part {
  readonly verdict: Verdict;
  readonly origin: Origin;
  /** Undefined where the part is refused. */
  readonly written: readonly JsonReplacement[] | undefined;
}

/** Judges the outputs of tools in a request to a language model; one that is refused is replaced by a notice. */
export async function guardToolOutputs(
  judge: GuardJudge,
  context: RequestContext,
): Promise<Decision | undefined> {
  const json = requestJson(context);
  if (json.kind !== "json" || !isObject(json.value)) return undefined;
  const tools = new OutputTools(json.value);
  const { host } = context.destination;
  const parts: Part[] = [];
  for (const output of toolOutputs(json.value)) {
    const texts = outputTexts(output);
    const origin = { host, tool: tools.nameOf(output) ?? null };
    const part = await judgePart(judge, texts, origin);
    if (part === undefined) continue;
    const written = part.written ?? [
      withheld(output, noticeOf("The output of the tool", part.verdict)),
    ];
    parts.push({ ...part, written });
  }
  return settle(context, parts);
}

/** Judges a message to the agent as a whole. */
export async function guardMessage(
  judge: GuardJudge,
  context: RequestContext,
): Promise<Decision | undefined> {
  const json = requestJson(context);
  if (json.kind !== "json") return undefined;
  const origin = { host: context.destination.host };
  const part = await judgePart(judge, textsOf(json.value), origin);
  if (part === undefined) return undefined;
  if (part.written !== undefined) return settle(context, [part]);
  const body = classifyRpc(json.value);
  const ids = messagesOf(body).flatMap((message) =>
    message.kind === "request" ? [message.id] : [],
  );
  const rpc = ids.length === 0 ? {} : { rpc: { ids, isBatch: body.kind === "batch" } };
  return refusal(noticeOf("The message", part.verdict), detailsOf(part.verdict, origin), rpc);
}

async function judgePart(
  judge: GuardJudge,
  texts: readonly JsonText[],
  origin: Origin,
): Promise<Part | undefined> {
  const verdict = await judge.judge({ text: joined(texts), kind: "text", origin });
  if (verdict === undefined) return undefined;
  const { action } = verdict;
  if (action === "observe") return { verdict, origin, written: [] };
  const written =
    action === "refuse" ? undefined : await rewriteTexts(judge, texts, { origin, verdict });
  return { verdict, origin, written };
}

function settle(context: RequestContext, parts: readonly Part[]): Decision | undefined {
  const [first] = parts;
  if (first === undefined) return undefined;
  const replacements = parts.flatMap(({ written }) => written ?? []);
  const worst = parts.reduce((a, b) => (b.verdict.score > a.verdict.score ? b : a), first);
  const details = { ...detailsOf(worst.verdict, worst.origin), parts: parts.length };
  if (replacements.length === 0) return observe("observed", details);
  if (hasSignedBody(context.headers, context.sentPath, context.isResigned)) {
    return refusal(
      "The request cannot be changed as prompt-guard has it: its body is signed.",
      details,
    );
  }
  const clear = context.clearBody;
  if (clear?.kind !== "body") return undefined;
  context.setBody(Buffer.from(spliceJson(clear.bytes.toString("utf8"), replacements)));
  const isWithheld = parts.some(({ verdict: { action } }) => action === "refuse");
  // Another plugin has to allow the request: a changed one is not allowed by that.
  return observe(isWithheld ? "output_withheld" : "output_rewritten", details);
}

function refusal(message: string, details: DecisionDetails, rest: Partial<Denial> = {}): Decision {
  return deny("refused", { code: "prompt-guard.blocked", status: 403, message, ...rest }, details);
}

function outputTexts({ value, path }: ToolOutput): readonly JsonText[] {
  return textsOf(value, path);
}

/** In the shape of what it replaces. */
function withheld({ value, path }: ToolOutput, notice: string): JsonReplacement {
  if (typeof value === "string") return { path, json: JSON.stringify(notice) };
  return { path, json: JSON.stringify(Array.isArray(value) ? [notice] : { error: notice }) };
}
