/** A request that turned into a tunnel: the 101 is relayed and both connections are spliced. */
import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { IdleSweeper } from "../net/idle-sweeper.ts";
import { splice } from "../net/splice.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { UpgradeRequest } from "./exchange.ts";

/** What an upgrade of a client connection needs. */
export interface ClientUpgrade {
  readonly protocol: string;
  readonly client: Socket;
  readonly response: ServerResponse;
  /** Bytes of the new protocol that came with the request. */
  readonly head: Buffer;
  readonly idleTimeoutMs: number;
  readonly idle: IdleSweeper;
  readonly metrics: Metrics;
}

/** How an exchange hands over a client connection whose upgrade the upstream accepted. */
export function upgradeOf(parts: ClientUpgrade): UpgradeRequest {
  const { client, response, protocol } = parts;
  return {
    protocol,
    async switchTo(headers: string[], upstream: Duplex, signal: AbortSignal): Promise<void> {
      const lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Connection: Upgrade",
        `Upgrade: ${protocol}`,
      ];
      for (let i = 0; i + 1 < headers.length; i += 2)
        lines.push(`${headers[i]}: ${headers[i + 1]}`);
      response.detachSocket(client);
      client.write(`${lines.join("\r\n")}\r\n\r\n`, "latin1");
      parts.metrics.tunnelOpened();
      const openedAt = performance.now();
      const result = await splice(client, upstream, {
        idleTimeoutMs: parts.idleTimeoutMs,
        sweeper: parts.idle,
        signal,
        head: parts.head,
      });
      const seconds = (performance.now() - openedAt) / 1_000;
      parts.metrics.tunnelClosed(result.bytesUp, result.bytesDown, seconds, result.reason);
    },
  };
}
