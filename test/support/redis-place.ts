/** A plain server as the Redis store is told of it. */
import type { RedisPlace } from "../../src/state/redis-client.ts";

export function redisPlace(url: string, over: Partial<RedisPlace> = {}): RedisPlace {
  return {
    url: new URL(url),
    nodes: [],
    isCluster: false,
    sentinelName: undefined,
    tls: {},
    connectTimeoutMs: 5_000,
    credentials: () => ({}),
    ...over,
  };
}
