/** An opaque tunnel: dial first, send 200 after, copy both ways. */
import type { Socket } from "node:net";
import { ProxyError } from "../../errors.ts";
import { type AdaptiveReader, adaptiveReader } from "../../net/adaptive-reader.ts";
import { isServerNameOf } from "../../net/client-hello.ts";
import { cutOff } from "../../net/cut.ts";
import { FirstLine } from "../../net/first-line.ts";
import { sniff, type Sniffed } from "../../net/sniff.ts";
import { splice, type SpliceResult } from "../../net/splice.ts";
import { Cancellation } from "../../pipeline/cancellation.ts";
import type { Ending } from "../flow/finish.ts";
import type { CutReason, OpenTunnel } from "../flow/tunnel-registry.ts";
import { firstBytes } from "./opened.ts";
import type { PermittedTunnel, TunnelServices } from "./request.ts";

/** A tunnel to splice. */
export interface SplicedTunnel extends PermittedTunnel {
  /** True where the bridge would have looked inside: a TLS client must ask for the permitted host. */
  readonly checkServerName: boolean;
  /** Its client has had its 200. */
  readonly isEstablished?: boolean;
  /** Set where requests are judged, and the client's first bytes are not known to be none. */
  readonly firstLine?: FirstLine | undefined;
  /** Takes over from a client that speaks HTTP before its server has sent anything. */
  readonly onHttp?: (openedAt: number) => Promise<Ending>;
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
  const upstream = await dialled(tunnel, reader);
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
            firstLine: found.firstLine,
          });
    // What the pipeline has not seen.
    if (result.error instanceof ProxyError) throw result.error;
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

async function dialled(tunnel: SplicedTunnel, reader: AdaptiveReader): Promise<Socket> {
  const { runtime, client, context, permit, isEstablished } = tunnel;
  try {
    return await runtime.upstream.connect(permit, { signal: context.cancellation, reader });
  } catch (error) {
    // Behind a 200 an error response would pass for bytes of the origin.
    if (isEstablished === true) cutOff(client);
    throw error;
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
  | { readonly kind: "bytes"; readonly head: Buffer; readonly firstLine?: FirstLine | undefined }
  | { readonly kind: "http"; readonly serve: (openedAt: number) => Promise<Ending> }
  | { readonly kind: "idle" };

async function headOf(tunnel: SplicedTunnel, dialled: Dialled): Promise<Found> {
  const { checkServerName, onHttp, head, firstLine } = tunnel;
  if (checkServerName) return { kind: "bytes", head: await checkedHead(tunnel, dialled.upstream) };
  if (onHttp === undefined) return { kind: "bytes", head, firstLine };
  const first = await firstOf(tunnel, dialled);
  if (first === "idle") return { kind: "idle" };
  if (first.kind === "http") return { kind: "http", serve: onHttp };
  if (first.kind === "closed") return { kind: "bytes", head: first.said };
  return first.kind === "opaque"
    ? { kind: "bytes", head: nothing, firstLine: new FirstLine() }
    : { kind: "bytes", head: nothing };
}

function endIdle(client: Socket, upstream: Socket): SpliceResult {
  client.destroy();
  upstream.destroy();
  return { bytesUp: 0, bytesDown: 0, reason: "idle" };
}

/** No timer waits longer. */
const longestMs = 2_147_483_647;

/** RFC 9113 section 3.4: a server of HTTP/2 sends SETTINGS without waiting for a client that has to speak as well. */
function isSettings(bytes: Buffer): boolean {
  return bytes.length >= 9 && bytes[3] === 4 && bytes[4] === 0 && bytes.readUInt32BE(5) === 0;
}

/** The first bytes of the client, unless the server speaks, or ends, before them. */
async function firstOf(
  tunnel: SplicedTunnel,
  { upstream, reader, cutting }: Dialled,
): Promise<Sniffed | "idle"> {
  const { tunnelIdleTimeoutMs } = tunnel.runtime.limits;
  const signal = new Cancellation();
  let hasSpoken = false as boolean;
  const stop = (): void => signal.abort();
  const onReadable = (): void => {
    const chunk: unknown = upstream.read();
    if (!Buffer.isBuffer(chunk)) return stop();
    upstream.unshift(chunk);
    if (!isSettings(chunk)) stop();
  };
  cutting.addEventListener("abort", stop);
  const ends = ["end", "close", "error"] as const;
  for (const event of ends) upstream.on(event, stop);
  if (reader.isBound) {
    reader.divert(upstream, (chunk) => {
      hasSpoken = true;
      reader.undivert(chunk);
      if (!isSettings(chunk)) stop();
    });
  } else upstream.once("readable", onReadable);
  const timeoutMs = tunnelIdleTimeoutMs > 0 ? tunnelIdleTimeoutMs : longestMs;
  const first = await firstBytes(tunnel, { timeoutMs, signal });
  if (reader.isBound && !hasSpoken) reader.undivert(nothing);
  cutting.removeEventListener("abort", stop);
  for (const event of ends) upstream.off(event, stop);
  upstream.off("readable", onReadable);
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
