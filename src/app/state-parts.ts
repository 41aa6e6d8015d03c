/** The state of the process, from the block `state`: one store, and those that plugins name by address. */
import { hash, randomBytes } from "node:crypto";
import type { Config } from "../config/presets.ts";
import { sizeBytes } from "../config/size.ts";
import { durationMs } from "../duration.ts";
import { messageOf, ProxyError } from "../errors.ts";
import { Secret } from "../secret.ts";
import { credentialText, readSmallFile, WatchedFile } from "../files/watched-file.ts";
import type { PluginDeps } from "../pipeline/plugin.ts";
import { derivedBytes } from "../secret.ts";
import { Feed, type FeedOptions } from "../state/feed.ts";
import { FileStore } from "../state/file-store.ts";
import { keyRingOf } from "../state/key-ring.ts";
import { MemoryStore } from "../state/memory-store.ts";
import type { RedisPlace } from "../state/redis-client.ts";
import { RedisStore } from "../state/redis-store.ts";
import { SealedStore } from "../state/sealed-store.ts";
import type { OwnedStore, StateFeed, StateStore, StateWatch } from "../state/store.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { CarriedState } from "./carried-state.ts";

/** What plugins share. */
export interface StateParts {
  readonly store: StateStore;
  /** The same with sealed values, for tokens and words of users; undefined where the file names no key. */
  readonly sealed: StateStore | undefined;
  /** In memory, whatever the file says: what the threads of the process have in common. */
  readonly shared: StateStore;
  /** Made anew at each start: what the threads of the process, and nobody else, make the same keys of. */
  readonly seed: Uint8Array;
  /** Whether it outlives the process, or other threads or processes see the same. */
  readonly isKept: boolean;
  /** Whether others than this process use it. */
  readonly isShared: boolean;
  /** Logins that ended; undefined where nothing is kept. */
  readonly logouts: StateFeed | undefined;
  /** What operators have stopped; undefined where it ends with the process. */
  readonly kills: StateFeed | undefined;
  /** A store of Redis or Valkey that a plugin names; it is not open yet. */
  at(url: string): OwnedStore;
  close(): Promise<void>;
}

/** Where the stores tell of themselves. */
export interface StateServices {
  readonly log: Logger;
  readonly metrics: Metrics;
}

type StateConfig = Config["state"];

/** Opens the store. Rejects with `config.invalid` where its files cannot be used; a server that is away may come later. */
export async function makeStateParts(
  { state, workers = 1 }: Pick<Config, "state"> & Partial<Pick<Config, "workers">>,
  services: StateServices,
): Promise<StateParts> {
  const store = storeOf(state, services);
  const keys = encryptionKeys(state, services.log);
  try {
    await store.open();
  } catch (error) {
    throw new ProxyError("config.invalid", `state.path: ${messageOf(error)}`, { cause: error });
  }
  const isOfThreads = workers !== 1;
  const isMemory = state.store === "memory";
  // What threads of one process have in common in memory is seen by nobody else.
  const unsealed = isOfThreads && isMemory ? store : undefined;
  const sealed = keys === undefined ? unsealed : new SealedStore(store, keys);
  const isKept = !isMemory || isOfThreads;
  const isShared = state.store === "redis";
  const shared = new MemoryStore({ maxBytes: sizeBytes(state.max_size) });
  const threads = isOfThreads ? shared : undefined;
  const place = { store: sealed ?? store, isShared: isShared || isOfThreads, threads };
  const logouts = isKept ? logoutsIn(place, services.log) : undefined;
  const kills = isMemory ? undefined : killsIn(sealed ?? store, isShared, services.log);
  return {
    store,
    sealed,
    shared,
    seed: randomBytes(32),
    isKept,
    isShared,
    logouts,
    kills,
    at: (url) => namedStore(url, state, services),
    close: () => {
      logouts?.close();
      kills?.close();
      return store.close();
    },
  };
}

/** Longer than tokens of a login are good for. */
const logoutsKeptMs = 30 * 24 * 3_600_000;

/** The feed of logins that ended. */
export function logoutsIn(
  place: Pick<FeedOptions, "store" | "isShared" | "threads">,
  log: Logger,
): Feed {
  return new Feed({
    ...place,
    name: "logouts",
    keptMs: logoutsKeptMs,
    onOwed: (problem) => {
      if (problem === undefined) log.info({}, "other replicas have been told of all logouts");
      else log.error({ error: problem }, "other replicas are told of logouts later");
    },
  });
}

/** An order stands until it is taken back: longer than replicas are away. */
const killsKeptMs = 365 * 24 * 3_600_000;

function killsIn(store: StateStore, isShared: boolean, log: Logger): Feed {
  return new Feed({
    store,
    name: "kills",
    keptMs: killsKeptMs,
    isShared,
    onOwed: (problem) => {
      if (problem === undefined) log.info({}, "other replicas have been told what is stopped");
      else log.error({ error: problem }, "other replicas are told later what is stopped");
    },
  });
}

