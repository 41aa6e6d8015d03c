/** A tunnel that is not opened, and how its client learns why. */
import type { Destination } from "../../net/destination.ts";
import type { RequestContext } from "../../pipeline/context.ts";
import type { Denial, Refusal, Reply } from "../../pipeline/decision.ts";
import { handshake } from "./bridged.ts";
import type { BridgeServer } from "./bridge-server.ts";
import type { Ending } from "../flow/finish.ts";
import { renderDenial, statusOf } from "../flow/reply.ts";
import { firstBytes, serveClear } from "./opened.ts";
import type { TunnelPlan } from "./plan.ts";
import { trustNameOf, type TunnelRequest, type TunnelServices } from "./request.ts";

/** The refusal of the pipeline. */
export interface RefusedTunnel extends TunnelRequest {
  readonly context: RequestContext;
  readonly verdict: Refusal;
}

/** Sends the refusal in the form of the surface. */
export function refuse(request: TunnelRequest, denial: Denial, cancelled: boolean): Ending {
  const { client, replies } = request;
  const reply = renderDenial(denial);
  if (!client.destroyed) replies.refused(client, reply, denial.code);
  return { ...endingOf(reply, denial), bytesReceived: 0, cancelled };
}

/** The same for a refusal of the pipeline. */
export function refuseOutside(request: RefusedTunnel): Ending {
  const { client, replies, context, verdict } = request;
  if (verdict.kind === "denial")
    return refuse(request, verdict.denial, context.cancellation.aborted);
  replies.refused(client, verdict.reply);
  const { status } = verdict.reply;
  return { status, bytesReceived: 0, bytesSent: 0, refused: true, cancelled: false };
}

/**
 * Opens the connection as if it were permitted, so that its client gets an HTTP response instead of a dead connection:
 * most clients do not show the response to a CONNECT, and some retry.
 *
 * The destination is not dialled and not looked up. A client that would not take the leaf the last time gets 403 for its
 * CONNECT instead.
 */
export async function refuseInside(
  { recorder }: TunnelServices,
  server: BridgeServer,
  request: RefusedTunnel & { readonly planned: TunnelPlan },
): Promise<Ending> {
  const { runtime, flow, client, context, verdict } = request;
  const bridge = request.planned === "bridge" ? runtime.bridge : undefined;
  // A client that trusts no authority of ours sees a status of the CONNECT, and nothing else.
  if (request.captured === undefined && bridge?.isDistrustedBy(trustNameOf(request)) === true)
    return refuseOutside(request);
  request.replies.established(client);
  const denial = verdict.kind === "denial" ? verdict.denial : undefined;
  const reply = verdict.kind === "reply" ? verdict.reply : renderDenial(verdict.denial);
  const asked = new Set<string>();
  const refusal = {
    reply,
    asked: (method: string, target: string) => {
      if (asked.size < maxAsked) asked.add(requestLine(method, target));
    },
  };
  const first = request.captured === undefined ? await firstBytes(request) : undefined;
  if (first?.kind === "http") {
    await serveClear(server, request, refusal);
  } else if (bridge !== undefined) {
    const outcome = await handshake(request, { bridge, first, signal: context.signal });
    recorder.metrics.counters.bridge_handshakes_total.of(outcome.kind).value += 1;
    if (outcome.kind === "terminated") {
      const destination = flow.destination.with({ scheme: "https" });
      const connection = { tunnel: flow, destination, bridge, refusal };
      await server.serve(outcome.tlsSocket, outcome.alpnProtocol, connection);
    }
  }
  return {
    ...endingOf(reply, denial),
    bytesReceived: client.bytesRead,
    cancelled: false,
    // The log shows the request that a policy would have to permit.
    ...(asked.size === 0 ? {} : { note: { asked: [...asked] } }),
  };
}

/** The end of a tunnel that was granted and whose client speaks nothing that could carry the reason. */
export function endOpened({ client }: TunnelRequest, denial: Denial): Ending {
  client.destroySoon();
  return {
    ...endingOf(renderDenial(denial), denial),
    bytesReceived: client.bytesRead,
    bytesSent: 0,
    cancelled: false,
  };
}

const maxAsked = 20;
const maxPathChars = 512;

/** Queries carry secrets. */
function requestLine(method: string, target: string): string {
  const [path = ""] = target.split(/[?#]/, 1);
  return `${method.slice(0, 32)} ${path.slice(0, maxPathChars)}`;
}

/** Raw bytes where the bridge would open TLS: their content cannot be judged. */
export function notTls({ authority }: Destination): Denial {
  return {
    code: "tls.not-tls",
    message: `the connection to ${authority} is not TLS: list the address in tls_bridge.passthrough_hosts if that is meant`,
  };
}

function endingOf(
  reply: Reply,
  denial: Denial | undefined,
): Omit<Ending, "bytesReceived" | "cancelled"> {
  return {
    status: reply.status,
    bytesSent: reply.body.length,
    refused: denial === undefined || statusOf(denial) < 500 || denial.plugin !== undefined,
    denial,
  };
}

/** No tunnel more is carried. */
export function refuseFull({ recorder }: TunnelServices, request: TunnelRequest): Ending {
  recorder.metrics.refused("tunnels");
  const message = "too many tunnels are open (limits.max_tunnels)";
  return refuse(request, { code: "proxy.overloaded", message }, false);
}

/** 407 is about the connection to the proxy: a client reads it nowhere else (RFC 9110 section 15.5.8). */
export function isForTheProxy(verdict: RefusedTunnel["verdict"]): boolean {
  return (verdict.kind === "denial" ? statusOf(verdict.denial) : verdict.reply.status) === 407;
}
