/** An opaque tunnel: dial first, send 200 after, copy both ways. */
import type { Socket } from "node:net";
import { ProxyError } from "../../errors.ts";
import { adaptiveReader } from "../../net/adaptive-reader.ts";
import { isServerNameOf } from "../../net/client-hello.ts";
import { cutOff } from "../../net/cut.ts";
import { sniff } from "../../net/sniff.ts";
import { splice } from "../../net/splice.ts";
import { Cancellation } from "../../pipeline/cancellation.ts";
import type { Ending } from "../flow/finish.ts";
import type { CutReason, OpenTunnel } from "../flow/tunnel-registry.ts";
import type { PermittedTunnel, TunnelServices } from "./request.ts";

/** A tunnel to splice. */
export interface SplicedTunnel extends PermittedTunnel {
  /** True where the bridge would have looked inside: a TLS client must ask for the permitted host. */
  readonly checkServerName: boolean;
}

/** How long a passed-through client may take to show its first bytes. */
const sniffTimeoutMs = 10_000;

/** Runs the tunnel; rejects with ProxyError before the 200 when the upstream cannot be reached. */
export async function spliceTunnel(
  services: TunnelServices,
  tunnel: SplicedTunnel,
): Promise<Ending> {
  const { runtime, client, context, permit } = tunnel;
  const { recorder } = services;
  const { metrics } = recorder;
  const startedAt = performance.now();
  await tunnel.captured?.confirm(permit, runtime.upstream, context.cancellation);
  const reader = adaptiveReader();
  const upstream = await runtime.upstream.connect(permit, {
    signal: context.cancellation,
    reader,
  });
  recorder.phase(context, "connect", startedAt);
  const cutting = new Cancellation();
  let cutReason: CutReason | undefined;
  const open: OpenTunnel = {
    facts: context,
    judgedBy: tunnel.judgedBy,
    cut: (reason) => {
      cutReason = reason;
      cutting.abort();
      // While its first bytes are waited for, nobody else hears of it.
      cutOff(client);
    },
  };
  services.tunnels.add(open);
  metrics.tunnels.opened();
  const openedAt = performance.now();
  tunnel.replies.established(client);
  try {
    const head = tunnel.checkServerName ? await checkedHead(tunnel, upstream) : tunnel.head;
    const result = await splice(client, upstream, {
      idleTimeoutMs: runtime.limits.tunnelIdleTimeoutMs,
      stalls: services.stalls,
      backlogs: services.backlogs,
      signal: cutting,
      reader,
      head,
    });
    const reason = cutReason === "revoked" ? "revoked" : result.reason;
    const seconds = (performance.now() - openedAt) / 1_000;
    metrics.tunnels.closed(result.bytesUp, result.bytesDown, seconds, reason);
    return {
      status: 200,
      bytesReceived: result.bytesUp,
      bytesSent: result.bytesDown,
      refused: false,
      cancelled: false,
      note: { closed: cutReason ?? result.reason },
    };
  } catch (error) {
    upstream.destroy();
    client.destroy();
    metrics.tunnels.closed(0, 0, (performance.now() - openedAt) / 1_000, "error");
    throw error;
  } finally {
    services.tunnels.delete(open);
  }
}

/**
 * Looks at the first bytes of a client that is passed through, and leaves them where they are.
 *
 * A TLS client that asks for another server than the permitted one is refused: hosts of one CDN share addresses, and
 * the permit is for a name.
 */
async function checkedHead(tunnel: SplicedTunnel, upstream: Socket): Promise<Buffer> {
  const { client, head, permit } = tunnel;
  if (head.length > 0) client.unshift(head);
  const first = await sniff(client, { timeoutMs: sniffTimeoutMs });
  const { host, authority } = permit.destination;
  switch (first.kind) {
    case "tls":
      if (first.sni === undefined || isServerNameOf(first.sni, host)) break;
      throw new ProxyError(
        "request.misdirected",
        `the client asks for another server name inside a tunnel to ${authority}`,
      );
    case "malformed":
      throw new ProxyError(
        "request.malformed",
        `the client began a broken TLS handshake with ${authority}`,
      );
    case "timeout":
      throw new ProxyError(
        "request.timeout",
        `the client sent nothing into its tunnel to ${authority}`,
      );
    case "closed":
    case "http":
    case "opaque":
      break;
  }
  if (upstream.destroyed)
    throw new ProxyError("upstream.reset", `${authority} closed the connection`);
  return Buffer.alloc(0);
}