/** What the instances of a generation get. A build that serves nothing opens nothing: its store is empty. */
export function pluginState(
  generation: number,
  { state, carried, log }: PluginStateServices,
): Pick<PluginDeps, "state" | "shared" | "secret"> {
  const seed = state?.seed ?? randomBytes(32);
  const secret = (purpose: string): Buffer => derivedBytes(seed, `plugin ${purpose}`);
  if (state === undefined) {
    const store = new MemoryStore({ maxBytes: 1_048_576 });
    const empty = { store, sealed: store, isKept: false, logouts: undefined, at: () => store };
    return { state: empty, shared: store, secret };
  }
  const { store, sealed, isKept, shared, logouts } = state;
  const at = (url: string): StateStore =>
    carried.claim(generation, `state at ${hash("sha256", url)}`, () => {
      const named = state.at(url);
      named.open().catch((error: unknown) => log.error({ err: error }, "state store"));
      return named;
    });
  return { state: { store, sealed, isKept, logouts, at }, shared, secret };
}

/** Where the stores of a generation come from. */
interface PluginStateServices {
  readonly state?: StateParts | undefined;
  readonly carried: CarriedState;
  readonly log: Logger;
}

/** The store of the block, not open yet. */
export function storeOf(state: StateConfig, services: StateServices): OwnedStore {
  const maxBytes = sizeBytes(state.max_size);
  const timeoutMs = durationMs(state.timeout);
  const { path, url } = state;
  if (state.store === "memory") return new MemoryStore({ maxBytes });
  const watch = watchOf(path ?? url ?? "", services);
  if (state.store === "file") {
    return new FileStore({ ...watch, path: path ?? "", maxBytes, timeoutMs });
  }
  const place = placeOf(state, services.log);
  return new RedisStore({ ...watch, place, prefix: state.key_prefix, timeoutMs });
}

function namedStore(url: string, state: StateConfig, services: StateServices): OwnedStore {
  const place: RedisPlace = { ...plainPlace(new URL(url)), tls: {} };
  const { origin, host } = new URL(url);
  const watch = watchOf(origin === "null" ? host : origin, services);
  const timeoutMs = durationMs(state.timeout);
  return new RedisStore({ ...watch, place, prefix: state.key_prefix, timeoutMs });
}

const leastConnectMs = 5_000;

function plainPlace(url: URL): Omit<RedisPlace, "tls"> {
  return {
    url,
    nodes: [],
    isCluster: false,
    sentinelName: undefined,
    connectTimeoutMs: leastConnectMs,
    credentials: () => ({
      ...(url.username === "" ? {} : { username: decodeURIComponent(url.username) }),
      ...(url.password === "" ? {} : { password: decodeURIComponent(url.password) }),
    }),
  };
}

function placeOf(state: StateConfig, log: Logger): RedisPlace {
  const plain = plainPlace(new URL(state.url ?? ""));
  const { password_file: passwordFile, server_name: servername } = state;
  const password =
    passwordFile === undefined
      ? undefined
      : readable("password_file", passwordFile, {
          log,
          parse: (text) => new Secret(credentialText(text)),
        });
  const pem = (key: "ca_file" | "cert_file" | "key_file"): string | undefined => {
    const path = state[key];
    if (path === undefined) return undefined;
    try {
      return readSmallFile(path);
    } catch (error) {
      throw new ProxyError("config.invalid", `state.${key}: ${messageOf(error)}`, { cause: error });
    }
  };
  const ca = pem("ca_file");
  return {
    ...plain,
    nodes: state.nodes.map((text) => {
      const at = text.lastIndexOf(":");
      return { host: text.slice(0, at).replace(/^\[|\]$/g, ""), port: Number(text.slice(at + 1)) };
    }),
    isCluster: state.cluster,
    sentinelName: state.sentinel_name,
    tls: {
      ...(ca === undefined ? {} : { ca: [ca] }),
      cert: pem("cert_file"),
      key: pem("key_file"),
      servername,
    },
    credentials: () => ({
      ...plain.credentials(),
      ...(password === undefined ? {} : { password: password().reveal() }),
    }),
  };
}

function encryptionKeys({ encryption_key_file: path }: StateConfig, log: Logger) {
  if (path === undefined) return undefined;
  // Held beside the keys, the text is known for a secret of this process.
  const parse = (text: string) => ({ ring: keyRingOf(text), text: new Secret(text) });
  const read = readable("encryption_key_file", path, { log, parse });
  return () => read().ring;
}

/** The file's value, which there has to be at the start; later the last good one stays. */
function readable<T>(
  key: string,
  path: string,
  { log, parse }: { readonly log: Logger; parse(this: void, text: string): T },
): () => T {
  const file = new WatchedFile({
    path,
    clock: Date,
    parse,
    onProblem: (problem) => log.warn({ key: `state.${key}` }, problem),
  });
  const first = file.current();
  if (first === undefined) {
    throw new ProxyError("config.invalid", `state.${key}: ${file.problem ?? "cannot be read"}`);
  }
  return () => file.current() ?? first;
}

function watchOf(place: string, { log, metrics }: StateServices): StateWatch {
  const { state_operations_total: operations, state_outages_total: outages } = metrics.counters;
  let isAway = false;
  const onClosed = metrics.stateUp(() => !isAway);
  return {
    onClosed,
    onOperation: (result) => {
      operations.of(result).value += 1;
    },
    onState: (problem) => {
      isAway = problem !== undefined;
      if (problem === undefined) log.info({ store: place }, "the state store is back");
      else {
        outages.of().value += 1;
        log.error({ store: place, error: problem }, "the state store is away");
      }
    },
    onRestored: (counters) => {
      metrics.counters.state_restored_total.of().value += counters;
      log.warn({ store: place, counters }, "the state store had lost counters; they were put back");
    },
  };
}
