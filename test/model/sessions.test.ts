/** Sessions: a message belongs to the conversation that it follows from, or to none; never to somebody else's. */
import { type Arbitrary, boolean, constantFrom, nat, record } from "fast-check";
import { expect } from "vitest";
import { HeaderList } from "../../src/http/headers.ts";
import { parseAuthority } from "../../src/net/destination.ts";
import { Cancellation } from "../../src/pipeline/cancellation.ts";
import { RequestContext } from "../../src/pipeline/context.ts";
import { type Direction, makeFlow } from "../../src/pipeline/flow.ts";
import { Attribution } from "../../src/session/attribution.ts";
import { TurnLedger } from "../../src/session/ledger.ts";
import { SharedTies } from "../../src/session/shared-ties.ts";
import { MemoryStore } from "../../src/state/memory-store.ts";
import { stateUnavailable } from "../../src/state/store.ts";
import { ends, Outside, promise, step, stoppedClock, waits, type World } from "./interleaving.ts";
import { SlowStore } from "./slow-store.ts";

stoppedClock();

const ttlMs = 30_000;

interface Inbound {
  readonly replica: number;
  /** The conversation, which belongs to the user of the same name. */
  readonly session: "ann" | "ben" | "cem";
  /** Its name is in the response only. */
  readonly isNamedLate: boolean;
  readonly trace: boolean;
  /** A credential, which the agent may pass on. */
  readonly bearer: boolean;
}

interface Outbound {
  readonly replica: number;
  /** Of the message that the agent works on: nothing, its trace, its user's credential. */
  readonly marks: "none" | "trace" | "bearer" | "both";
  readonly from: number;
}

interface Turn extends Inbound {
  readonly context: RequestContext;
  readonly id: number;
  isAnswered: boolean;
  isOpen: boolean;
  readonly startedAt: number;
  endedAt: number;
  /** The agent has the message. */
  isServed: boolean;
}

interface Sent extends Outbound {
  readonly context: RequestContext;
  readonly cause: Turn;
  isOver: boolean;
}

/** One process, or several that share a store. */
class Agents implements World {
  readonly outside = new Outside(() => stateUnavailable("test"));
  readonly #attributions: readonly Attribution[];
  readonly #turns: Turn[] = [];
  readonly #sent: Sent[] = [];

