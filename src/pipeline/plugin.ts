/**
 * What a plugin is: a static definition with a strict configuration schema, and instances made from it.
 *
 * This module is the public surface for plugins that live outside this package (`authbridge-proxy/plugin`).
 */
import type { z } from "zod";
import type { Clock } from "../duration.ts";
import type { OperatorFetch } from "../http/operator-fetch.ts";
import type { WebSocketMessage } from "../http/web-socket-reader.ts";
import type { JwtBundleSource } from "../spiffe/jwt-bundle-source.ts";
import type { JwtSource } from "../spiffe/jwt-source.ts";
import type { X509Source } from "../spiffe/x509-source.ts";
import type { Soon, StateFeed, StateStore } from "../state/store.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Approvals } from "./approval-gate.ts";
import type { RequestContext, Stage, Tie } from "./context.ts";
import type { Decision } from "./decision.ts";
import type { Direction } from "./flow.ts";

export type {
  DelegationHop,
  Identity,
  LeavingRequest,
  RequestContext,
  RequestSigner,
  ResponseView,
  Stage,
} from "./context.ts";
export type {
  Decision,
  DecisionDetails,
  Denial,
  Invocation,
  Reply,
  ReplyFields,
  RpcRefusal,
  WrittenFrame,
} from "./decision.ts";
export {
  allow,
  deny,
  exempt,
  holdFrame,
  modify,
  observe,
  replaceFrame,
  replaceHeld,
  replaceMessage,
  respond,
  skip,
} from "./decision.ts";
export { type ApprovalGate, type ApprovalQuestion, askPerson } from "./approval-gate.ts";
export { type FactKey, factKey } from "./facts.ts";
export { maxMembers } from "../state/store.ts";
export type { Added, Addition, Soon, StateFeed, StateStore } from "../state/store.ts";
export type { Flow } from "./flow.ts";
export type {
  ClientCertificate,
  OperatorFetch,
  OperatorRequest,
  OperatorResponse,
} from "../http/operator-fetch.ts";
export type { Clock } from "../duration.ts";

/** What a user asked of the agent, as an A2A parser of the inbound pipeline read it. */
export interface Intent {
  /** The user's words, at most 8,192 characters. */
  readonly text: string;
  readonly sessionId: string;
  /** RFC 3339. */
  readonly at: string;
  /** How the message is known to follow from it. */
  readonly tie?: Tie;
}

/** What plugins may read of the session that a message belongs to. */
export interface SessionReader {
  /** The user's latest request in this message's session; undefined where there is none, or it is ambiguous. */
  intentOf(context: RequestContext): Intent | undefined;
  /** The session that this message belongs to, as far as anything ties it to one. */
  sessionOf(context: RequestContext): string | undefined;
  /** The message to the agent that this message follows from, and its session, as far as anything ties it to them. */
  scopeOf(context: RequestContext): { readonly turn?: string; readonly session?: string };
  /** The user whose verified request this message follows from. */
  subjectOf(context: RequestContext): string | undefined;
  /** True where there are several users' requests and it is ambiguous which one this message follows from. */
  isInDoubt(context: RequestContext): boolean;
}

/** The stores of an instance. Keys are the plugin's own words: begin them with its name. */
export interface PluginState {
  readonly store: StateStore;
  /** For tokens and words of users; undefined where the file names no key to seal them with. */
  readonly sealed: StateStore | undefined;
  /** Whether it outlives the process, or other threads or replicas see the same. */
  readonly isKept: boolean;
  /** Logins that ended, as every replica hears of them; undefined where nothing is kept. */
  readonly logouts?: StateFeed | undefined;
  /** A server of Redis or Valkey that the instance's configuration names; the same one at every call and generation. */
  at(url: string): StateStore;
}

/** The methods of a value that another thread may have. */
export type Held<T> = {
  readonly [M in keyof T]: T[M] extends (...args: infer A) => infer R
    ? (...args: A) => Soon<Awaited<R>>
    : never;
};

