/** The client of Redis and Valkey: one server, a cluster, or whatever server sentinels name. Loaded only where it is used. */
import { createClient, createCluster, createSentinel } from "@redis/client";
import type { RedisTcpSocketOptions } from "@redis/client/dist/lib/client/socket.js";

/** Where the store is and who we are there. */
export interface RedisPlace {
  /** `redis://` or `rediss://` (TLS). */
  readonly url: URL;
  /** Further nodes of the cluster, or further sentinels. */
  readonly nodes: readonly { readonly host: string; readonly port: number }[];
  readonly isCluster: boolean;
  /** What the sentinels call the server; the URL then names a sentinel. */
  readonly sentinelName: string | undefined;
  readonly tls: RedisTls;
  readonly connectTimeoutMs: number;
  /** Asked at every connection, so that a password may change. */
  credentials(): { readonly username?: string; readonly password?: string };
}

/** TLS of the connections; `ca` and a certificate of our own in PEM. */
export interface RedisTls {
  readonly ca?: readonly string[] | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
  readonly servername?: string | undefined;
}

/** The part that all three kinds of client have. */
export interface RedisCommands {
  connect(): Promise<unknown>;
  get(key: string): Promise<string | null>;
  set(key: string, value: string, options?: { readonly PX: number }): Promise<unknown>;
  del(key: string): Promise<unknown>;
  hGet(key: string, field: string): Promise<string | null>;
  eval(script: string, call: ScriptCall): Promise<unknown>;
  evalSha(digest: string, call: ScriptCall): Promise<unknown>;
  publish(channel: string, message: string): Promise<unknown>;
  subscribe(channel: string, listener: (message: string) => void): Promise<unknown>;
  unsubscribe(channel: string): Promise<unknown>;
  destroy(): unknown;
  on(event: "error", listener: (error: unknown) => void): unknown;
}

/** Keys and arguments of a script. */
export interface ScriptCall {
  keys: string[];
  arguments: string[];
}

const longestPauseMs = 1_000;
/** More wait for no answer than any proxy asks for; what is above is refused at once. */
const maxQueued = 10_000;
/** A connection on which nothing comes, not even the answer to a ping, is made anew. */
const pingMs = 5_000;
const silenceMs = 15_000;

/** A client that is not connected yet. It reconnects by itself; calls meanwhile fail at once. */
export function makeClient(place: RedisPlace): RedisCommands {
  const { url, nodes, sentinelName } = place;
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const port = Number(url.port || (sentinelName === undefined ? 6379 : 26379));
  const options = connectionOptions(place);
  const database = Number(url.pathname.slice(1) || 0);
  if (sentinelName !== undefined) {
    return createSentinel({
      name: sentinelName,
      sentinelRootNodes: [{ host, port }, ...nodes],
      nodeClientOptions: { ...options, database },
      sentinelClientOptions: options,
    });
  }
  if (place.isCluster) {
    return createCluster({
      rootNodes: [{ host, port }, ...nodes].map((node) => ({
        ...options,
        socket: { ...options.socket, ...node } as RedisTcpSocketOptions,
      })),
      defaults: options,
    });
  }
  return createClient({
    ...options,
    database,
    socket: { ...options.socket, host, port } as RedisTcpSocketOptions,
  });
}

function connectionOptions(place: RedisPlace) {
  const { ca, cert, key, servername } = place.tls;
  const common = {
    connectTimeout: place.connectTimeoutMs,
    socketTimeout: silenceMs,
    reconnectStrategy: (retries: number) =>
      Math.min(50 * 2 ** Math.min(retries, 8), longestPauseMs),
  };
  const tls = {
    tls: true as const,
    ...(ca === undefined ? {} : { ca: [...ca] }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(servername === undefined ? {} : { servername }),
  };
  const socket = (
    place.url.protocol === "rediss:" ? { ...common, ...tls } : common
  ) as RedisTcpSocketOptions;
  return {
    socket,
    credentialsProvider: {
      type: "async-credentials-provider" as const,
      credentials: () => Promise.resolve(place.credentials()),
    },
    disableOfflineQueue: true,
    commandsQueueMaxLength: maxQueued,
    pingInterval: pingMs,
    // Of Redis Enterprise; other servers answer it with an error.
    maintNotifications: "disabled" as const,
  };
}
