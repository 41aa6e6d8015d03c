/** What a plugin needs to run by itself: dependencies, a clock that tests turn, and messages to judge. */
import { pino } from "pino";
import { HeaderList } from "../../src/http/headers.ts";
import { parseAuthority } from "../../src/net/destination.ts";
import { Cancellation } from "../../src/pipeline/cancellation.ts";
import { RequestContext, ResponseHalf } from "../../src/pipeline/context.ts";
import { type Client, makeFlow } from "../../src/pipeline/flow.ts";
import type {
  OperatorFetch,
  Plugin,
  PluginDefinition,
  PluginDeps,
  PluginState,
  StateStore,
} from "../../src/pipeline/plugin.ts";
import { derivedBytes } from "../../src/secret.ts";
import { MemoryStore } from "../../src/state/memory-store.ts";
import { loopbackFetch } from "./idp.ts";

/** A clock that stands until it is turned. */
export class ManualClock {
  #now: number;

  constructor(now: number = Date.now()) {
    this.#now = now;
  }

  now(): number {
    return this.#now;
  }

  advance(milliseconds: number): void {
    this.#now += milliseconds;
  }
}

/** One store for everything. */
export function stateIn(store: StateStore, isKept = false): PluginState {
  return { store, sealed: store, isKept, at: () => store };
}

/** Dependencies whose log and counters can be read. */
export class PluginBench {
  readonly clock = new ManualClock();
  readonly logged: string[] = [];
  readonly counted: string[] = [];
  /** What replicas of the instance would share; a test may put another one in its place. */
  state: PluginState = stateIn(new MemoryStore({ maxBytes: 1_048_576, clock: this.clock }));
  readonly #carried = new Map<string, object>();
  readonly #fetch: OperatorFetch;

  constructor(fetch: OperatorFetch = loopbackFetch) {
    this.#fetch = fetch;
  }

  get deps(): PluginDeps {
    return {
      instance: "test",
      clock: this.clock,
      fetch: this.#fetch,
      state: this.state,
      shared: this.state.store,
      secret: (purpose) => derivedBytes(Buffer.from("of the bench"), purpose),
      isAlone: true,
      log: pino({ base: null }, { write: (line: string) => void this.logged.push(line) }),
      count: (event) => void this.counted.push(event),
      noteSecret: (source, { kind }) => void this.counted.push(`${kind} ${source}`),
      changed: () => void this.counted.push("changed"),
      carry: (key, make) => this.#carry(key, make),
      held: (key, _methods, make) => this.#carry(key, make) as never,
    };
  }

  #carry<T extends object>(key: string, make: () => T): T {
    const value = (this.#carried.get(key) ?? make()) as T;
    this.#carried.set(key, value);
    return value;
  }

  /** An instance as the assembler makes it: from configuration as it stands in a file. */
  create<Config>(definition: PluginDefinition<Config>, config: unknown): Plugin {
    if (definition.config === undefined) throw new Error("takes no configuration");
    return definition.create(definition.config.parse(config), this.deps);
  }
}

/** The problems that a definition finds in a configuration, as `path: message`. */
export function problemsOf<Config>(
  definition: PluginDefinition<Config>,
  config: unknown,
): string[] {
  const parsed = definition.config?.safeParse(config);
  return (parsed?.error?.issues ?? []).map((issue) => `${issue.path.join(".")}: ${issue.message}`);
}

/** What a message of a test differs in from a plain GET. */
export interface MessageShape {
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  readonly path?: string;
  /** GET when absent, or POST with a body. */
  readonly method?: string;
  /** A body that was buffered; anything but bytes and text is sent as JSON. */
  readonly body?: unknown;
  readonly upgrade?: string;
  readonly client?: Partial<Client>;
  /** Destination, `host:port`. */
  readonly to?: string;
  readonly scheme?: "http" | "https";
  /** The Host field, when it differs from the destination. */
  readonly host?: string;
  readonly direction?: "inbound" | "outbound";
  readonly cancellation?: Cancellation;
}

/** A request at the request stage. */
export function message(shape: MessageShape = {}): RequestContext {
  const { to = "api.example.com:80", scheme = "http", direction = "outbound" } = shape;
  const destination = parseAuthority(to, scheme);
  const hasBody = shape.body !== undefined;
  const context = new RequestContext({
    flow: makeFlow({
      direction,
      transport: "http",
      client: { address: "127.0.0.1", port: 40_000, ...shape.client },
      destination,
    }),
    stage: "request",
    method: shape.method ?? (hasBody ? "POST" : "GET"),
    path: shape.path ?? "/",
    host: shape.host ?? to,
    headers: HeaderList.fromRecord(shape.headers ?? {}),
    hasBody,
    cancellation: shape.cancellation ?? new Cancellation(),
    upgrade: shape.upgrade,
  });
  if (hasBody) context.content.load(bytesOf(shape.body));
  return context;
}

function bytesOf(body: unknown): Buffer {
  if (Buffer.isBuffer(body)) return body;
  return Buffer.from(typeof body === "string" ? body : JSON.stringify(body));
}

/** Gives a message its answer's head, as the proxy does before a plugin is asked about it. */
export function answered(
  context: RequestContext,
  contentType: string,
  headers: Readonly<Record<string, string>> = {},
): void {
  const fields = HeaderList.fromRecord({ "content-type": contentType, ...headers });
  context.response = new ResponseHalf(200, fields);
}

/** Field value of a bearer token. */
export function bearerOf(token: string): { Authorization: string } {
  return { Authorization: `Bearer ${token}` };
}
