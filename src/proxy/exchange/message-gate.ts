/** Whether the messages of an upgraded connection have to be judged one by one, and what makes them readable. */
import { ProxyError } from "../../errors.ts";
import type { BodyBudget } from "../../http/body.ts";
import type { WebSocketMessage } from "../../http/web-socket-reader.ts";
import type { RequestContext } from "../../pipeline/context.ts";
import type { Denial } from "../../pipeline/decision.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";

/** What bounds the messages of one connection. */
export interface MessageLimits {
  readonly maxMessageBytes: number;
  readonly budget: BodyBudget;
}

/** Stands between the client of a WebSocket and its origin. */
export class MessageGate {
  readonly limits: MessageLimits;
  readonly #pipeline: Pipeline;
  readonly #context: RequestContext;

  private constructor(pipeline: Pipeline, context: RequestContext, limits: MessageLimits) {
    this.#pipeline = pipeline;
    this.#context = context;
    this.limits = limits;
  }

  /**
   * The gate of an upgrade that the pipeline let pass; undefined where no plugin reads its messages.
   *
   * Takes the offer of extensions off the request: permessage-deflate (RFC 7692) would hide what is sent. Throws
   * `policy.forbidden` where messages are to be judged and this is no WebSocket that can be read.
   */
  static of(
    pipeline: Pipeline,
    context: RequestContext,
    limits: MessageLimits,
  ): MessageGate | undefined {
    if (context.upgrade === undefined || !pipeline.messages.areNeeded(context)) return undefined;
    const { headers } = context;
    const isReadable =
      context.upgrade.toLowerCase() === "websocket" &&
      headers.get("sec-websocket-version") === "13";
    if (!isReadable) {
      throw new ProxyError(
        "policy.forbidden",
        "messages on this path are judged, and only those of WebSocket version 13 can be",
      );
    }
    headers.delete("sec-websocket-extensions");
    return new MessageGate(pipeline, context, limits);
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

  /** The refusal of a message, or undefined; a promise only where a plugin has to be waited for. */
  judge(message: WebSocketMessage): Denial | undefined | Promise<Denial | undefined> {
    return this.#pipeline.messages.judge(this.#context, message);
  }
}
