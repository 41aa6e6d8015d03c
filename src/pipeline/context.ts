/** One pass through a pipeline: what plugins see of a message and what they may change. */
import { ownText } from "../bounded-map.ts";
import type { BodySource } from "../http/body-source.ts";
import type { BodyBudget, DecodedBody } from "../http/body.ts";
import { Echo } from "../http/echo.ts";
import type { HeaderList } from "../http/headers.ts";
import type { AddressSet } from "../net/address.ts";
import type { Destination } from "../net/destination.ts";
import type { FlowTrace } from "../telemetry/flow-trace.ts";
import type { Cancellation } from "./cancellation.ts";
import type { Denial, Invocation, ReplyFields } from "./decision.ts";
import type { Facts } from "./facts.ts";
import type { Flow, TlsPeer } from "./flow.ts";

/** `connect` judges a host that may be spoken to; `request` judges one HTTP request. */
export type Stage = "connect" | "request";

/**
 * How it is known to which conversation an outbound message belongs: by a mark that it shares with a message to the agent
 * (`header`: that of session.header), by the one message that was being served, or by its own word. `only` is an intent
 * of the only conversation that is known.
 */
export type Tie = "header" | "trace" | "bearer" | "mcp" | "tunnel" | "served" | "own" | "only";

/** Who the caller is, as verified by an authentication plugin. */
export interface Identity {
  readonly subject: string;
  readonly clientId?: string | undefined;
  readonly scopes: readonly string[];
  readonly claims: Readonly<Record<string, unknown>>;
  /** Seconds since the epoch at which the proof of this identity ends. */
  readonly expiresAt?: number | undefined;
}

/** One step of a delegation: whose token was exchanged for which audience. */
export interface DelegationHop {
  readonly subject: string;
  readonly audience: string;
  readonly scopes: readonly string[];
  readonly at: number;
}

/** A body that a plugin may read, and replace where its definition says `writesBody`. */
class MessageBody {
  #bytes: Buffer | undefined;
  #clear: DecodedBody | undefined;
  #replaced = false;

  get bytes(): Buffer | undefined {
    return this.#bytes;
  }

  get replaced(): boolean {
    return this.#replaced;
  }

  /** The bytes without their Content-Encoding, or why they cannot be had. */
  get clear(): DecodedBody | undefined {
    return this.#clear;
  }

  /** Called once by the proxy when the body was buffered; `clear` is given where the body is encoded. */
  load(bytes: Buffer, clear: DecodedBody = { kind: "body", bytes }): void {
    this.#bytes = bytes;
    this.#clear = clear;
  }

  replace(bytes: Buffer): void {
    this.load(bytes);
    this.#replaced = true;
  }
}

/** The response's half of a context, present from the response phase on. */
export interface ResponseView {
  status: number;
  readonly headers: HeaderList;
  readonly body: Buffer | undefined;
  /** As of {@link RequestContext.unread}. */
  readonly unread: Denial | undefined;
  /** Replaces the body; Content-Length and Content-Encoding follow by themselves. */
  setBody(bytes: Buffer): void;
}

/** The proxy's own handle on a response; plugins get it as {@link ResponseView}. */
export class ResponseHalf implements ResponseView {
  status: number;
  readonly headers: HeaderList;
  readonly content = new MessageBody();
  unread: Denial | undefined;
  readonly #muted: boolean;

  constructor(status: number, headers: HeaderList, muted = false) {
    this.status = status;
    this.headers = headers;
    this.#muted = muted;
  }

  get body(): Buffer | undefined {
    return this.content.bytes;
  }

