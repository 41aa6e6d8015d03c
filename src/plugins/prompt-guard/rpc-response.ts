/** Messages of JSON-RPC that come to a client: each result, tool, prompt and resource in them is judged by itself. */
import { isObject, type JsonObject, textOf } from "../../http/json-access.ts";
import {
  classifyRpc,
  errorResponse,
  messagesOf,
  type RpcId,
  type RpcMessage,
} from "../../http/json-rpc.ts";
import { type JsonPath, type JsonReplacement, spliceJson } from "../../http/json-splice.ts";
import type { Pins } from "../../policy/tools/tool-pins.ts";
import type { Origin } from "./guard-rule.ts";
import { detailsOf, type GuardJudge, noticeOf, type Verdict } from "./judge.ts";
import { joined, type JsonText, rewriteTexts, textsOf } from "./json-texts.ts";
import type { DecisionDetails } from "../../pipeline/decision.ts";

/** Whose messages they are. */
export interface RpcScope {
  readonly judge: GuardJudge;
  readonly origin: Origin;
  /** The tool that was called with this id; null where that is not known. */
  toolOf(id: RpcId): string | null;
  /** What tools looked like before, and the server that they are of. */
  readonly pins: Pins;
  readonly serverKey: string;
}

/** What became of some messages. */
export interface RpcOutcome {
  /** The text that goes on; absent where it goes on as it came. */
  readonly json?: string;
  /** The gravest verdict. */
  readonly reason: string;
  readonly details: DecisionDetails;
}

/** Lists whose items are judged one by one: the others stay. */
const lists = ["tools", "prompts", "resources", "resourceTemplates"] as const;
const gravity = ["observe", "mark", "strip", "refuse"];

/** Judges the messages; undefined where no rule holds for any of them, or where they are no JSON-RPC. */
export async function judgeRpc(
  value: unknown,
  text: string,
  scope: RpcScope,
): Promise<RpcOutcome | undefined> {
  const body = classifyRpc(value);
  const run = new RpcRun(scope);
  for (const [at, message] of messagesOf(body).entries()) {
    await run.message(message, body.kind === "batch" ? [at] : []);
  }
  return run.outcome(text);
}

/** Whether a value is JSON-RPC at all. */
export function isRpc(value: unknown): boolean {
  return messagesOf(classifyRpc(value)).some(({ kind }) => kind !== "invalid");
}

class RpcRun {
  readonly #scope: RpcScope;
  readonly #replacements: JsonReplacement[] = [];
  #gravest: { readonly verdict: Verdict; readonly origin: Origin } | undefined;

  constructor(scope: RpcScope) {
    this.#scope = scope;
  }

