/** Judges one body, or one event of a stream, of a response. */
import { type FrameReader, frameReaderFor, shownOf, withData } from "../../http/frames.ts";
import { spliceJson } from "../../http/json-splice.ts";
import { fixedBy } from "../../http/signed-fields.ts";
import type { DecisionDetails } from "../../pipeline/decision.ts";
import {
  type Decision,
  deny,
  type Frame,
  observe,
  replaceFrame,
  type RequestContext,
} from "../../pipeline/plugin.ts";
import type { Pins } from "../../policy/tools/tool-pins.ts";
import { type McpFact, mcpFact } from "../../protocols/mcp-message.ts";
import { isEndOfEvents, jsonOf } from "../../protocols/message-json.ts";
import { kindOf, textOfBody } from "./body-text.ts";
import { type Origin, typeOf } from "./guard-rule.ts";
import { detailsOf, type GuardJudge, noticeOf, type Verdict } from "./judge.ts";
import { joined, rewriteTexts, textsOf } from "./json-texts.ts";
import { isRpc, judgeRpc, type RpcScope } from "./rpc-response.ts";

/** What became of some bytes. */
interface Judged {
  readonly verdict: "refused" | "passed";
  readonly reason: string;
  readonly details: DecisionDetails;
  /** What goes on in their place; absent: they go on as they came. */
  readonly data?: Buffer;
  readonly notice?: string;
}

/** Judges what one response brings. */
export class BodyGuard {
  readonly #judge: GuardJudge;
  readonly #context: RequestContext;
  readonly #origin: Origin;
  readonly #scope: RpcScope;