/** What the framework gives to a plugin instance. */
export interface PluginDeps {
  /** The instance's `id` in the file, or the plugin's name. */
  readonly instance: string;
  readonly log: Logger;
  readonly clock: Clock;
  readonly fetch: OperatorFetch;
  /** Sessions of the process; absent where `session.enabled` is false. */
  readonly sessions?: SessionReader | undefined;
  /** JWT-SVIDs of the Workload API; absent where the file has no `spiffe` block. */
  readonly jwtSvids?: JwtSource | undefined;
  /** Keys of the JWT-SVIDs of others; absent where the file has no `spiffe` block. */
  readonly jwtBundles?: JwtBundleSource | undefined;
  /** The X.509-SVID and the bundles of the Workload API; absent where the file has no `spiffe` block. */
  readonly x509Svids?: X509Source | undefined;
  /**
   * State that outlives a reload (token caches, key sets, the placeholder store).
   *
   * The value is made once per key and closed (`close()`, if it has one) when no live generation claims its key.
   * The key must name everything that the value depends on; never put a secret into it, put a digest.
   */
  carry<T extends object>(key: string, make: () => T): T;
  /**
   * A value that one thread of the process has for all of them, kept as {@link carry} keeps it. With `workers: 1` it is the
   * value itself; elsewhere each call of one of the methods asks the thread that has it, and rejects with
   * `state.unavailable` where that does not respond, after `limitMs` (default: a second more than `state.timeout`).
   * Arguments and results are cloned.
   */
  held<T extends object, M extends keyof T & string>(
    key: string,
    methods: readonly M[],
    make: () => T,
    limitMs?: number,
  ): Held<Pick<T, M>>;
  /** What outlives the process or is shared with its replicas, as the block `state` of the file has it. */
  readonly state: PluginState;
  /**
   * What the instances of all threads of the process have in common (`workers`), in memory: gone with the process, and
   * never seen by another one. Keys are the plugin's own words: begin them with its name.
   */
  readonly shared: StateStore;
  /** 32 bytes for one purpose: the same in all threads of the process and through its reloads, and in no other process. */
  secret(this: void, purpose: string): Buffer;
  /** Persons who can be asked; absent where nothing is going to flow. */
  readonly approvals?: Approvals | undefined;
  /** True where no other thread of the process has an instance like this one (`workers: 1`). */
  readonly isAlone: boolean;
  /** Counts something for `/metrics` as `authbridge_plugin_events_total{plugin,event}`; `event` is from a closed set. */
  count(event: string): void;
  /** Tells metrics of a secret that the instance fetches; `source` names it, and is from its configuration. */
  noteSecret(source: string, note: SecretNote): void;
  /** Reports that the instance's rules have changed: open tunnels are judged again. */
  changed(): void;
}

/** What became of a secret: it was fetched, and lasts until then (milliseconds since the epoch), or not, or is no longer used. */
export type SecretNote =
  | { readonly kind: "fetched"; readonly expiresAt?: number | undefined }
  | { readonly kind: "failed" | "closed" };

/** One mistake in an instance's configuration that its schema could not find; `path` starts at the configuration. */
export interface ConfigProblem {
  readonly path: readonly (string | number)[];
  readonly message: string;
}

/** What `create` throws for mistakes that have a place. */
export class PluginConfigError extends Error {
  readonly problems: readonly ConfigProblem[];

  constructor(problems: readonly ConfigProblem[]) {
    super(problems.map(({ message }) => message).join("\n"));
    this.name = "PluginConfigError";
    this.problems = problems;
  }
}

/** How a message ended, for {@link Plugin.onFinish}. */
export interface Outcome {
  readonly status: number;
  readonly durationMs: number;
  /** Of bodies, or through a tunnel: received from the client, sent to it. Absent where each request in it has its own. */
  readonly bytes?: { readonly received: number; readonly sent: number };
  /** Name of the plugin that refused the message. */
  readonly deniedBy?: string | undefined;
  /** The client left before the response was over. */
  readonly cancelled?: true;
  readonly error?: { readonly code: string; readonly message: string };
}

/**
 * One frame of a streamed response, or the whole body of a response that is not streamed (`last` is true).
 *
 * The end of a stream is one more frame, which is empty and has `last`.
 */
export interface Frame {
  readonly event?: string;
  readonly data: Buffer;
  readonly last: boolean;
}

