/** An opaque tunnel: dial first, send 200 after, copy both ways. */
import type { Socket } from "node:net";
import { ProxyError } from "../../errors.ts";
import { type AdaptiveReader, adaptiveReader } from "../../net/adaptive-reader.ts";
import { isServerNameOf } from "../../net/client-hello.ts";
import { cutOff } from "../../net/cut.ts";
import { sniff, type Sniffed } from "../../net/sniff.ts";
import { splice, type SpliceResult } from "../../net/splice.ts";
import { Cancellation } from "../../pipeline/cancellation.ts";
import type { Ending } from "../flow/finish.ts";
import type { CutReason, OpenTunnel } from "../flow/tunnel-registry.ts";
import { firstBytes, type HttpBytes } from "./opened.ts";
import type { PermittedTunnel, TunnelServices } from "./request.ts";

/** A tunnel to splice. */
export interface SplicedTunnel extends PermittedTunnel {
  /** True where the bridge would have looked inside: a TLS client must ask for the permitted host. */
  readonly checkServerName: boolean;
  /** Its client has had its 200. */
  readonly isEstablished?: boolean;
  /** Takes over from a client that speaks HTTP before its server has sent anything. */
  readonly onHttp?: (first: HttpBytes, openedAt: number) => Promise<Ending>;
}

const nothing = Buffer.alloc(0);

/** How long a passed-through client may take to show its first bytes. */
const sniffTimeoutMs = 10_000;

/** Runs the tunnel; rejects with ProxyError before the 200 when the upstream cannot be reached. */
export async function spliceTunnel(
  services: TunnelServices,
  tunnel: SplicedTunnel,
): Promise<Ending> {
  const { runtime, client, context, permit } = tunnel;
  const { metrics } = services.recorder;
  const startedAt = performance.now();
  await tunnel.captured?.confirm(permit, runtime.upstream, context.cancellation);
  const reader = adaptiveReader();
  const upstream = await runtime.upstream.connect(permit, {
    signal: context.cancellation,
    reader,
  });
  services.recorder.phase(context, "connect", startedAt);
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
  if (tunnel.isEstablished !== true) tunnel.replies.established(client);
  try {
    const found = await headOf(tunnel, { upstream, reader, cutting });
    if (found.kind === "http") {
      upstream.destroy();
      services.tunnels.delete(open);
      return await found.serve(openedAt);
    }
    const result =
      found.kind === "idle"
        ? endIdle(client, upstream)
        : await splice(client, upstream, {
            idleTimeoutMs: runtime.limits.tunnelIdleTimeoutMs,
            stalls: services.stalls,
            backlogs: services.backlogs,
            signal: cutting,
            reader,
            head: found.head,
          });
    const reason = cutReason === "revoked" ? "revoked" : result.reason;
    const seconds = (performance.now() - openedAt) / 1_000;
    metrics.tunnels.closed(result.bytesUp, result.bytesDown, seconds, reason);
    return endingOf(result, cutReason);
  } catch (error) {
    upstream.destroy();
    client.destroy();
    metrics.tunnels.closed(0, 0, (performance.now() - openedAt) / 1_000, "error");
    throw error;
  } finally {
    services.tunnels.delete(open);
  }
}

function endingOf({ bytesUp, bytesDown, reason }: SpliceResult, cut?: CutReason): Ending {
  return {
    status: 200,
    bytesReceived: bytesUp,
    bytesSent: bytesDown,
    refused: false,
    cancelled: false,
    note: { closed: cut ?? reason },
  };
}

interface Dialled {
  readonly upstream: Socket;
  readonly reader: AdaptiveReader;
  readonly cutting: Cancellation;
}

/** The bytes to send first, or a request and what serves it; neither where nothing was said for too long. */
type Found =
  | { readonly kind: "bytes"; readonly head: Buffer }
  | { readonly kind: "http"; readonly serve: (openedAt: number) => Promise<Ending> }
  | { readonly kind: "idle" };

async function headOf(tunnel: SplicedTunnel, dialled: Dialled): Promise<Found> {
  const { checkServerName, onHttp, head } = tunnel;
  if (checkServerName) return { kind: "bytes", head: await checkedHead(tunnel, dialled.upstream) };
  if (onHttp === undefined) return { kind: "bytes", head };
  const first = await firstOf(tunnel, dialled);
  if (first === "idle") return { kind: "idle" };
  if (first.kind === "http") return { kind: "http", serve: (at) => onHttp(first, at) };
  return { kind: "bytes", head: first.kind === "closed" ? first.said : nothing };
}

function endIdle(client: Socket, upstream: Socket): SpliceResult {
  client.destroy();
  upstream.destroy();
  return { bytesUp: 0, bytesDown: 0, reason: "idle" };
}

/** No timer waits longer. */
const longestMs = 2_147_483_647;

/** The first bytes of the client, unless the server speaks, or ends, before them. */
async function firstOf(
  tunnel: SplicedTunnel,
  { upstream, reader, cutting }: Dialled,
): Promise<Sniffed | "idle"> {
  const { tunnelIdleTimeoutMs } = tunnel.runtime.limits;
  const signal = new Cancellation();
  let hasSpoken = false as boolean;
  const stop = (): void => signal.abort();
  cutting.addEventListener("abort", stop);
  const ends = ["end", "close", "error"] as const;
  for (const event of ends) upstream.on(event, stop);
  if (reader.isBound) {
    reader.divert(upstream, (chunk) => {
      hasSpoken = true;
      reader.undivert(chunk);
      stop();
    });
  } else upstream.once("readable", stop);
  const timeoutMs = tunnelIdleTimeoutMs > 0 ? tunnelIdleTimeoutMs : longestMs;
  const first = await firstBytes(tunnel, { timeoutMs, signal });
  if (reader.isBound && !hasSpoken) reader.undivert(nothing);
  cutting.removeEventListener("abort", stop);
  for (const event of ends) upstream.off(event, stop);
  upstream.off("readable", stop);
  return first.kind === "timeout" && !signal.aborted ? "idle" : first;
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
  return nothing;
}