  constructor(replicas: number) {
    const shared = new MemoryStore({ maxBytes: 10_000_000, clock: Date });
    const store = { rekey: () => undefined, intentOf: () => undefined, someIntents: () => [] };
    this.#attributions = Array.from({ length: replicas }, () => {
      const slow = new SlowStore(shared, this.outside);
      const ties =
        replicas === 1
          ? undefined
          : new SharedTies({ store: slow, ttlMs, refusesWhenAway: true, clock: Date });
      return new Attribution({ ledger: new TurnLedger({ store, ttlMs, clock: Date, ties }) });
    });
  }

  receive(inbound: Inbound): void {
    const id = this.#turns.length + 1;
    const { session, isNamedLate, trace, bearer } = inbound;
    const context = message("inbound", {
      ...(trace ? traceOf(id) : {}),
      ...(bearer ? { authorization: bearerOf(session) } : {}),
    });
    context.facts.set("a2a", said(session, isNamedLate ? undefined : session));
    const state = { isAnswered: false, isOpen: true, endedAt: Infinity, isServed: false };
    const turn = { ...inbound, context, id, startedAt: Date.now(), ...state };
    this.#turns.push(turn);
    const pending = this.#of(inbound.replica).permitted(context);
    if (pending === undefined) turn.isServed = true;
    else void pending.then(() => (turn.isServed = true));
  }

  /** The response of the agent begins, and may say what the conversation is called. */
  answer(at: number): void {
    const turn = this.#open(at);
    if (turn === undefined || turn.isAnswered) return;
    turn.isAnswered = true;
    turn.context.facts.set("a2a", said(turn.session, turn.session));
    this.#of(turn.replica).ending(turn.context);
  }

  finish(at: number): void {
    const turn = this.#open(at);
    if (turn === undefined) return;
    this.answer(this.#turns.filter(({ isOpen }) => isOpen).indexOf(turn));
    turn.isOpen = false;
    turn.endedAt = Date.now();
    this.#of(turn.replica).finished(turn.context);
  }

  /** The agent sends something for a message that it has, also late. */
  send(outbound: Outbound): void {
    const known = this.#turns.filter(({ isServed }) => isServed);
    const cause = known[outbound.from % Math.max(1, known.length)];
    if (cause === undefined) return;
    const { marks, replica: anywhere } = outbound;
    const hasTrace = marks === "trace" || marks === "both";
    const hasBearer = (marks === "bearer" || marks === "both") && cause.bearer;
    // An agent without marks is one whose work ends with its response, beside the proxy that the message came through.
    const isMarked = hasTrace || hasBearer;
    if (!isMarked && (cause.isAnswered || this.#attributions.length > 1)) return;
    // Of several who share a credential, it names those who are being served.
    if (!hasTrace && hasBearer && cause.isAnswered) return;
    // What is remembered of a conversation ends.
    if (Date.now() - cause.endedAt >= ttlMs) return;
    const replica = isMarked ? anywhere : cause.replica;
    const context = message("outbound", {
      ...(hasTrace ? { traceparent: cause.context.headers.get("traceparent") ?? "" } : {}),
      ...(hasBearer ? { authorization: bearerOf(cause.session) } : {}),
    });
    const sent: Sent = { ...outbound, replica, context, cause, isOver: false };
    const attribution = this.#of(replica);
    const arriving = attribution.arrived(context);
    const permitted = (): void => {
      // What the store took longer for than it remembers is nobody's.
      if (this.#attributions.length > 1 && Date.now() - cause.startedAt >= ttlMs) return;
      void attribution.permitted(context);
      this.#sent.push(sent);
    };
    if (arriving === undefined) permitted();
    else void arriving.then(permitted, () => undefined);
  }

  respond(at: number): void {
    const sent = this.#sent[at % Math.max(1, this.#sent.length)];
    if (sent === undefined || sent.isOver) return;
    sent.isOver = true;
    this.#of(sent.replica).finished(sent.context);
  }

  check(): void {
    for (const { context, cause, replica } of this.#sent) {
      const { sessionId } = context;
      const why = `the message of ${cause.session}`;
      if (sessionId !== undefined) expect(sessionId, why).toBe(cause.session);
      const subject = this.#of(replica).subjectOf(context);
      if (subject !== undefined) expect(subject, why).toBe(cause.session);
      const intent = this.#of(replica).intentOf(context);
      if (intent !== undefined) expect(intent.text, why).toBe(`words of ${cause.session}`);
    }
  }

  async end(): Promise<void> {
    await this.outside.endAll(1_000);
    for (const [at] of this.#sent.entries()) this.respond(at);
    while (this.#turns.some(({ isOpen }) => isOpen)) this.finish(0);
    await this.outside.endAll(1_000);
    this.check();
    for (const attribution of this.#attributions) attribution.close();
  }

  #open(at: number): Turn | undefined {
    const open = this.#turns.filter(({ isOpen }) => isOpen);
    return open[at % Math.max(1, open.length)];
  }

  #of(replica: number): Attribution {
    const attribution = this.#attributions[replica % this.#attributions.length];
    if (attribution === undefined) throw new Error("no replica");
    return attribution;
  }
}

function said(user: string, sessionId: string | undefined): object {
  const parts = [{ kind: "text", content: `words of ${user}` }];
  return { method: "message/send", parts, ...(sessionId === undefined ? {} : { sessionId }) };
}

/** Two of them act with one credential. */
function bearerOf(session: Inbound["session"]): string {
  return `Bearer of-${session === "cem" ? session : "both"}`;
}

function traceOf(id: number): { readonly traceparent: string } {
  return { traceparent: `00-${String(id).padStart(32, "0")}-b7ad6b7169203331-01` };
}

function message(direction: Direction, headers: Readonly<Record<string, string>>): RequestContext {
  const destination = parseAuthority("svc.example:80", "http");
  const context = new RequestContext({
    flow: makeFlow({
      direction,
      transport: "http",
      client: { address: "127.0.0.1", port: 1 },
      destination,
    }),
    stage: "request",
    method: "POST",
    path: "/",
    host: "svc.example:80",
    headers: HeaderList.fromRecord(headers),
    hasBody: true,
    cancellation: new Cancellation(),
  });
  return context;
}

const inbound = record({
  replica: nat({ max: 1 }),
  session: constantFrom("ann", "ben", "cem"),
  isNamedLate: boolean(),
  trace: boolean(),
  bearer: boolean(),
}) as Arbitrary<Inbound>;
const outbound = (...marks: Outbound["marks"][]): Arbitrary<Outbound> =>
  record({ replica: nat({ max: 1 }), marks: constantFrom(...marks), from: nat({ max: 7 }) });
const common = [
  step<Agents, Inbound>("receive", inbound, (world, one) => world.receive(one)),
  step<Agents, Inbound>("receive", inbound, (world, one) => world.receive(one)),
  step<Agents, number>("answer", nat({ max: 4 }), (world, at) => world.answer(at)),
  step<Agents, number>("finish", nat({ max: 4 }), (world, at) => world.finish(at)),
  step<Agents, number>("respond", nat({ max: 4 }), (world, at) => world.respond(at)),
  waits<Agents>(1, 10_000, ttlMs),
];
const sends = (...marks: Outbound["marks"][]): (typeof common)[number] =>
  step<Agents, Outbound>("send", outbound(...marks), (world, one) => world.send(one));

promise(
  "what follows from a message belongs to its conversation, or to nobody",
  () => new Agents(1),
  [...common, sends("none", "trace", "bearer", "both"), sends("none", "trace", "bearer", "both")],
);

promise(
  "also where it came through another replica, while the store responds",
  () => new Agents(2),
  [
    ...common,
    sends("trace", "bearer", "both"),
    sends("trace", "bearer", "both"),
    ends<Agents>("done"),
    ends<Agents>("done"),
    step<Agents, number>("end all", nat({ max: 0 }), ({ outside }) => outside.endAll()),
  ],
);
