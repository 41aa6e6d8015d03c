/** The cases: what is asked of each proxy, and who takes part. */
import type { Role, Running } from "./contestants.ts";
import type { LoadCommand, Route } from "./load/command.ts";
import type { Stage } from "./stage.ts";

const KIB = 1024;
const CLIENTS = 32;
const IDLE_TUNNELS = 5_000;

interface CaseBase {
  readonly name: string;
  readonly title: string;
  readonly role: Role;
  /** The first is what the others are compared with. */
  readonly contestants: readonly string[];
}

/** A load that is repeated in rounds against proxies that keep running. */
export interface LoadCase extends CaseBase {
  readonly kind: "load";
  readonly unit: "req/s" | "tunnels/s" | "MB/s";
  command(stage: Stage, proxy: Running, seconds: number): LoadCommand;
}

/** Many tunnels held open in a fresh process: memory each. */
export interface IdleCase extends CaseBase {
  readonly kind: "idle";
  readonly count: number;
  route(stage: Stage, proxy: Running): Route;
}

/** From start to listening, in a fresh process each round. */
export interface StartCase extends CaseBase {
  readonly kind: "start";
}

export type Case = LoadCase | IdleCase | StartCase;

function tunnelRoute(stage: Stage, proxy: Running): Route {
  return proxy.rawPort === undefined
    ? { port: proxy.port, authority: `127.0.0.1:${stage.originRaw}` }
    : { port: proxy.rawPort, authority: undefined };
}

interface HttpShape {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly bodyBytes: number;
  readonly expectBytes: number;
  readonly hasToken: boolean;
}

function http(base: CaseBase, shape: HttpShape): LoadCase {
  return {
    ...base,
    kind: "load",
    unit: "req/s",
    command: (stage, proxy, seconds) => {
      const host = `127.0.0.1:${stage.originHttp}`;
      const path = proxy.exchanges ? `/exchanged${shape.path}` : shape.path;
      const target = base.role.startsWith("reverse") ? path : `http://${host}${path}`;
      const token = shape.hasToken ? `Authorization: Bearer ${stage.token}\r\n` : "";
      return {
        mode: "http",
        port: proxy.port,
        head:
          `${shape.method} ${target} HTTP/1.1\r\nHost: ${host}\r\nUser-Agent: bench\r\n` +
          `Accept: */*\r\n${token}`,
        bodyBytes: shape.bodyBytes,
        expectBytes: shape.expectBytes,
        connections: CLIENTS,
        seconds,
      };
    },
  };
}

const TUNNEL_PEERS = ["authbridge", "connect-pipe", "proxy-chain", "mockttp", "squid", "haproxy"];

function bulk(direction: "down" | "up", connections: number): LoadCase {
  return {
    kind: "load",
    name: `tunnel-${direction}-${connections}`,
    title: `Tunnel, bulk ${direction}, ${connections} connection${connections > 1 ? "s" : ""}`,
    role: "forward",
    unit: "MB/s",
    contestants: TUNNEL_PEERS,
    command: (stage, proxy, seconds) => ({
      mode: "bulk",
      direction,
      connections,
      seconds,
      ...tunnelRoute(stage, proxy),
    }),
  };
}

const FORWARD_PEERS = [
  "authbridge",
  "undici-bare",
  "http-proxy-3",
  "proxy-chain",
  "mockttp",
  "http-mitm-proxy",
  "squid",
  "nginx",
  "haproxy",
];

function get(size: string, bytes: number): HttpShape {
  return { method: "GET", path: `/${size}`, bodyBytes: 0, expectBytes: bytes, hasToken: false };
}

export const CASES: readonly Case[] = [
  http(
    {
      name: "get-1k",
      title: "Forward, GET 1 KiB, 32 connections",
      role: "forward",
      contestants: FORWARD_PEERS,
    },
    get("1k", KIB),
  ),
  http(
    {
      name: "sessions",
      title: "Forward, GET 1 KiB, with and without session events",
      role: "forward",
      contestants: ["authbridge", "authbridge-sessions"],
    },
    get("1k", KIB),
  ),
  http(
    {
      name: "get-64k",
      title: "Forward, GET 64 KiB, 32 connections",
      role: "forward",
      contestants: FORWARD_PEERS,
    },
    get("64k", 64 * KIB),
  ),
  http(
    {
      name: "post-64k",
      title: "Forward, POST 64 KiB, 32 connections",
      role: "forward",
      contestants: FORWARD_PEERS,
    },
    { method: "POST", path: "/store", bodyBytes: 64 * KIB, expectBytes: 2, hasToken: false },
  ),
  http(
    {
      name: "exchange",
      title: "Forward, GET 1 KiB with a token exchange from the cache",
      role: "forward-exchange",
      contestants: ["authbridge", "authbridge-plain", "undici-bare", "http-proxy-3", "squid"],
    },
    { ...get("1k", KIB), hasToken: true },
  ),
  http(
    {
      name: "policy",
      title: "Forward, GET 1 KiB judged by host, executable, method and path",
      role: "forward-policy",
      contestants: ["authbridge", "authbridge-plain", "undici-bare"],
    },
    get("1k", KIB),
  ),
  http(
    {
      name: "reverse-jwt",
      title: "Reverse, GET 1 KiB with a remembered RS256 token (peers validate nothing)",
      role: "reverse-jwt",
      contestants: [
        "authbridge",
        "authbridge-plain",
        "undici-bare",
        "http-proxy-3",
        "nginx",
        "haproxy",
      ],
    },
    { ...get("1k", KIB), hasToken: true },
  ),
  {
    kind: "load",
    name: "tunnels",
    title: "CONNECT, open, one round trip, close; 32 clients",
    role: "forward",
    unit: "tunnels/s",
    contestants: TUNNEL_PEERS,
    command: (stage, proxy, seconds) => ({
      mode: "tunnels",
      connections: CLIENTS,
      seconds,
      ...tunnelRoute(stage, proxy),
    }),
  },
  bulk("down", 1),
  bulk("down", 8),
  bulk("up", 1),
  bulk("up", 8),
  {
    kind: "idle",
    name: "idle",
    title: `${IDLE_TUNNELS} idle tunnels`,
    role: "forward",
    count: IDLE_TUNNELS,
    contestants: ["authbridge", "connect-pipe", "proxy-chain", "squid", "haproxy"],
    route: tunnelRoute,
  },
  {
    kind: "start",
    name: "start",
    title: "Start to listening, and memory when idle (authbridge: both roles, both plugins)",
    role: "full",
    contestants: [
      "authbridge",
      "bare-node",
      "undici-bare",
      "http-proxy-3",
      "proxy-chain",
      "mockttp",
      "squid",
      "haproxy",
    ],
  },
];