  setBody(bytes: Buffer): void {
    if (!this.#muted) this.content.replace(bytes);
  }

  /** A copy whose changes have no effect. */
  shadow(): ResponseHalf {
    const copy = new ResponseHalf(this.status, this.headers.clone(), true);
    if (this.content.bytes !== undefined) copy.content.load(this.content.bytes);
    copy.unread = this.unread;
    return copy;
  }
}

/** Requirements of plugins for the tunnel that a permitted CONNECT opens. */
export interface TunnelTerms {
  /** Set with the reason when every request in the tunnel must be judged: an opaque tunnel is then refused. */
  mustInspect: string | undefined;
  /** True when the TLS of the tunnel must be left as it is. */
  keepTls: boolean;
}

/** A field and its value. */
export type FieldValue = readonly [name: string, value: string];

/** What a credential makes of the response to the request that it was attached to. */
export interface AttachedCredential {
  /**
   * Called with the head of each final response. A returned function gives the fields to send the request with once
   * more, in place of a response that asks for them; it is called where the request can be sent again.
   */
  answered(
    status: number,
    field: (name: string) => string | undefined,
  ): (() => Promise<readonly FieldValue[]>) | undefined;
}

/** A request as it is about to be written: what a signer makes of it is sent, and nobody changes it afterwards. */
export interface LeavingRequest {
  readonly method: string;
  /** Path and query. */
  target: string;
  /** End-to-end fields; those of the context stay as they are. */
  readonly headers: HeaderList;
  /** The whole body; undefined where it is streamed. */
  body: Buffer | undefined;
  readonly isBodyReplaced: boolean;
  /** Of the process, for what a signer holds of a streamed body. */
  readonly budget: Pick<BodyBudget, "acquire" | "release">;
}

/** Signs a request when every plugin has changed what it changes. */
export interface RequestSigner {
  /** What is returned stands between a streamed body and the next hop. Throws ProxyError. */
  sign(request: LeavingRequest): ((source: BodySource) => BodySource) | undefined;
}

/** The request that went on to the next hop. */
export interface Onward {
  /** As performance.now() gave it. */
  readonly sentAt: number;
  /** The status of the next hop's response. */
  readonly status?: number;
  /** Who gave it, over mutual TLS. */
  readonly peer?: TlsPeer | undefined;
}

/** Who has the client of a message that waits for a person. */
export interface Holder {
  /** It is told so, every so many milliseconds, as far as it understands that. */
  tellHeld(everyMs: number): void;
}

/** Options of a context; see the fields of {@link RequestContext}. */
export interface RequestFacts {
  readonly flow: Flow;
  readonly stage: Stage;
  readonly method: string;
  readonly path: string;
  readonly host: string;
  readonly headers: HeaderList;
  readonly hasBody: boolean;
  readonly cancellation: Cancellation;
  readonly upgrade?: string | undefined;
  readonly httpVersion?: string | undefined;
}

/** Everything a plugin may know and change about one message. */
export class RequestContext {
  readonly flow: Flow;
  readonly stage: Stage;
  /** `CONNECT` at the connect stage. */
  readonly method: string;
  /** The authority that the client named: destination when outbound, its Host field when inbound. Never a dial key. */
  readonly host: string;
  readonly headers: HeaderList;
  readonly hasBody: boolean;
  readonly cancellation: Cancellation;
  /** The protocol of the client's Upgrade (`websocket`), where it has one. */
  readonly upgrade: string | undefined;
  readonly content = new MessageBody();
  /**
   * Set where some plugin wanted the body and it was not read: the denial of a plugin whose verdict needs it. Parsers
   * then have left no view, which does not mean that there was nothing to see.
   */
  unread: Denial | undefined;
  /** The body is too large to be held, and is judged as it is streamed. */
  isStreamed = false;
  readonly invocations: Invocation[] = [];
  readonly delegation: DelegationHop[] = [];
  /** The session that this message belongs to, once it is known. */
  sessionId: string | undefined;
  /** How that is known of an outbound message. */
  tiedBy: Tie | undefined;
  /** The session in which the first event of this message was shown. */
  shownIn: string | undefined;
  response: ResponseHalf | undefined;
  /** Messages of a WebSocket that went by so far. */
  messages: { readonly received: number; readonly sent: number } | undefined;
  /** Set where the process sends traces. */
  trace: FlowTrace | undefined;
  /** Set by a plugin whose credential the next hop may want again in another form. */
  credential: AttachedCredential | undefined;
  /** Set by a plugin whose credential covers what is sent. */
  signer: RequestSigner | undefined;
  /** The signature that the client made was taken, and is made anew over what leaves: it may be changed. */
  isResigned = false;
  /** Set when the message leaves for the next hop. */
  onward: Onward | undefined;
  /** The client's version of HTTP: `1.0`, `1.1` or `2.0`; absent in a tunnel. */
  readonly httpVersion: string | undefined;
  /** Nobody waits for the verdict: a rehearsal, a tunnel that is judged again, a step under `observe`. */
  isHypothetical = false;
  /** A tunnel that is judged again by other rules: what it took when it was opened is not taken again. */
  isOpen = false;
  /** Set where the client can be told meanwhile that a person is asked. */
  holder: Holder | undefined;
  /** Filled in at the connect stage. */
  readonly tunnelTerms: TunnelTerms = { mustInspect: undefined, keepTls: false };
  #identity: Identity | undefined;
  readonly #muted: boolean;
  #states: Map<object, unknown> | undefined;
  #facts: Facts | undefined;
  #path: string;
  #pathname: string | undefined;
  #sentPath: string | undefined;
  #sentBody: Buffer | undefined;
  #echo: Echo | undefined;
  #stored: Set<string> | undefined;
  #addressLimits: readonly AddressSet[] = [];
  #replyFields: ReplyFields | undefined;

