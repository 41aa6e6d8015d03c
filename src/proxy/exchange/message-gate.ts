/** Whether the messages of an upgraded connection have to be read one by one, and what makes them readable. */
import { ProxyError } from "../../errors.ts";
import type { BodyBudget } from "../../http/body.ts";
import type { Echo } from "../../http/echo.ts";
import type { RequestContext } from "../../pipeline/context.ts";
import type { MessageVerdict } from "../../pipeline/message-judge.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";
import type { HeardMessage } from "../../pipeline/plugin.ts";

/** What bounds the messages of one connection. */
export interface MessageLimits {
  readonly maxMessageBytes: number;
  readonly budget: BodyBudget;
}

/** Stands between the client of a WebSocket and its origin. */
export class MessageGate {
  readonly limits: MessageLimits;
  /** Some plugin judges what the client or the origin sends. */
  readonly isJudging: boolean;
  /** Some plugin judges what the origin sends. */
  readonly isJudgingServer: boolean;
  readonly #pipeline: Pipeline;
  readonly #context: RequestContext;

  private constructor(pipeline: Pipeline, context: RequestContext, limits: MessageLimits) {
    this.#pipeline = pipeline;
    this.#context = context;
    this.limits = limits;
    this.isJudgingServer = pipeline.messages.areNeeded(context, "server");
    this.isJudging = this.isJudgingServer || pipeline.messages.areNeeded(context, "client");
  }

  /** Whether everybody is asked about the messages of this side, whoever can refuse them. */
  asksAbout(from: HeardMessage["from"]): boolean {
    return from === "client" || this.isJudgingServer;
  }

  /** What the origin must not repeat to the client. */
  readonly echo = (): Echo | undefined => this.#context.echo;

  /**
   * The gate of an upgrade that the pipeline let pass; undefined where no plugin reads its messages, and nothing in them
   * is to be concealed.
   *
   * Takes the offer of extensions off the request: permessage-deflate (RFC 7692) would hide what is sent. Throws
   * `policy.forbidden` where messages are to be judged and this is no WebSocket that can be read.
   */
  static of(
    pipeline: Pipeline,
    context: RequestContext,
    limits: MessageLimits,
  ): MessageGate | undefined {
    if (context.upgrade === undefined) return undefined;
    const gate = new MessageGate(pipeline, context, limits);
    if (!gate.isJudging && context.echo === undefined) return undefined;
    const { headers } = context;
    const isReadable =
      context.upgrade.toLowerCase() === "websocket" &&
      headers.get("sec-websocket-version") === "13";
    if (!isReadable) {
      if (!gate.isJudging) return undefined;
      throw new ProxyError(
        "policy.forbidden",
        "messages on this path are judged, and only those of WebSocket version 13 can be",
      );
    }
    headers.delete("sec-websocket-extensions");
    return gate;
  }

  /** Throws where the origin's response makes messages unreadable. */
  checkResponse(headers: readonly string[]): void {
    for (let i = 0; i < headers.length; i += 2) {
      if (headers[i]?.toLowerCase() !== "sec-websocket-extensions") continue;
      throw new ProxyError(
        "upstream.bad-response",
        "the origin chose a WebSocket extension that was not offered",
      );
    }
  }

  /** The verdict on a message that is not forwarded as it came; a promise only where a plugin has to be waited for. */
  readonly judge = (
    message: HeardMessage,
  ): MessageVerdict | undefined | Promise<MessageVerdict | undefined> =>
    this.#pipeline.messages.judge(this.#context, message);
}
