/** A tunnel that the bridge opens: 200 without dialling, the handshake, then requests in the clear. */
import type { Denial } from "../../pipeline/decision.ts";
import type { TerminationFailure } from "../../tlsbridge/terminator.ts";
import type { BridgeServer } from "./bridge-server.ts";
import type { Ending } from "../flow/finish.ts";
import type { CutReason, OpenTunnel } from "../flow/tunnel-registry.ts";
import { type PermittedTunnel, trustNameOf, type TunnelServices } from "./request.ts";

/** Runs the bridged connection to its end. The origin is dialled when its first request is permitted. */
export async function bridgeTunnel(
  services: TunnelServices,
  server: BridgeServer,
  tunnel: PermittedTunnel,
): Promise<Ending> {
  const { runtime, flow, client, head, context } = tunnel;
  const { bridge } = runtime;
  if (bridge === undefined) throw new TypeError("a bridged tunnel without a bridge");
  const { metrics, log } = services.recorder;
  const { destination } = flow;
  const openedAt = performance.now();
  let cutReason: CutReason | undefined;
  const open: OpenTunnel = {
    facts: context,
    judgedBy: tunnel.judgedBy,
    isBridged: true,
    cut: (reason) => {
      cutReason = reason;
      client.destroy();
    },
  };
  services.tunnels.add(open);
  metrics.tunnels.opened();
  tunnel.replies.established(client);
  try {
    const outcome = await bridge.open(client, destination, head, context.signal);
    bridge.noteTrust(trustNameOf(tunnel), outcome);
    metrics.counters.bridge_handshakes_total.of(outcome.kind).value += 1;
    if (outcome.kind !== "terminated") {
      const denial = denialOfFailure(outcome, destination.authority);
      log.warn({ flow: flow.id, host: destination.authority, ...alertOf(outcome) }, denial.message);
      return endingOf(client.bytesRead, client.bytesWritten, { failure: outcome.kind }, denial);
    }
    const { tlsSocket, alpnProtocol } = outcome;
    const connection = {
      tunnel: flow,
      destination: destination.with({ scheme: "https" }),
      bridge,
      ...(tunnel.captured === undefined ? {} : { confirm: tunnel.captured.confirm }),
    };
    await server.serve(tlsSocket, alpnProtocol, connection);
    const note = { bridged: alpnProtocol, closed: cutReason ?? "closed" };
    return endingOf(client.bytesRead, client.bytesWritten, note, undefined);
  } finally {
    services.tunnels.delete(open);
    const seconds = (performance.now() - openedAt) / 1_000;
    metrics.tunnels.closed(
      client.bytesRead,
      client.bytesWritten,
      seconds,
      cutReason === "revoked" ? "revoked" : "closed",
    );
  }
}

function endingOf(
  bytesReceived: number,
  bytesSent: number,
  note: Readonly<Record<string, string>>,
  denial: Denial | undefined,
): Ending {
  return { status: 200, bytesReceived, bytesSent, refused: false, cancelled: false, note, denial };
}

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