  constructor(facts: RequestFacts, muted = false) {
    this.flow = facts.flow;
    this.stage = facts.stage;
    this.method = facts.method;
    this.#path = facts.path;
    this.host = facts.host;
    this.headers = facts.headers;
    this.hasBody = facts.hasBody;
    this.cancellation = facts.cancellation;
    this.upgrade = facts.upgrade;
    this.httpVersion = facts.httpVersion;
    this.#muted = muted;
  }

  /** Aborts when the client is gone or the process gives up on the flow. */
  get signal(): AbortSignal {
    return this.cancellation.signal;
  }

  /** Path and query as they will be sent: those of the request, unless a plugin replaced them. */
  get path(): string {
    return this.#path;
  }

  /** Sends this path and query instead; plugins that follow judge them. */
  rewritePath(path: string): void {
    if (this.#muted) return;
    this.#path = path;
    this.#pathname = undefined;
  }

  /** The path on the wire: {@link path}, unless a credential replaced a stand-in in it. It is never recorded. */
  get sentPath(): string {
    return this.#sentPath ?? this.#path;
  }

  /** Sends this path and query, which hold a credential; {@link path} stays what was judged and is recorded. */
  attachToPath(path: string): void {
    if (!this.#muted) this.#sentPath = path;
  }

  /** Fields that every response has which the proxy itself makes for this message, where it has none of that name. */
  get replyFields(): ReplyFields | undefined {
    return this.#replyFields;
  }

  setReplyFields(fields: ReplyFields): void {
    if (!this.#muted) this.#replyFields = fields;
  }

  /** The body on the wire, where a credential replaced a stand-in in {@link body}. It is never recorded, nor judged. */
  get sentBody(): Buffer | undefined {
    return this.#sentBody;
  }

  /** Sends this body, which holds a credential and has no Content-Encoding; {@link body} stays what was judged. */
  attachToBody(bytes: Buffer): void {
    if (!this.#muted) this.#sentBody = bytes;
  }

  /** What must not come back in the response; undefined where nothing is concealed. */
  get echo(): Echo | undefined {
    return this.#echo;
  }

  /** A stored credential was attached, which is for the destination alone: nobody else is shown it as a token. */
  noteStored(credential: string): void {
    if (!this.#muted) (this.#stored ??= new Set()).add(credential);
  }

  isStored(text: string): boolean {
    return this.#stored?.has(text) === true;
  }

  /** Puts the stand-in back wherever the response repeats the credential; `onFound` tells once that it did. */
  conceal(credential: string, standIn: string, onFound?: () => void): void {
    if (this.#muted) return;
    this.#echo ??= new Echo();
    this.#echo.add(credential, standIn, onFound);
  }

  /** The same for what only redirects and error pages repeat: the bodies of other responses go by unread. */
  concealInRefusals(credential: string, standIn: string, onFound?: () => void): void {
    if (this.#muted) return;
    this.#echo ??= new Echo();
    this.#echo.add(credential, standIn, onFound, false);
  }

  /** The ranges that the address dialled must be in, all of them; empty where no plugin named any. */
  get addressLimits(): readonly AddressSet[] {
    return this.#addressLimits;
  }

  /** Lets only addresses of these ranges be dialled. It also opens private ones among them, nothing else. */
  limitAddresses(ranges: AddressSet): void {
    if (!this.#muted) this.#addressLimits = [...this.#addressLimits, ranges];
  }

  /** Views that parsers made, by name (`mcp`, `a2a`, `inference`), for the record and for later plugins. */
  get facts(): Facts {
    this.#facts ??= new Map() as Facts;
    return this.#facts;
  }

  /** True when some parser left a view. */
  get hasFacts(): boolean {
    return this.#facts !== undefined && this.#facts.size > 0;
  }

  /** Where the bytes will go. Nothing a plugin does can change it. */
  get destination(): Destination {
    return this.flow.destination;
  }

  get identity(): Identity | undefined {
    return this.#identity;
  }

  setIdentity(identity: Identity): void {
    this.#identity = identity;
  }

  /** The request body, when a plugin of this pipeline asked for bodies and the message had one. */
  get body(): Buffer | undefined {
    return this.content.bytes;
  }

  /** The request body without its Content-Encoding, or why it cannot be read; absent where {@link body} is. */
  get clearBody(): DecodedBody | undefined {
    return this.content.clear;
  }

  /** Replaces the request body; Content-Length and Content-Encoding follow by themselves. */
  setBody(bytes: Buffer): void {
    if (!this.#muted) this.content.replace(bytes);
  }

  /** State that one plugin instance keeps from its request phase to its response phase. */
  stateOf<T>(owner: object, initial: () => T): T {
    this.#states ??= new Map();
    if (!this.#states.has(owner)) this.#states.set(owner, initial());
    return this.#states.get(owner) as T;
  }

  /** Path without the query. Records keep it for longer than the request. */
  get pathname(): string {
    return (this.#pathname ??= ownText(this.#path.split("?", 1)[0] ?? ""));
  }

  /**
   * A copy for a plugin under `on_error: observe`: it reads what is there, and nothing that it sets, deletes or
   * replaces reaches the wire or a later plugin. Parsers' facts are shared, because reading is not acting.
   */
  shadow(): RequestContext {
    const copy = new RequestContext(
      {
        flow: this.flow,
        stage: this.stage,
        method: this.method,
        path: this.path,
        host: this.host,
        headers: this.headers.clone(),
        hasBody: this.hasBody,
        cancellation: this.cancellation,
        upgrade: this.upgrade,
        httpVersion: this.httpVersion,
      },
      true,
    );
    const { bytes, clear } = this.content;
    if (bytes !== undefined) copy.content.load(bytes, clear);
    copy.unread = this.unread;
    copy.isStreamed = this.isStreamed;
    copy.isHypothetical = true;
    copy.isOpen = this.isOpen;
    copy.isResigned = this.isResigned;
    if (this.#identity !== undefined) copy.#identity = this.#identity;
    if (this.response !== undefined) copy.response = this.response.shadow();
    copy.sessionId = this.sessionId;
    copy.tiedBy = this.tiedBy;
    copy.onward = this.onward;
    copy.messages = this.messages;
    copy.delegation.push(...this.delegation);
    copy.#stored = this.#stored;
    this.#states ??= new Map();
    copy.#states = this.#states;
    if (this.hasFacts) for (const [name, fact] of this.facts) copy.facts.set(name, fact);
    return copy;
  }
}