/** What becomes of a part of a body that is streamed. */
export interface JudgedPart {
  /** What goes on of the bytes that came so far: what is not judged yet is kept. */
  readonly passed: readonly Buffer[];
  /** To be recorded; a refusal ends the request, and nothing goes on. */
  readonly decision?: Decision | undefined;
}

/** Judges the body of one request as it is streamed. */
export interface BodyJudge {
  /** False where the length of the body may change. */
  readonly keepsLength: boolean;
  /** What it keeps of what came, its own copies included: counted in `limits.max_buffered`. */
  readonly keptBytes: number;
  push(piece: Buffer, isLast: boolean): JudgedPart;
}

/** A whole message of a WebSocket: fragments joined, unmasked, text in valid UTF-8. */
export type Message = WebSocketMessage;

/** A whole message of a WebSocket, and who sent it. */
export interface HeardMessage extends Message {
  readonly from: "client" | "server";
}

/** Bytes that go by: of the client on their way to the server, or the other way round. */
export interface Passing {
  readonly from: "client" | "server";
  readonly bytes: number;
}

/** A login that has ended, as its issuer said in a logout token: of one session, or of a subject. */
export interface Logout {
  readonly issuer: string;
  readonly subject?: string | undefined;
  readonly session?: string | undefined;
  /** Seconds since the epoch. */
  readonly at: number;
  /** Digests of tokens that are known to be of it; a plugin that knows more adds them. */
  readonly tokens: Set<string>;
}

/** What an instance makes of a logout token. */
export type LogoutReading =
  | { readonly kind: "ended"; readonly login: Omit<Logout, "tokens"> }
  | { readonly kind: "refused"; readonly cause: string; readonly found?: string }
  | { readonly kind: "unavailable"; readonly reason: string };

/** The result of a hook; undefined where there is nothing to record. */
export type Answer = Decision | undefined;

/** The smallest addition to a policy. */
export interface PolicyAddition {
  /** In the format of policy files, with the risk of each line. */
  readonly text: string;
  /** Where the policy is kept; absent where it stands in the proxy's own file. */
  readonly file?: string | undefined;
}

