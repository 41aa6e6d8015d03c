/** A CONNECT between its listener and the code that carries it. */
import type { Socket } from "node:net";
import type { HeaderList } from "../http/headers.ts";
import type { AbortSource } from "../net/abort-source.ts";
import type { IdleSweeper } from "../net/idle-sweeper.ts";
import type { RequestContext } from "../pipeline/context.ts";
import type { Reply } from "../pipeline/decision.ts";
import type { Flow } from "../pipeline/flow.ts";
import type { Permit } from "../pipeline/pipeline.ts";
import type { Upstream } from "../upstream/upstream.ts";
import type { FlowRecorder } from "./finish.ts";
import { rawReply } from "./reply.ts";
import type { Runtime } from "./runtime.ts";
import type { JudgedBy, TunnelRegistry } from "./tunnel-registry.ts";

/** How the client of a tunnel hears what became of it. */
export interface TunnelAnswers {
  established(client: Socket): void;
  refused(client: Socket, reply: Reply): void;
}

/** A client that knows nothing of a proxy: the kernel redirected its connection. */
export interface CapturedClient {
  readonly isTls: boolean;
  readonly confirm: ConfirmCaptured;
}

/**
 * Asked with each permit before anything is dialled for a captured connection; nothing once the first answer was good.
 *
 * Rejects with `request.misdirected` when the client dialled an address that the permitted name does not have.
 */
export type ConfirmCaptured = (
  permit: Permit,
  upstream: Upstream,
  signal: AbortSource,
) => Promise<void> | undefined;

/** One CONNECT, or one captured connection, as a listener hands it over. */
export interface TunnelRequest {
  readonly runtime: Runtime;
  readonly flow: Flow;
  readonly client: Socket;
  /** Bytes that arrived together with the CONNECT; they go on only once the tunnel is up. */
  readonly head: Buffer;
  /** End-to-end fields of the CONNECT, for plugins. */
  readonly headers: HeaderList;
  readonly answers: TunnelAnswers;
  /** Absent for a CONNECT. */
  readonly captured?: CapturedClient;
}

/** The answers to a CONNECT. */
export const connectAnswers: TunnelAnswers = {
  established: (client) => client.write("HTTP/1.1 200 Connection Established\r\n\r\n"),
  refused: (client, reply) => client.write(rawReply(reply)),
};

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
  readonly judgedBy: JudgedBy;
  readonly skipped: boolean;
}
