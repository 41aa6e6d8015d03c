/** CONNECT on streams of HTTP/2 (RFC 9113 section 8.5): many tunnels on one connection, each as one of HTTP/1.1 would be. */
import type { Socket } from "node:net";
import { ProxyError } from "../errors.ts";
import { HeaderList, stripHopByHop } from "../http/headers.ts";
import { type Destination, parseAuthority } from "../net/destination.ts";
import { downstreamLimits, replyAlone, type SurfaceServices } from "../proxy/exchange/arrival.ts";
import { Http2Downstream } from "../proxy/exchange/http2-downstream.ts";
import { type ConnectStream, endToEnd, textOf } from "../proxy/exchange/http2-sessions.ts";
import { checkHostAgrees } from "../proxy/exchange/request-head.ts";
import { denialOf, renderDenial } from "../proxy/flow/reply.ts";
import type { AskedTunnel, AskedTunnels } from "../proxy/tunnel/asked.ts";
import { StreamSocket } from "./stream-socket.ts";

/** Opens the tunnel that a stream of the connection asks for, or refuses it on the stream. */
export function connectStream(
  services: SurfaceServices,
  tunnels: AskedTunnels,
  asked: ConnectStream & { readonly carrier: Socket },
): void {
  const { stream, fields, raw, carrier } = asked;
  const client = new StreamSocket(stream, carrier).asSocket;
  const downstream = (): Http2Downstream =>
    new Http2Downstream(
      stream,
      { method: "CONNECT", fields, raw },
      downstreamLimits(services, services.runtimes),
    );
  const read = (): AskedTunnel => ({
    client,
    carrier,
    destination: destinationOf(asked),
    credentials: textOf(fields["proxy-authorization"]),
    headers: new HeaderList(stripHopByHop(endToEnd(raw))),
    head: Buffer.alloc(0),
    replies: {
      established: () => {
        if (!stream.destroyed && !stream.closed) stream.respond({ ":status": 200 });
      },
      refused: (_client, reply) => replyAlone(services, downstream(), reply),
    },
  });
  tunnels.open(read, (error) => {
    const address = carrier.remoteAddress ?? "";
    services.recorder.malformed(error, { surface: "forward", client: address, method: "CONNECT" });
    replyAlone(services, downstream(), renderDenial(denialOf(error)));
    client.destroySoon();
  });
}

function destinationOf({ fields, raw, maxHeaders }: ConnectStream): Destination {
  if (fields[":scheme"] !== undefined || fields[":path"] !== undefined)
    throw new ProxyError("request.malformed", "a CONNECT has no :scheme and no :path");
  if (raw.length > (maxHeaders + 8) * 2) {
    const message = "the request has more fields than limits.max_headers";
    throw new ProxyError("request.headers-too-large", message);
  }
  const destination = parseAuthority(textOf(fields[":authority"]) ?? "", "tcp");
  checkHostAgrees({ host: textOf(fields["host"]) }, destination, "tcp");
  return destination;
}
