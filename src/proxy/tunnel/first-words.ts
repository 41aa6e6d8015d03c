/** What is waited for between the dial of a tunnel and its first copied byte. */
import type { Socket } from "node:net";
import { ProxyError } from "../../errors.ts";
import type { AdaptiveReader } from "../../net/adaptive-reader.ts";
import { isServerNameOf } from "../../net/client-hello.ts";
import type { Destination } from "../../net/destination.ts";
import { sniff, type Sniffed } from "../../net/sniff.ts";
import { Cancellation } from "../../pipeline/cancellation.ts";
import { firstBytes } from "./opened.ts";
import type { TunnelRequest } from "./request.ts";

const nothing = Buffer.alloc(0);

/** How long a passed-through client may take to show its first bytes. */
const sniffTimeoutMs = 10_000;

/** No timer waits longer. */
const longestMs = 2_147_483_647;

/** RFC 9113 section 3.4: a server of HTTP/2 sends SETTINGS without waiting for a client that has to speak as well. */
function isSettings(bytes: Buffer): boolean {
  return bytes.length >= 9 && bytes[3] === 4 && bytes[4] === 0 && bytes.readUInt32BE(5) === 0;
}

/** The first bytes of the client, unless the server speaks, or ends, before them; "idle" where nobody says a word. */
export async function firstOf(
  request: TunnelRequest,
  upstream: Socket,
  reader: AdaptiveReader,
): Promise<Sniffed | "idle"> {
  const { tunnelIdleTimeoutMs } = request.runtime.limits;
  const signal = new Cancellation();
  let hasSpoken = false as boolean;
  const stop = (): void => signal.abort();
  const onReadable = (): void => {
    const chunk: unknown = upstream.read();
    if (!Buffer.isBuffer(chunk)) return stop();
    upstream.unshift(chunk);
    if (!isSettings(chunk)) stop();
  };
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
  const first = await firstBytes(request, { timeoutMs, signal });
  if (reader.isBound && !hasSpoken) reader.undivert(nothing);
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
export async function checkServerName(
  { client, head }: TunnelRequest,
  { host, authority }: Destination,
  upstream: Socket,
): Promise<void> {
  if (head.length > 0) client.unshift(head);
  const first = await sniff(client, { timeoutMs: sniffTimeoutMs });
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
}

/** What the pipeline has not seen. */
export function lateRequest(): ProxyError {
  return new ProxyError(
    "request.malformed",
    "a request came behind other bytes, or in pieces that do not look like one, where requests are judged",
  );
}