  outcome(text: string): RpcOutcome | undefined {
    if (this.#gravest === undefined) return undefined;
    const { verdict, origin } = this.#gravest;
    const reason = verdict.unavailable === undefined ? wordOf(verdict) : "classifier_unavailable";
    const said = { reason, details: detailsOf(verdict, origin) };
    if (this.#replacements.length === 0) return said;
    return { ...said, json: spliceJson(text, this.#replacements) };
  }

  async message(message: RpcMessage, path: JsonPath): Promise<void> {
    switch (message.kind) {
      case "invalid":
        return;
      case "response":
        await this.#response(message, path);
        return;
      case "request":
      case "notification": {
        const verdict = await this.#unit(
          textsOf(message.params, [...path, "params"]),
          this.#scope.origin,
        );
        if (verdict !== undefined)
          this.#put(path, withheldNotice(noticeOf("A message of the server", verdict)));
      }
    }
  }

  async #response(
    { id, result, error }: Extract<RpcMessage, { kind: "response" }>,
    path: JsonPath,
  ): Promise<void> {
    const said = isObject(result) ? result : {};
    const listed = lists.filter((name) => Array.isArray(said[name]));
    for (const name of listed)
      await this.#list(said[name] as readonly unknown[], name, [...path, "result", name]);
    const isTool = Array.isArray(said["content"]) || isObject(said["structuredContent"]);
    const tool = isTool ? this.#scope.toolOf(id) : undefined;
    const origin = { ...this.#scope.origin, tool };
    const texts =
      error === undefined
        ? textsOf(withoutLists(result, listed), [...path, "result"])
        : textsOf(error, [...path, "error"]);
    const verdict = await this.#unit(texts, origin);
    if (verdict === undefined) return;
    const what = tool === undefined ? "The response of the server" : "The result of the tool";
    const notice = noticeOf(what, verdict);
    const content = [{ type: "text", text: notice }];
    this.#put(
      path,
      isTool && error === undefined
        ? { jsonrpc: "2.0", id, result: { content, isError: true } }
        : errorResponse(id, -32_000, notice),
    );
  }

  /** Tools, prompts and resources: what is refused is not listed. */
  async #list(items: readonly unknown[], name: string, path: JsonPath): Promise<void> {
    const kept: unknown[] = [];
    for (const [at, item] of items.entries()) {
      const isTool = name === "tools" && isObject(item);
      const tool = isTool ? textOf(item["name"]) : undefined;
      const origin = tool === undefined ? this.#scope.origin : { ...this.#scope.origin, tool };
      const isChanged = isTool && tool !== undefined && !this.#isAsBefore(tool, item);
      const verdict = await this.#unit(textsOf(item, [...path, at]), origin, isChanged);
      if (verdict === undefined) kept.push(item);
    }
    // The whole list is written anew: what was to be written into its items is written there as well.
    if (kept.length < items.length)
      this.#put(path, keptItems(kept, items, this.#replacements, path));
  }

  #isAsBefore(tool: string, item: JsonObject): boolean {
    const { pins, serverKey } = this.#scope;
    return pins.observe(serverKey, tool, item);
  }

  /** Judges one unit and writes into it; its verdict where it is refused. */
  async #unit(
    texts: readonly JsonText[],
    origin: Origin,
    isChanged = false,
  ): Promise<Verdict | undefined> {
    if (texts.length === 0 && !isChanged) return undefined;
    const { judge } = this.#scope;
    const verdict = await judge.judge({ text: joined(texts), kind: "text", origin, isChanged });
    if (verdict === undefined) return undefined;
    if (verdict.action === "mark" || verdict.action === "strip") {
      const written = await rewriteTexts(judge, texts, { origin, verdict });
      if (written !== undefined) {
        this.#replacements.push(...written);
        this.#note(verdict, origin);
        return undefined;
      }
    }
    const refused =
      verdict.action === "observe" ? verdict : { ...verdict, action: "refuse" as const };
    this.#note(refused, origin);
    return refused.action === "observe" ? undefined : refused;
  }

  #note(verdict: Verdict, origin: Origin): void {
    const before = this.#gravest?.verdict.action;
    if (before !== undefined && gravity.indexOf(before) >= gravity.indexOf(verdict.action)) return;
    this.#gravest = { verdict, origin };
  }

  #put(path: JsonPath, value: unknown): void {
    this.#replacements.push({ path, json: JSON.stringify(value) });
  }
}

/** What a record calls it. */
function wordOf({ action }: Verdict): string {
  return { refuse: "refused", strip: "stripped", mark: "marked", observe: "observed" }[action];
}

function withoutLists(result: unknown, listed: readonly string[]): unknown {
  if (!isObject(result) || listed.length === 0) return result;
  return Object.fromEntries(Object.entries(result).filter(([name]) => !listed.includes(name)));
}

/** Something that clients take and nobody waits for. */
function withheldNotice(data: string): object {
  const params = { level: "warning", logger: "prompt-guard", data };
  return { jsonrpc: "2.0", method: "notifications/message", params };
}

/** The items that stay, with what was written into them. */
function keptItems(
  kept: readonly unknown[],
  items: readonly unknown[],
  replacements: readonly JsonReplacement[],
  path: JsonPath,
): unknown {
  const depth = path.length;
  return kept.map((item) => {
    const at = items.indexOf(item);
    const own = replacements.filter(
      (one) =>
        one.path.length > depth &&
        one.path[depth] === at &&
        path.every((step, i) => one.path[i] === step),
    );
    const inside = own.map(({ path: place, json }) => ({ path: place.slice(depth + 1), json }));
    const text = JSON.stringify(item);
    return JSON.parse(inside.length === 0 ? text : spliceJson(text, inside)) as unknown;
  });
}
