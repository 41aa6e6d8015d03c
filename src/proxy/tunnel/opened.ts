/** A tunnel whose requests are read one by one: its first bytes, the serving of plain HTTP in it, how it is counted. */
import type { AbortSource } from "../../net/abort-source.ts";
import { sniff, type Sniffed } from "../../net/sniff.ts";
import type { Denial } from "../../pipeline/decision.ts";
import type { Ending } from "../flow/finish.ts";
import { type CutReason, endOf, type OpenTunnel } from "../flow/tunnel-registry.ts";
import type { BridgeServer } from "./bridge-server.ts";
import type { Refusal } from "./bridged-connection.ts";
import type { PermittedTunnel, TunnelRequest, TunnelServices } from "./request.ts";

/** How an opened tunnel ended. */
export interface Opened {
  readonly note: Readonly<Record<string, string>>;
  readonly denial?: Denial;
}

/** Looks at the first bytes of a client whose CONNECT was granted, and puts them back. */
export async function firstBytes(
  { client, head, runtime }: TunnelRequest,
  how: { readonly timeoutMs?: number; readonly signal?: AbortSource } = {},
): Promise<Sniffed> {
  const { timeoutMs = runtime.limits.firstBytesTimeoutMs, signal } = how;
  if (head.length > 0 && !client.destroyed && !client.readableEnded) client.unshift(head);
  return sniff(client, {
    timeoutMs,
    onlyHttp: true,
    ...(signal === undefined ? {} : { signal }),
  });
}

/** Serves the requests of a tunnel whose client speaks plain HTTP; each is judged, and dialled for, by itself. */
export async function serveClear(
  server: BridgeServer,
  { flow, client }: TunnelRequest,
  refusal?: Refusal,
): Promise<Opened> {
  const destination = flow.destination.with({ scheme: "http" });
  const refused = refusal === undefined ? {} : { refusal };
  // Which also knows the preface of HTTP/2.
  await server.serve(client, "http/1.1", { tunnel: flow, destination, ...refused });
  return { note: { opened: "http" } };
}

/** Registers a tunnel whose requests are judged one by one, until its end; counts it unless `openedAt` says it was. */
export async function openedTunnel(
  services: TunnelServices,
  tunnel: PermittedTunnel & { readonly openedAt?: number },
  run: () => Promise<Opened>,
): Promise<Ending> {
  const { client } = tunnel;
  const { metrics } = services.recorder;
  const { openedAt = performance.now() } = tunnel;
  let cutReason: CutReason | undefined;
  const open: OpenTunnel = {
    facts: tunnel.context,
    judgedBy: tunnel.judgedBy,
    isBridged: true,
    cut: (reason) => {
      cutReason = reason;
      client.destroy();
    },
  };
  const slot = services.tunnels.add(open);
  tunnel.onOpened?.();
  if (tunnel.openedAt === undefined) metrics.tunnels.opened();
  try {
    const { note, denial } = await run();
    const closed = denial === undefined ? { closed: cutReason ?? "closed" } : {};
    return {
      status: 200,
      bytesReceived: client.bytesRead,
      bytesSent: client.bytesWritten,
      refused: false,
      cancelled: false,
      isOpened: true,
      note: { ...note, ...closed },
      denial,
    };
  } finally {
    services.tunnels.delete(slot);
    const seconds = (performance.now() - openedAt) / 1_000;
    metrics.tunnels.closed(
      client.bytesRead,
      client.bytesWritten,
      seconds,
      endOf(cutReason) ?? "closed",
    );
  }
}
