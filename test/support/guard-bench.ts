/** Responses as prompt-guard sees them, without a proxy around it. */
import { promptGuard } from "../../src/plugins/prompt-guard/plugin.ts";
import type { Decision, OperatorFetch, Plugin, RequestContext } from "../../src/pipeline/plugin.ts";
import { answered, message, type MessageShape, PluginBench } from "./plugin-bench.ts";

/** One instance, and responses for it. */
export class GuardBench {
  readonly bench: PluginBench;
  readonly plugin: Plugin;

  constructor(config: object = {}, fetch?: OperatorFetch) {
    this.bench = new PluginBench(fetch);
    this.plugin = this.bench.create(promptGuard, config);
  }

  /** A request whose response has this head. */
  respond(
    type: string,
    headers: Readonly<Record<string, string>> = {},
    shape: MessageShape = {},
  ): RequestContext {
    const context = message(shape);
    answered(context, type, headers);
    return context;
  }

  /** What becomes of a whole body. */
  async body(context: RequestContext, body: string | Buffer): Promise<Decision | undefined> {
    return this.plugin.onFrame?.(context, { data: Buffer.from(body), last: true });
  }

  /** What goes on of a whole body: itself, what it was replaced by, or undefined where it was refused. */
  async passed(type: string, body: string): Promise<string | undefined> {
    const said = await this.body(this.respond(type), body);
    if (said?.action === "deny") return undefined;
    return replacedBy(said) ?? body;
  }
}

/** The data that a decision puts in place of a frame's. */
export function replacedBy(decision: Decision | undefined): string | undefined {
  if (decision?.action !== "modify" || decision.frame === undefined) return undefined;
  return "data" in decision.frame ? decision.frame.data?.toString() : undefined;
}
