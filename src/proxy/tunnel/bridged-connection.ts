/** A connection whose requests are read, of TLS or in the clear: its tunnel, and where every request on it must go. */
import type { Destination } from "../../net/destination.ts";
import type { Client, Flow } from "../../pipeline/flow.ts";
import type { Reply } from "../../pipeline/decision.ts";
import type { Route } from "../exchange/arrival.ts";
import type { TlsBridge } from "../flow/tls-bridge.ts";
import type { ConfirmCaptured } from "../flow/captured.ts";

/** A connection that was refused. */
export interface Refusal {
  /** The response to every request of its client. */
  readonly reply: Reply;
  /** Called with every request; `target` is unparsed. */
  asked(method: string, target: string): void;
}

/** An opened connection: the tunnel that carries it and where its requests must go. */
export interface BridgedConnection {
  readonly tunnel: Flow;
  readonly destination: Destination;
  /** The bridge that opened it, notified when the origin cannot be verified; absent for plain HTTP. */
  readonly bridge?: TlsBridge;
  /** Set where the connection was captured. */
  readonly confirm?: ConfirmCaptured;
  readonly refusal?: Refusal;
}

/** The parts of a route that every request of one bridged connection shares. */
export function bridgedRoute({
  tunnel,
  destination,
  bridge,
  confirm,
}: BridgedConnection): Omit<Route, "path"> & { readonly client: Client } {
  return {
    destination,
    transport: bridge === undefined ? "http" : "bridge",
    client: tunnel.client,
    parentId: tunnel.id,
    captured: tunnel.captured,
    confirm,
    onFault: (error) => {
      if (error.code === "upstream.tls") bridge?.refused(destination, "origin not verified");
    },
  };
}
