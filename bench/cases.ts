/** The cases: what is asked of each proxy, and who takes part. */
import type { Role, Running } from "./contestants.ts";
import type { HoldLoad, HttpLoad, LoadCommand, Route } from "./load/command.ts";
import type { Stage } from "./stage.ts";

const KIB = 1024;
const CLIENTS = 32;
const IDLE = 5_000;
const IDLE_BRIDGED = 1_000;
const REQUESTS = 100_000;
const BRIDGE_CLIENTS = 16;

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

/** Many connections held open in a fresh process: memory each. */
export interface IdleCase extends CaseBase {
  readonly kind: "idle";
  readonly count: number;
  /** The same work before the base line is taken, so that code is loaded and compiled. */
  warmUp(stage: Stage, proxy: Running): LoadCommand;
  hold(stage: Stage, proxy: Running): HoldLoad;
}

/** A number of requests to a fresh process, and its memory after them. */
export interface AfterCase extends CaseBase {
  readonly kind: "after";
  readonly count: number;
  command(stage: Stage, proxy: Running, seconds: number): HttpLoad;
}

/** From start to listening, in a fresh process each round. */
export interface StartCase extends CaseBase {
  readonly kind: "start";
}

export type Case = LoadCase | IdleCase | AfterCase | StartCase;

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

function httpCommand(
  base: CaseBase,
  shape: HttpShape,
): (stage: Stage, proxy: Running, seconds: number) => HttpLoad {
  return (stage, proxy, seconds) => {
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
  };
}

function http(base: CaseBase, shape: HttpShape): LoadCase {
  return { ...base, kind: "load", unit: "req/s", command: httpCommand(base, shape) };
}

function secureAuthority(stage: Stage): string {
  return `localhost:${stage.originTls}`;
}

function bridge(
  name: string,
  protocol: "h1" | "h2" | "fresh",
  title: string,
  contestants: readonly string[],
): LoadCase {
  return {
    kind: "load",
    name,
    title,
    role: "forward-bridge",
    unit: "req/s",
    contestants,
    command: (stage, proxy, seconds) => ({
      mode: "bridge",
      protocol,
      port: proxy.port,
      authority: secureAuthority(stage),
      path: "/1k",
      expectBytes: KIB,
      connections: BRIDGE_CLIENTS,
      seconds,
    }),
  };
}

const IDLE_TUNNELS: IdleCase = {
  kind: "idle",
  name: "idle-tunnel",
  title: `${IDLE} idle tunnels`,
  role: "forward",
  count: IDLE,
  contestants: ["authbridge", "go", "connect-pipe", "proxy-chain", "squid", "haproxy"],
  warmUp: (stage, proxy) => ({
    mode: "tunnels",
    connections: CLIENTS,
    seconds: 0.5,
    ...tunnelRoute(stage, proxy),
  }),
  hold: (stage, proxy) => ({
    mode: "hold",
    kind: "tunnel",
    count: IDLE,
    ...tunnelRoute(stage, proxy),
  }),
};

const KEEP_ALIVE: CaseBase = {
  name: "idle-keep-alive",
  title: `${IDLE} idle keep-alive connections, each after one GET 1 KiB`,
  role: "forward",
  contestants: ["authbridge", "go", "undici-bare", "http-proxy-3", "proxy-chain", "squid"],
};
const IDLE_KEEP_ALIVE: IdleCase = {
  ...KEEP_ALIVE,
  kind: "idle",
  count: IDLE,
  warmUp: (stage, proxy) => httpCommand(KEEP_ALIVE, get("1k", KIB))(stage, proxy, 0.5),
  hold: (stage, proxy) => {
    const { head, port, expectBytes } = httpCommand(KEEP_ALIVE, get("1k", KIB))(stage, proxy, 0);
    return {
      mode: "hold",
      kind: "keep-alive",
      count: IDLE,
      head: `${head}\r\n`,
      port,
      expectBytes,
    };
  },
};

const IDLE_BRIDGE: IdleCase = {
  kind: "idle",
  name: "idle-bridged",
  title: `${IDLE_BRIDGED} idle connections with TLS that the proxy opened, each after one GET 1 KiB`,
  role: "forward-bridge",
  count: IDLE_BRIDGED,
  contestants: ["authbridge", "go", "mockttp", "http-mitm-proxy"],
  warmUp: (stage, proxy) => ({
    mode: "bridge",
    protocol: "fresh",
    port: proxy.port,
    authority: secureAuthority(stage),
    path: "/1k",
    expectBytes: KIB,
    connections: BRIDGE_CLIENTS,
    seconds: 1,
  }),
  hold: (stage, proxy) => ({
    mode: "hold",
    kind: "bridged",
    count: IDLE_BRIDGED,
    port: proxy.port,
    authority: secureAuthority(stage),
    head: `GET /1k HTTP/1.1\r\nHost: ${secureAuthority(stage)}\r\n\r\n`,
    expectBytes: KIB,
  }),
};

const AFTER: CaseBase = {
  name: "rss",
  title: `Memory after ${REQUESTS} requests (GET 1 KiB, 32 connections)`,
  role: "forward",
  contestants: [
    "authbridge",
    "authbridge-2",
    "go",
    "raw",
    "undici-bare",
    "http-proxy-3",
    "proxy-chain",
    "squid",
  ],
};

const TUNNEL_PEERS = [
  "authbridge",
  "go",
  "connect-pipe",
  "proxy-chain",
  "mockttp",
  "squid",
  "haproxy",
];

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
  "authbridge-2",
  "go",
  "raw",
  "undici-bare",
  "http-proxy-3",
  "proxy-chain",
  "mockttp",
  "http-mitm-proxy",
  "squid",
  "nginx",
  "haproxy",
];

const BRIDGE_PEERS = ["authbridge", "authbridge-2", "go", "mockttp", "http-mitm-proxy"];

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
      contestants: ["authbridge", "authbridge-sessions", "go"],
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
      contestants: [
        "authbridge",
        "authbridge-plain",
        "go",
        "raw",
        "undici-bare",
        "http-proxy-3",
        "squid",
      ],
    },
    { ...get("1k", KIB), hasToken: true },
  ),
  http(
    {
      name: "policy",
      title: "Forward, GET 1 KiB judged by host, executable, method and path",
      role: "forward-policy",
      contestants: ["authbridge", "authbridge-plain", "raw", "undici-bare"],
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
        "go",
        "raw",
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
  bridge("bridged-h1", "h1", "Bridged, GET 1 KiB over 16 kept connections", BRIDGE_PEERS),
  bridge("bridged-h2", "h2", "Bridged, GET 1 KiB, 8 streams at once on each of 2 connections", [
    "authbridge",
    "go",
    "mockttp",
  ]),
  bridge("handshake", "fresh", "CONNECT, full handshake, one GET 1 KiB; 16 clients", BRIDGE_PEERS),
  IDLE_KEEP_ALIVE,
  IDLE_TUNNELS,
  IDLE_BRIDGE,
  { ...AFTER, kind: "after", count: REQUESTS, command: httpCommand(AFTER, get("1k", KIB)) },
  {
    kind: "start",
    name: "start",
    title: "Start to listening, and memory when idle (authbridge: both roles, both plugins)",
    role: "full",
    contestants: [
      "authbridge",
      "go",
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
