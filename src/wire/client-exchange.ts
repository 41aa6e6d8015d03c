/** One request to an origin, from the moment that its connection is looked for. */
import type { RequestControl, ResponseHandler } from "../http/response-handler.ts";
import type { ClientRequest } from "./client-request.ts";

/** The connection that carries an exchange. */
export interface ExchangeCarrier {
  aborted(exchange: ClientExchange, reason: Error): void;
  resumed(exchange: ClientExchange): void;
}

/** What its handler holds of a request; it has no power over those that follow on its connection. */
export class ClientExchange implements RequestControl {
  readonly request: ClientRequest;
  readonly handler: ResponseHandler;
  /** While it is carried. */
  carrier: ExchangeCarrier | undefined;
  isPaused = false;
  /** A byte of a response has come. */
  isStarted = false;

  constructor(request: ClientRequest, handler: ResponseHandler) {
    this.request = request;
    this.handler = handler;
  }

  pause(): void {
    this.isPaused = true;
  }

  resume(): void {
    if (!this.isPaused) return;
    this.isPaused = false;
    this.carrier?.resumed(this);
  }

  abort(reason: Error): void {
    this.carrier?.aborted(this, reason);
  }
}
