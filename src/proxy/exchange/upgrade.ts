/** A request that turned into a tunnel: 101 is sent, and both connections are spliced, or judged by message. */
import type { ServerHttp2Stream } from "node:http2";
import type { Duplex } from "node:stream";
import { HeaderList } from "../../http/headers.ts";
import type { Backlogs } from "../../net/backlogs.ts";
import { splice } from "../../net/splice.ts";
import type { StallWatch } from "../../net/stall-watch.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import type { ServerExchange } from "../../wire/server-exchange.ts";
import type { Carried, SwitchTerms, UpgradeRequest } from "./exchange-request.ts";
import { carryJudged, type JudgedResult } from "./judged-web-socket.ts";

/** What every upgrade needs. */
export interface UpgradeParts {
  readonly idleTimeoutMs: number;
  readonly stalls: StallWatch;
  readonly backlogs: Backlogs;
  readonly metrics: Metrics;
}

/** What an upgrade of an HTTP/1.1 client connection needs. */
interface ClientUpgrade extends UpgradeParts {
  readonly protocol: string;
  readonly exchange: ServerExchange;
}

/** What a WebSocket over HTTP/2 needs (RFC 8441). */
interface StreamUpgrade extends UpgradeParts {
  readonly protocol: string;
  readonly stream: ServerHttp2Stream;
}

/** How an exchange hands over a client connection whose upgrade the upstream accepted. */
export function upgradeOf(parts: ClientUpgrade): UpgradeRequest {
  const { exchange, protocol } = parts;
  return {
    protocol,
    async switchTo(headers: string[], upstream: Duplex, terms: SwitchTerms) {
      const lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Connection: Upgrade",
        `Upgrade: ${protocol}`,
      ];
      for (let i = 0; i + 1 < headers.length; i += 2)
        lines.push(`${headers[i]}: ${headers[i + 1]}`);
      const { socket: client } = exchange;
      // Bytes of the new protocol may have come with the request.
      const head = exchange.detach();
      client.write(`${lines.join("\r\n")}\r\n\r\n`, "latin1");
      return carry(parts, client, upstream, { ...terms, head });
    },
  };
}

/** The same for one stream: 200 stands for 101, and the handshake's own fields have no counterpart. */
export function streamUpgrade(parts: StreamUpgrade): UpgradeRequest {
  const { stream, protocol } = parts;
  return {
    protocol,
    async switchTo(headers: string[], upstream: Duplex, terms: SwitchTerms) {
      const fields = new HeaderList(headers);
      fields.delete("sec-websocket-accept");
      stream.respond({ ...fields.toRecord(), ":status": 200 });
      return carry(parts, stream, upstream, { ...terms, head: Buffer.alloc(0) });
    },
  };
}

async function carry(
  parts: UpgradeParts,
  client: Duplex,
  upstream: Duplex,
  { gate, signal, watch, toll, head }: SwitchTerms & { readonly head: Buffer },
): Promise<Carried> {
  parts.metrics.tunnels.opened();
  const openedAt = performance.now();
  const { idleTimeoutMs, stalls, backlogs } = parts;
  const options = { idleTimeoutMs, stalls, backlogs, signal, watch, toll, head };
  const result: JudgedResult =
    gate === undefined
      ? await splice(client, upstream, options)
      : await carryJudged(client, upstream, { ...options, gate });
  const seconds = (performance.now() - openedAt) / 1_000;
  parts.metrics.tunnels.closed(result.bytesUp, result.bytesDown, seconds, result.reason);
  return { ...result, denial: result.denial ?? toll?.denial };
}
