/**
 * `limits`: the bounds of everything that remote peers can make grow.
 */
import { z } from "zod";
import { count, duration, size } from "./value-schema.ts";
import { guarded } from "../yaml/empty-values.ts";

/** The `limits` block. */
export const limitsSchema = z.strictObject({
  max_connections: count(1)
    .default(10_000)
    .describe("Open client connections of all listeners. Default 10000."),
  max_header_bytes: size(1024)
    .default(65_536)
    .describe("Bytes of one request head. Default 65536."),
  max_buffered_heads: size(1024)
    .default("32MiB")
    .describe("Bytes of unfinished request heads in the whole process. Default 32MiB."),
  max_headers: count(1, 10_000).default(200).describe("Header lines of one request. Default 200."),
  header_timeout: duration()
    .default("10s")
    .describe("Time to receive a whole request head. Default 10s."),
  body_timeout: duration()
    .default("60s")
    .describe("Longest silence while a body is being received. Default 60s."),
  max_body: size()
    .default("10MiB")
    .describe(
      "Bytes of one body that may be buffered for plugins that read bodies, unpacked as well as packed. Default 10MiB.",
    ),
  max_buffered: size()
    .default("256MiB")
    .describe(
      "Bytes of buffered bodies in the whole process, and of what clients have not read yet. Default 256MiB.",
    ),
  connect_timeout: duration()
    .default("10s")
    .describe("Time to connect to an upstream, its TLS handshake included. Default 10s."),
  response_timeout: duration()
    .default("10m")
    .describe(
      "Time from the end of a request until the head of its response; a model may think for minutes. Default 10m.",
    ),
  stream_idle_timeout: duration()
    .default("5m")
    .describe("Longest silence in a streaming response. Default 5m."),
  tunnel_idle_timeout: duration()
    .default("1h")
    .describe("Longest silence in both directions of a tunnel. Default 1h."),
  keep_alive_timeout: duration()
    .default("65s")
    .describe(
      "Time that an idle client connection is kept open for its next request. Default 65s.",
    ),
  drain_timeout: duration({ minMs: 0 })
    .default("15s")
    .describe("Time that open work gets to finish at shutdown. Default 15s."),
  plugin_start_timeout: duration()
    .default("60s")
    .describe("Time that all plugins together get to start. Default 60s."),
  max_requests_per_connection: guarded(
    count(0)
      .default(0)
      .describe("Requests after which a client connection is closed; 0 means no limit. Default 0."),
  ),
  max_upstream_connections: count(1)
    .default(2_048)
    .describe(
      "Connections to origins and parent proxies that the requests of one direction use at once; tunnels have max_tunnels. One more request waits connect_timeout for a place. Default 2048.",
    ),
  max_upstream_connections_per_destination: count(1)
    .default(1_024)
    .describe("The same of outbound requests to one destination. Default 1024."),
  max_upstream_connections_per_caller: count(1)
    .default(512)
    .describe(
      "The same of one caller's outbound requests: an agent's name, else an executable, else an address. Default 512.",
    ),
  max_name_lookups: count(1)
    .default(256)
    .describe(
      "Names of outbound requests and tunnels that are looked up at once; one more waits resolve_timeout for its turn. Names of this file have as many places of their own. Default 256.",
    ),
  max_name_lookups_per_caller: count(1).default(64).describe("The same of one caller. Default 64."),
  max_streams_per_connection: count(1)
    .default(256)
    .describe(
      "Streams that a client on HTTP/2 may have open at once on one connection, of the forward proxy, of mutual TLS or that the TLS bridge opened; what is above is refused as RFC 9113 section 5.1.2 has it. Default 256.",
    ),
  max_tunnels: count(1)
    .default(10_000)
    .describe("Open tunnels (CONNECT and transparent). Default 10000."),
});
