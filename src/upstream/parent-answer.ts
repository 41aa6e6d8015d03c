/** The handler of a request that goes through a parent: the parent's own responses become faults. */
import type { Duplex } from "node:stream";
import type { AbsoluteForm, AnswerFields } from "./upstream.ts";
import type { Dispatcher } from "./undici.ts";

type Handler = Dispatcher.DispatchHandler;
type Controller = Dispatcher.DispatchController;
type Fields = Record<string, string | string[] | undefined>;

/** Stands between the pool and the handler of an exchange. */
export class ParentAnswer implements Handler {
  readonly #form: AbsoluteForm;
  readonly #handler: Handler;

  constructor(form: AbsoluteForm, handler: Handler) {
    this.#form = form;
    this.#handler = handler;
  }

  onRequestStart(controller: Controller, context: unknown): void {
    this.#handler.onRequestStart?.(controller, context);
  }

  onResponseStarted(): void {
    this.#handler.onResponseStarted?.();
  }

  onRequestUpgrade(controller: Controller, status: number, headers: Fields, socket: Duplex): void {
    this.#handler.onRequestUpgrade?.(controller, status, headers, socket);
  }

  onResponseStart(controller: Controller, status: number, headers: Fields, reason?: string): void {
    const refusal = this.#form.refusal(status, headers);
    // undici gives what is thrown here to onResponseError and closes the connection.
    if (refusal !== undefined) throw refusal;
    this.#handler.onResponseStart?.(controller, status, endToEnd(headers), reason);
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    this.#handler.onResponseData?.(controller, chunk);
  }

  onResponseEnd(controller: Controller, trailers: Fields): void {
    this.#handler.onResponseEnd?.(controller, trailers);
  }

  onResponseError(controller: Controller, error: Error): void {
    this.#handler.onResponseError?.(controller, this.#form.fault(error));
  }
}

/** A proxy's own responses are not for the agent. */
function endToEnd(headers: AnswerFields): Fields {
  const kept: Fields = {};
  for (const [name, value] of Object.entries(headers)) {
    const lower = name.toLowerCase();
    if (!lower.startsWith("proxy-") && !lower.startsWith("x-squid-")) kept[name] = value;
  }
  return kept;
}
