/** The handler of a request that goes through a parent: the parent's own responses become faults. */
import type { Duplex } from "node:stream";
import type { RequestControl, ResponseHandler } from "../http/response-handler.ts";
import type { AbsoluteForm } from "./upstream.ts";

/** Stands between the pool and the handler of an exchange. */
export class ParentResponse implements ResponseHandler {
  readonly #form: AbsoluteForm;
  readonly #handler: ResponseHandler;

  constructor(form: AbsoluteForm, handler: ResponseHandler) {
    this.#form = form;
    this.#handler = handler;
  }

  onRequestStart(control: RequestControl): void {
    this.#handler.onRequestStart(control);
  }

  onResponseStarted(): void {
    this.#handler.onResponseStarted();
  }

  onInformational(control: RequestControl, status: number, headers: string[]): void {
    this.#handler.onInformational(control, status, endToEnd(headers));
  }

  onResponseStart(
    control: RequestControl,
    status: number,
    headers: string[],
    reason: string | undefined,
  ): void {
    const refusal = this.#form.refusal(status, headers);
    if (refusal !== undefined) throw refusal;
    this.#handler.onResponseStart(control, status, endToEnd(headers), reason);
  }

  onUpgrade(status: number, headers: string[], socket: Duplex, head: Buffer): void {
    this.#handler.onUpgrade(status, headers, socket, head);
  }

  onResponseData(control: RequestControl, chunk: Buffer): void {
    this.#handler.onResponseData(control, chunk);
  }

  get isDrained(): boolean {
    return this.#handler.isDrained === true;
  }

  onResponseEnd(control: RequestControl, trailers: readonly string[]): void {
    this.#handler.onResponseEnd(control, trailers);
  }

  onResponseError(control: RequestControl, error: Error): void {
    this.#handler.onResponseError(control, this.#form.fault(error));
  }
}

/** A proxy's own responses are not for the agent. */
function endToEnd(headers: readonly string[]): string[] {
  const kept: string[] = [];
  for (let at = 0; at < headers.length; at += 2) {
    const name = headers[at] ?? "";
    if (!/^(?:proxy|x-squid)-/i.test(name)) kept.push(name, headers[at + 1] ?? "");
  }
  return kept;
}
