/** A CONNECT between its listener and the code that carries it. */
import type { Socket } from "node:net";
import type { HeaderList } from "../http/headers.ts";
import type { IdleSweeper } from "../net/idle-sweeper.ts";
import type { RequestContext } from "../pipeline/context.ts";
import type { Flow } from "../pipeline/flow.ts";
import type { Permit } from "../pipeline/pipeline.ts";
import type { FlowRecorder } from "./finish.ts";
import type { Runtime } from "./runtime.ts";
import type { TunnelRegistry } from "./tunnel-registry.ts";

/** One CONNECT as a listener hands it over. */
export interface TunnelRequest {
  readonly runtime: Runtime;
  readonly flow: Flow;
  readonly client: Socket;
  /** Bytes that arrived together with the CONNECT; they go on only once the tunnel is up. */
  readonly head: Buffer;
  /** End-to-end fields of the CONNECT, for plugins. */
  readonly headers: HeaderList;
}

/** Answers a CONNECT that may be served. */
export const established = "HTTP/1.1 200 Connection Established\r\n\r\n";

/** What every tunnel of the process shares. */
export interface TunnelServices {
  readonly recorder: FlowRecorder;
  readonly tunnels: TunnelRegistry;
  readonly idle: IdleSweeper;
}

/** A tunnel that the chain permitted. */
export interface PermittedTunnel extends TunnelRequest {
  readonly context: RequestContext;
  readonly permit: Permit;
  readonly skipped: boolean;
}