  constructor(judge: GuardJudge, context: RequestContext, pins: Pins) {
    this.#judge = judge;
    this.#context = context;
    const { host, authority } = context.destination;
    const contentType = context.response && typeOf(context.response.headers);
    this.#origin = { host, contentType };
    const tools = calledTools(context);
    this.#scope = {
      judge,
      origin: this.#origin,
      toolOf: (id) => tools.get(JSON.stringify(id)) ?? null,
      pins,
      serverKey: `prompt-guard ${authority}`,
    };
  }

  async onFrame({ data, last }: Frame): Promise<Decision | undefined> {
    const type = this.#origin.contentType;
    const reader = last ? frameReaderFor(type, data.length + 1) : undefined;
    const judged =
      reader === undefined ? await this.#bytes(data, last) : await this.#stream(reader, data);
    if (judged === undefined) return undefined;
    const { reason, details } = judged;
    if (judged.verdict === "refused") return this.#refusal(reason, judged.notice ?? "", details);
    if (judged.data === undefined) return observe(reason, details);
    const { response } = this.#context;
    const problem = response === undefined ? undefined : fixedBy(response.status, response.headers);
    if (problem !== undefined) {
      return this.#refusal(
        "signed",
        `The response cannot be changed as prompt-guard has it: ${problem}.`,
        details,
      );
    }
    if (
      last &&
      !isUtf8Type(response?.headers.get("content-type")) &&
      type !== undefined &&
      !type.includes("json")
    ) {
      response?.headers.set("Content-Type", `${type}; charset=utf-8`);
    }
    return replaceFrame(reason, judged.data, details);
  }

  #refusal(reason: string, message: string, details: DecisionDetails): Decision {
    const rule = typeof details["rule"] === "string" ? details["rule"] : undefined;
    return deny(reason, { code: "prompt-guard.blocked", status: 403, message, rule }, details);
  }

  /** A stream that another plugin has had collected. */
  async #stream(reader: FrameReader, data: Buffer): Promise<Judged | undefined> {
    const parts: Buffer[] = [];
    let worst: Judged | undefined;
    for (const frame of [...reader.push(data), ...reader.end()]) {
      const shown = shownOf(frame);
      const judged =
        shown === undefined || shown.data.length === 0
          ? undefined
          : await this.#bytes(shown.data, false);
      if (judged?.verdict === "refused") return judged;
      parts.push(judged?.data === undefined ? frame.raw : withData(frame, judged.data));
      if (judged !== undefined && (worst === undefined || judged.data !== undefined))
        worst = judged;
    }
    if (worst?.data === undefined) return worst;
    return { ...worst, data: Buffer.concat(parts) };
  }

  async #bytes(data: Buffer, isWhole: boolean): Promise<Judged | undefined> {
    const type = this.#origin.contentType;
    const field = !isWhole
      ? "text/event-stream"
      : type && this.#context.response?.headers.get("content-type");
    const text = textOfBody(data, field);
    if (text === undefined) return undefined;
    if (isEndOfEvents(data)) return undefined;
    const isJsonType = isWhole && type?.includes("json") === true;
    const opensJson = /^[\uFEFF\s]*(?:\{|\[\s*(?:[[{"\d]|\]))/.test(text.slice(0, 256));
    if (!isJsonType && !opensJson) return this.#text(text, isWhole ? kindOf(type, text) : "text");
    const json = jsonOf(data);
    if (json.kind === "invalid") {
      // Some reader may read in it what this one does not: nothing is written into it.
      const isMeantAsJson = isJsonType || !isWhole || type === undefined;
      return this.#text(text, "text", isMeantAsJson);
    }
    if (isRpc(json.value)) {
      const outcome = await judgeRpc(json.value, text, this.#scope);
      if (outcome === undefined) return undefined;
      const { json: written, reason, details } = outcome;
      return {
        verdict: "passed",
        reason,
        details,
        ...(written === undefined ? {} : { data: Buffer.from(written) }),
      };
    }
    return this.#json(json.value, text);
  }

  async #json(value: unknown, text: string): Promise<Judged | undefined> {
    const texts = textsOf(value);
    if (texts.length === 0) return undefined;
    const verdict = await this.#judge.judge({
      text: joined(texts),
      kind: "text",
      origin: this.#origin,
    });
    if (verdict === undefined) return undefined;
    if (verdict.action === "observe") return this.#passed(verdict);
    if (verdict.action !== "refuse") {
      const written = await rewriteTexts(this.#judge, texts, { origin: this.#origin, verdict });
      if (written !== undefined) return this.#passed(verdict, spliceJson(text, written));
    }
    return this.#refused(verdict);
  }

  async #text(text: string, kind: "html" | "text", isFixed = false): Promise<Judged | undefined> {
    const judged = { kind, origin: this.#origin };
    // In JSON that cannot be read, a quotation mark quotes nobody.
    const said = isFixed ? text.replaceAll('"', "\n") : text;
    const verdict = await this.#judge.judge({ text: said, ...judged });
    if (verdict === undefined) return undefined;
    if (verdict.action === "observe") return this.#passed(verdict);
    if (verdict.action !== "refuse" && !isFixed) {
      const written = await this.#judge.rewrite(text, judged, verdict);
      if (written !== undefined) return this.#passed(verdict, written);
    }
    return this.#refused(verdict);
  }

  #passed(verdict: Verdict, text?: string): Judged {
    const details = detailsOf(verdict, this.#origin);
    const reason = { refuse: "refused", strip: "stripped", mark: "marked", observe: "observed" }[
      verdict.action
    ];
    return {
      verdict: "passed",
      reason,
      details,
      ...(text === undefined ? {} : { data: Buffer.from(text) }),
    };
  }

  #refused(verdict: Verdict): Judged {
    const { authority } = this.#context.destination;
    const notice = noticeOf(`The response of ${authority}`, verdict);
    const reason = verdict.unavailable === undefined ? "refused" : "classifier_unavailable";
    return { verdict: "refused", reason, details: detailsOf(verdict, this.#origin), notice };
  }
}

function isUtf8Type(field: string | undefined): boolean {
  return field === undefined || /charset\s*=\s*"?utf-?8/i.test(field);
}

/** The tools that the request calls, by the ids of its messages. */
function calledTools({ facts, hasFacts }: RequestContext): ReadonlyMap<string, string> {
  const fact = hasFacts ? facts.get(mcpFact) : undefined;
  const messages: readonly McpFact[] = fact === undefined ? [] : (fact.batch ?? [fact]);
  return new Map(
    messages.flatMap(({ method, rpcId, params }): [string, string][] => {
      const name = params?.["name"];
      return method === "tools/call" && rpcId !== undefined && typeof name === "string"
        ? [[JSON.stringify(rpcId), name]]
        : [];
    }),
  );
}
