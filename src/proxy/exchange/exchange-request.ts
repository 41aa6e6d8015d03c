/** What an exchange is given: the services of the process, and one request as its surface parsed it. */
import type { Duplex } from "node:stream";
import type { ProxyError } from "../../errors.ts";
import type { BodyBudget } from "../../http/body.ts";
import type { AbortSource } from "../../net/abort-source.ts";
import type { ByteWatch } from "../../net/splice.ts";
import type { ByteMeter } from "../../pipeline/byte-meter.ts";
import type { Backlogs } from "../../net/backlogs.ts";
import type { HeaderList } from "../../http/headers.ts";
import type { Cancellation } from "../../pipeline/cancellation.ts";
import { RequestContext } from "../../pipeline/context.ts";
import type { Denial } from "../../pipeline/decision.ts";
import type { Flow } from "../../pipeline/flow.ts";
import type { Downstream } from "./downstream.ts";
import type { FlowRecorder } from "../flow/finish.ts";
import type { Receipts } from "../flow/receipts.ts";
import type { Runtime } from "../flow/runtime.ts";
import type { MessageGate } from "./message-gate.ts";
import type { StallWatch } from "../../net/stall-watch.ts";
import type { LiveExchanges } from "../flow/live-exchanges.ts";
import type { TunnelRegistry } from "../flow/tunnel-registry.ts";
import type { ConfirmCaptured } from "../flow/captured.ts";

/** What every exchange of the process shares. */
export interface ExchangeServices {
  readonly recorder: FlowRecorder;
  readonly stalls: StallWatch;
  readonly budget: BodyBudget;
  readonly backlogs: Backlogs;
  readonly tunnels: TunnelRegistry;
  readonly live: LiveExchanges;
  /** The name of this proxy in Via fields. */
  readonly pseudonym: string;
  /** Absent where nobody gets a receipt. */
  readonly receipts?: Receipts | undefined;
}

/** One request as a listener hands it over: parsed, and with the headers that go upstream. */
export interface ExchangeRequest {
  readonly runtime: Runtime;
  readonly flow: Flow;
  readonly downstream: Downstream;
  /** End-to-end fields only; Host is already the destination's. */
  readonly headers: HeaderList;
  /** Target path and query, byte for byte. */
  readonly path: string;
  /** What precedes the path on the wire: the path of a backend URL, or empty. */
  readonly basePath?: string;
  /** The authority that the client named, for plugins and records. */
  readonly host: string;
  /** HTTP/2 without TLS to the destination; see Route. */
  readonly priorKnowledge?: "always" | "where-needed" | undefined;
  /** Set for an Upgrade; called when the upstream switched protocols. */
  readonly upgrade?: UpgradeRequest | undefined;
  /** Set for a captured connection. */
  readonly confirm?: ConfirmCaptured | undefined;
  /** Called with a fault of the upstream, which the client gets as well. */
  readonly onFault?: ((error: ProxyError) => void) | undefined;
}

/** An exchange that may turn into a tunnel. */
export interface UpgradeRequest {
  readonly protocol: string;
  /** Takes over both connections; resolves when they are closed. */
  switchTo(head: string[], socket: Duplex, terms: SwitchTerms): Promise<Carried>;
}

/** What a connection that changed its protocol has carried since; `denial` where that ended it. */
export interface Carried {
  readonly bytesUp: number;
  readonly bytesDown: number;
  readonly denial?: Denial | undefined;
}

/** The terms under which a connection that changed its protocol is forwarded. */
export interface SwitchTerms {
  readonly signal: AbortSource;
  /** Present where each message of the client has to be judged. */
  readonly gate: MessageGate | undefined;
  /** Counts messages, where the protocol has some. */
  readonly watch: ByteWatch | undefined;
  /** Present where what goes by is bounded. */
  readonly toll: ByteMeter | undefined;
}

/** What the pipeline sees of a request. */
export function contextOf(request: ExchangeRequest, cancellation: Cancellation): RequestContext {
  const { flow, downstream, path, host, headers, upgrade } = request;
  return new RequestContext({
    flow,
    stage: "request",
    method: downstream.method,
    path,
    host,
    headers,
    hasBody: downstream.hasBody,
    cancellation,
    upgrade: upgrade?.protocol,
    httpVersion: downstream.httpVersion,
  });
}
