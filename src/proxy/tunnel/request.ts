/** A CONNECT between its listener and the code that carries it. */
import type { Socket } from "node:net";
import type { HeaderList } from "../../http/headers.ts";
import type { Backlogs } from "../../net/backlogs.ts";
import type { StallWatch } from "../../net/stall-watch.ts";
import type { RequestContext } from "../../pipeline/context.ts";
import type { Reply } from "../../pipeline/decision.ts";
import { callerOf, type Flow } from "../../pipeline/flow.ts";
import type { ConfirmCaptured } from "../flow/captured.ts";
import type { FlowRecorder } from "../flow/finish.ts";
import { rawReply } from "../flow/reply.ts";
import type { Runtime } from "../flow/runtime.ts";
import type { JudgedBy, TunnelRegistry } from "../flow/tunnel-registry.ts";

/** How the outcome is sent to the client of a tunnel. */
export interface TunnelReplies {
  established(client: Socket): void;
  /** `code` is that of the denial, where the reply is not a plugin's own. */
  refused(client: Socket, reply: Reply, code?: string): void;
}

/** A client that knows nothing of a proxy: the kernel redirected its connection. */
export interface CapturedClient {
  readonly isTls: boolean;
  /** Before its server did, and neither TLS nor a request that we read. */
  readonly hasSpoken?: boolean;
  readonly confirm: ConfirmCaptured;
}

/** One CONNECT, or one captured connection, as a listener hands it over. */
export interface TunnelRequest {
  readonly runtime: Runtime;
  readonly flow: Flow;
  readonly client: Socket;
  /** Bytes that arrived together with the CONNECT; they go on only once the tunnel is up. */
  readonly head: Buffer;
  /** End-to-end fields of the CONNECT, for plugins. */
  readonly headers: HeaderList;
  readonly replies: TunnelReplies;
  /** Absent for a CONNECT. */
  readonly captured?: CapturedClient;
  /** The file exempts it from the pipeline, whatever its host. */
  readonly isExempt?: boolean;
}

/** The responses to a CONNECT. */
export const connectReplies: TunnelReplies = {
  established: (client) => client.write("HTTP/1.1 200 Connection Established\r\n\r\n"),
  refused: (client, reply) => client.write(rawReply(reply)),
};

/** What every tunnel of the process shares. */
export interface TunnelServices {
  readonly recorder: FlowRecorder;
  readonly tunnels: TunnelRegistry;
  readonly stalls: StallWatch;
  readonly backlogs: Backlogs;
}

/** A tunnel that the pipeline permitted. */
export interface PermittedTunnel extends TunnelRequest {
  readonly context: RequestContext;
  readonly judgedBy: JudgedBy;
}

/** Who takes our leaf or does not: programs of one machine differ by what their CONNECT says of them. */
export function trustNameOf({ flow, headers }: Pick<TunnelRequest, "flow" | "headers">): string {
  const agent = headers.get("user-agent")?.slice(0, 256) ?? "";
  const name = callerOf(flow.client);
  return agent === "" && name === flow.client.address ? name : `${name} ${agent}`;
}

/** How a tunnel is spliced. */
export interface Opening {
  /** What its client said before the dial. */
  readonly head: Buffer;
  /** Its client has had its 200. */
  readonly isEstablished: boolean;
  /** The bridge would have looked inside: a TLS client must ask for the permitted host. */
  readonly checksName: boolean;
  /** Its client may turn out to speak plain HTTP, whose requests are judged. */
  readonly looks: boolean;
}
