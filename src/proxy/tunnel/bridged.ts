/** A tunnel that the bridge opens: 200 without dialling, the handshake, then requests in the clear. */
import type { Sniffed } from "../../net/sniff.ts";
import type { Denial } from "../../pipeline/decision.ts";
import type { Termination, TerminationFailure } from "../../tlsbridge/terminator.ts";
import type { BridgeServer } from "./bridge-server.ts";
import type { Ending } from "../flow/finish.ts";
import type { TlsBridge } from "../flow/tls-bridge.ts";
import { firstBytes, openedTunnel, serveClear } from "./opened.ts";
import {
  type PermittedTunnel,
  trustNameOf,
  type TunnelRequest,
  type TunnelServices,
} from "./request.ts";

/** Runs the bridged connection to its end. The origin is dialled when its first request is permitted. */
export async function bridgeTunnel(
  services: TunnelServices,
  server: BridgeServer,
  tunnel: PermittedTunnel,
): Promise<Ending> {
  const { runtime, flow, client, context } = tunnel;
  const { bridge } = runtime;
  if (bridge === undefined) throw new TypeError("a bridged tunnel without a bridge");
  const { metrics, log } = services.recorder;
  const { destination } = flow;
  return openedTunnel(services, tunnel, async () => {
    tunnel.replies.established(client);
    const first = tunnel.captured === undefined ? await firstBytes(tunnel) : undefined;
    if (first?.kind === "http") return serveClear(server, tunnel);
    const outcome = await handshake(tunnel, { bridge, first, signal: context.signal });
    metrics.counters.bridge_handshakes_total.of(outcome.kind).value += 1;
    if (outcome.kind !== "terminated") {
      const denial = denialOfFailure(outcome, destination.authority);
      log.warn({ flow: flow.id, host: destination.authority, ...alertOf(outcome) }, denial.message);
      return { note: { failure: outcome.kind }, denial };
    }
    const { tlsSocket, alpnProtocol } = outcome;
    const connection = {
      tunnel: flow,
      destination: destination.with({ scheme: "https" }),
      bridge,
      ...(tunnel.captured === undefined ? {} : { confirm: tunnel.captured.confirm }),
    };
    await server.serve(tlsSocket, alpnProtocol, connection);
    return { note: { bridged: alpnProtocol } };
  });
}

/** The TLS handshake with a client, whose first bytes may have been looked at and put back. */
export async function handshake(
  request: TunnelRequest,
  how: {
    readonly bridge: TlsBridge;
    readonly first: Sniffed | undefined;
    readonly signal: AbortSignal;
  },
): Promise<Termination> {
  const { client, flow, head } = request;
  const { bridge, first, signal } = how;
  if (first?.kind === "timeout") {
    client.destroy();
    return { kind: "timeout" };
  }
  const bytes = first === undefined ? head : nothing;
  const outcome = await bridge.open(client, flow.destination, bytes, signal);
  bridge.noteTrust(trustNameOf(request), outcome);
  return outcome;
}

const nothing = Buffer.alloc(0);

function alertOf(failure: TerminationFailure): { readonly alert?: string } {
  if (failure.kind === "client-rejected") return { alert: failure.alert };
  return failure.kind === "protocol" && failure.alert !== undefined ? { alert: failure.alert } : {};
}

/** The error as a message that says what to do. */
function denialOfFailure(failure: TerminationFailure, authority: string): Denial {
  const ways = "let the client trust ca.crt, or list the host in tls_bridge.passthrough_hosts";
  switch (failure.kind) {
    case "client-rejected":
      return {
        code: "tls.client-rejected",
        message: `the client rejected the certificate for ${authority} (${failure.alert}): ${ways}`,
      };
    case "closed":
      return failure.afterLeaf
        ? {
            code: "tls.client-rejected",
            message: `the client left when it saw the certificate for ${authority}: ${ways}`,
          }
        : { code: "pipeline.cancelled", message: "the client went away during the handshake" };
    case "not-tls":
      return {
        code: "tls.not-tls",
        message: `the first bytes to ${authority} are not TLS: list the host in tls_bridge.passthrough_hosts if that is meant`,
      };
    case "timeout":
      return {
        code: "request.timeout",
        message: `the client did not finish its TLS handshake with ${authority} in time`,
      };
    case "sni-mismatch":
      return {
        code: "request.misdirected",
        message: `the client asks for another server name inside a tunnel to ${authority}`,
      };
    case "protocol":
      return {
        code: "tls.not-tls",
        message: `the TLS handshake for ${authority} failed: ${failure.message}`,
      };
    case "aborted":
      return { code: "pipeline.cancelled", message: "the client went away during the handshake" };
    case "no-leaf":
      return { code: "internal.fault", message: `no certificate could be made for ${authority}` };
  }
}