/** A configured plugin. All hooks are optional; hooks may return a value or a promise. */
export interface Plugin {
  /** Which bodies this instance needs, where that is less than its definition says. */
  readonly body?: BodyAccess;
  /**
   * Says that the instance judges callers: `Client.process` is then filled in. The paths are those that a caller may
   * have as symbolic links to its executable. `undefined`: nothing depends on the caller.
   */
  callerLinks?(): readonly string[] | undefined;
  /** Runs before the generation serves its first flow; a rejection refuses the start or the reload. */
  start?(signal: AbortSignal): Promise<void>;
  /**
   * Whether the instance has to read the body of this request; asked when only its head is there. A body that no step
   * wants is streamed, whatever its size. Absent: every body.
   */
  wantsBody?(context: RequestContext): boolean;
  onRequest?(context: RequestContext): Answer | Promise<Answer>;
  /**
   * The judge of a body that is larger than is held: it is then streamed past the judge, after `onRequest` has been asked
   * without it ({@link RequestContext.isStreamed}). Undefined where the body has to be whole: it is refused. Asked when the
   * request's head is there, of an instance that wants the body.
   */
  judgeStream?(context: RequestContext): BodyJudge | undefined;
  /**
   * Replaces `onRequest` for a hypothetical message (`explain`, `policy test`); `deps.fetch` then reaches
   * nothing. Absent: `onRequest` itself is called.
   */
  rehearseRequest?(context: RequestContext): Answer | Promise<Answer>;
  /**
   * Attaches credentials. Runs after every `onRequest` of the pipeline has let the message pass, so that no token is
   * fetched for a message that policy refuses and no credential is seen by a plugin that judges.
   */
  onCredential?(context: RequestContext): Answer | Promise<Answer>;
  /**
   * Whether the instance wants the response to this message; asked when its request phase is over. Its
   * body is not read, and no frame is passed, where no step wants it. Absent: every response.
   */
  wantsAnswer?(context: RequestContext): boolean;
  /**
   * Whether the instance has to read this response beyond its head, which it judges all the same. Asked with the request,
   * and again when the response's head is there (`context.response`): a no then counts. Absent: it has.
   */
  wantsAnswerBody?(context: RequestContext): boolean;
  /**
   * Replaces `onCredential` for a hypothetical message: what would be attached, in words and without fetching
   * it, or the decision where nothing would be. Absent: it is assumed to attach something.
   */
  describeCredential?(context: RequestContext): string | Answer | Promise<string | Answer>;
  /**
   * Runs on the response's head, and on its body where the definition reads it; in reverse order. Where no step
   * that reads the body can refuse it, it has been forwarded by then.
   */
  onResponse?(context: RequestContext): Answer | Promise<Answer>;
  /**
   * Judges each frame of a stream before it is forwarded. {@link replaceFrame} changes what is forwarded, {@link holdFrame}
   * keeps it back until a later frame of the same stream is not held, and {@link replaceHeld} discards what is kept back.
   */
  onFrame?(context: RequestContext, frame: Frame): Answer | Promise<Answer>;
  /**
   * Whether the instance has to see what the client sends once this upgrade was accepted; asked when the request phase
   * is over, and again for each message. Only such a connection is read at all: it must be a WebSocket, and loses its
   * offer of extensions. Absent: every upgrade, where there is `onMessage`.
   */
  needsMessages?(context: RequestContext): boolean;
  /**
   * Judges each message of the client of a WebSocket before it is forwarded. `deny` closes both sides (1008),
   * {@link replaceMessage} changes it, and everything else lets it pass as it is. Control frames (ping, pong, close) are
   * not shown.
   */
  onMessage?(context: RequestContext, message: Message): Answer | Promise<Answer>;
  /**
   * Whether the instance has to see what the server says once this upgrade was accepted; asked and kept like
   * {@link needsMessages}. Absent: it has not.
   */
  needsServerMessages?(context: RequestContext): boolean;
  /**
   * Judges each message of the server of a WebSocket before the client has it, last plugin first: `deny` closes both sides
   * (1008), {@link replaceMessage} changes it. What a credential left in it is gone by then.
   */
  onServerMessage?(context: RequestContext, message: Message): Answer | Promise<Answer>;
  /**
   * Attaches a credential to a message of the client of a WebSocket, with {@link replaceMessage}. Runs after every
   * `onMessage` of the pipeline has let the message pass.
   */
  onMessageCredential?(context: RequestContext, message: Message): Answer | Promise<Answer>;
  /**
   * Whether the instance hears what both sides say once this upgrade was accepted; asked when the request phase is over.
   * A connection that is heard loses its offer of extensions. Absent: it hears nothing.
   */
  hearsMessages?(context: RequestContext): boolean;
  /** Hears a whole message, which is on its way already: nothing can be refused here. What cannot be read is not heard. */
  onHeard?(context: RequestContext, message: HeardMessage): void;
  /**
   * Whether the instance counts what goes by: in bodies that are streamed, through a tunnel that nobody looks into, over an
   * upgraded connection. Asked when the message is about to go, or the tunnel to be opened, and again where it is upgraded.
   */
  countsBytes?(context: RequestContext): boolean;
  /**
   * Counts bytes, what they say aside; `deny` ends the message or tunnel. Those of the client go on when it is settled, and
   * are counted one after the other; those of the server are on their way already where a promise is returned.
   */
  onBytes?(context: RequestContext, passing: Passing): Answer | Promise<Answer>;
  /**
   * Runs once for every message that this plugin judged, however it ended, when its other hooks for it have settled; nobody
   * waits for it longer than two seconds.
   */
  onFinish?(context: RequestContext, outcome: Outcome, signal: AbortSignal): void | Promise<void>;
  /**
   * Checks a logout token (OpenID Connect Back-Channel Logout) that came to the operator's surface; undefined where the
   * instance takes none. It comes from whoever reaches that surface.
   */
  readLogout?(token: string): Promise<LogoutReading> | undefined;
  /** Drops what the instance remembers of the login; how much there was. Inbound plugins are asked first. */
  onLogout?(logout: Logout): number;
  /** What the instance has observed, for operators: JSON without secrets. Shown by the session API. */
  observations?(): unknown;
  /**
   * What to add to the instance's policy so that it lets through what was chosen, each named `HOST:PORT EXECUTABLE`, among
   * what it and its like in other threads have observed; undefined where that has none of it.
   */
  addition?(chosen: ReadonlySet<string>, observed: readonly unknown[]): PolicyAddition | undefined;
  /** What the instance has seen of its budgets: JSON without secrets. Shown by the session API. */
  budgets?(): unknown;
  /** What is shown in place of what it and its like in other threads have seen; absent: what each of them has. */
  budgetsOf?(seen: readonly unknown[]): Promise<unknown>;
  /** True, or the reason why the instance cannot do its work yet. */
  ready?(): true | string;
  close?(): Promise<void> | void;
}

/** Which bodies a plugin needs in memory. `write` implies `read`. */
export interface BodyAccess {
  readonly request?: "read" | "write";
  readonly response?: "read" | "write";
}

/** The static side of a plugin: what it is called, what it needs and how it is made. */
export interface PluginDefinition<Config = unknown> {
  readonly name: string;
  readonly description: string;
  /** Absent: the plugin takes no configuration. */
  readonly config?: z.ZodType<Config>;
  /** Stages at which `onRequest` is asked; `["request"]` when absent. */
  readonly stages?: readonly Stage[];
  readonly body?: BodyAccess;
  /** The same for one configuration, where that is less: {@link Plugin.body} then says no more. */
  bodyOf?(config: Config): BodyAccess | undefined;
  /** True for a plugin that takes things out of what is about to leave: it may stand behind another one that writes bodies. */
  readonly redacts?: true;
  /** Plugins that must stand earlier in the same pipeline. */
  readonly requires?: readonly string[];
  /**
   * True for a plugin that records and refuses nothing. A message too large to be read is then forwarded unchanged;
   * the plugin finds {@link RequestContext.unread} in it, and no body.
   */
  readonly observes?: true;
  /** At least one of these must stand earlier in the same pipeline. */
  readonly requiresAny?: readonly string[];
  /** True for a plugin that authenticates: weakening it with `on_error` needs `allow_weakened_auth`. */
  readonly authenticates?: boolean;
  /**
   * Whether instances read {@link PluginDeps.sessions}: where somebody has to be asked whose a message is, it waits.
   * Absent: as for true, but for plugins that come with the proxy.
   */
  readonly readsSessions?: boolean;
  /** Plugins that must stand earlier where this configuration is used, besides {@link requires}. */
  requiredBy?(config: Config): readonly string[];
  /** Plugins whose findings this configuration judges by: where one is in the same pipeline, it must stand earlier. */
  behind?(config: Config): readonly string[];
  /** Plugins whose findings an instance may be asked to judge by: one that stands later is told of at the start. */
  readonly bestBehind?: readonly string[];
  /** Plugins whose findings `include` names, without which it has no effect: one that is not there is told of like {@link unused}. */
  missed?(config: Config): readonly string[];
  /** Keys that have no effect in this configuration, and why: where the file has one, the start and `check` say so. */
  unused?(config: Config, direction: Direction): readonly ConfigProblem[];
  /** Capability that is not part of this version; a pipeline that names it refuses the start. */
  readonly unavailable?: string;
  /**
   * Why the instances of several threads would not do what this configuration says; undefined where they would. With
   * `workers` above 1 the file is then refused with these words.
   */
  needsOneThread?(config: Config): string | undefined;
  /** Origins (scheme, host, port) that this configuration lets the instance call. */
  origins?(config: Config): readonly string[];
  create(config: Config, deps: PluginDeps): Plugin;
}

/** Infers the configuration type of a definition from its schema. */
export function definePlugin<Config>(
  definition: PluginDefinition<Config>,
): PluginDefinition<Config> {
  return Object.freeze(definition);
}

/**
 * A definition whose configuration type is hidden, for lists of different plugins.
 *
 * The cast is checked: the assembler parses the configuration with the definition's own schema before `create`.
 */
export type AnyPluginDefinition = PluginDefinition<never>;
