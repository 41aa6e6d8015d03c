/** How much of what parsers read in bodies is kept in events: nothing, a bounded part, or all of it; never a secret. */
import { ownText } from "../bounded-map.ts";
import type { Invocation } from "../pipeline/decision.ts";
import type { SessionEvent } from "./event.ts";
import { type Redaction, redacted } from "./redaction.ts";

/** `off` keeps names, ids and counts; `truncated` keeps text up to a bound; `full` keeps all of it. */
export type BodyPolicy = "off" | "truncated" | "full";

/** Options of a {@link ContentPolicy}. */
export interface ContentPolicyOptions {
  readonly bodies: BodyPolicy;
  /** Characters of text per event where bodies are truncated. */
  readonly maxChars: number;
  readonly redaction: Redaction;
}

/** The facts of a view that are no content: what was called, by which model, in which conversation, at what cost. */
const nameKeys: ReadonlySet<string> = new Set([
  "method",
  "rpcId",
  "sessionId",
  "contextId",
  "messageId",
  "taskId",
  "role",
  "model",
  "provider",
  "finalStatus",
  "finishReason",
  "name",
  "uri",
  "kind",
  "type",
  "code",
]);
/** Containers of such facts. */
const nameContainers: ReadonlySet<string> = new Set(["params", "toolCalls", "tools", "error"]);

const cut = "…(truncated)";
const maxNameChars = 256;
const maxNameDepth = 4;
const maxNamedItems = 64;
const leftOverChars = 64;
const maxDepth = 32;
const maxNodes = 20_000;
/** Invocations and errors are texts of this program with at most a few remote values. */
const maxDetailChars = 2_048;

/** Shapes events before they are kept. The views are copied, because their parsers go on writing into them. */
export class ContentPolicy {
  readonly #bodies: BodyPolicy;
  readonly #maxChars: number;
  readonly #redaction: Redaction;

  constructor(options: ContentPolicyOptions) {
    this.#bodies = options.bodies;
    this.#maxChars = options.bodies === "full" ? Number.POSITIVE_INFINITY : options.maxChars;
    this.#redaction = options.redaction;
  }

  /** The event as it may be kept; the same object where there is nothing to change. */
  shaped(event: SessionEvent): SessionEvent {
    const { mcp, a2a, inference, plugins, invocations, error, httpPath } = event;
    let shaped = event;
    if ((mcp ?? a2a ?? inference ?? plugins) !== undefined) shaped = this.#views(event);
    if (invocations !== undefined) {
      const steps = this.#steps(invocations);
      if (steps !== invocations) shaped = { ...shaped, invocations: steps };
    }
    if (error !== undefined) {
      const message = this.#detail(error.message);
      if (message !== error.message) shaped = { ...shaped, error: { ...error, message } };
    }
    if (httpPath !== undefined) {
      const path = this.#detail(httpPath);
      if (path !== httpPath) shaped = { ...shaped, httpPath: path };
    }
    return shaped;
  }

  #views(event: SessionEvent): SessionEvent {
    const copy = new Copy(this.#maxChars, this.#redaction);
    const views: { -readonly [Key in keyof SessionEvent]?: SessionEvent[Key] } = {};
    for (const name of ["mcp", "a2a", "inference"] as const) {
      const view = event[name];
      if (view === undefined) continue;
      views[name] = this.#bodies === "off" ? namesOf(view, this.#redaction, 0) : copy.of(view);
    }
    // What plugins publish of their own is for the operator, and no content of a message.
    if (event.plugins !== undefined) views.plugins = copy.of(event.plugins) as typeof event.plugins;
    return { ...event, ...views };
  }

  #steps(given: NonNullable<SessionEvent["invocations"]>): typeof given {
    let changed: typeof given | undefined;
    for (const direction of ["inbound", "outbound"] as const) {
      const steps = given[direction];
      const clean = steps?.map((step) => this.#step(step));
      if (clean?.some((step, index) => step !== steps?.[index]) === true) {
        changed = { ...given, ...changed, [direction]: clean };
      }
    }
    return changed ?? given;
  }

  #step(step: Invocation): Invocation {
    const path = step.path === undefined ? undefined : this.#detail(step.path);
    let changed =
      path === step.path ? undefined : { ...step, ...(path === undefined ? {} : { path }) };
    for (const key in step.details) {
      const value = step.details[key];
      if (typeof value !== "string") continue;
      const clean = this.#detail(value);
      if (clean === value) continue;
      changed = {
        ...step,
        ...changed,
        details: { ...step.details, ...changed?.details, [key]: clean },
      };
    }
    return changed ?? step;
  }

  #detail(text: string): string {
    const clean = this.#redaction.text(text);
    return clean.length > maxDetailChars ? ownText(clean.slice(0, maxDetailChars) + cut) : clean;
  }
}

/** The facts of a view that are no content. */
function namesOf(view: unknown, redaction: Redaction, depth: number): unknown {
  if (typeof view !== "object" || view === null || depth > maxNameDepth) return undefined;
  if (Array.isArray(view)) {
    return view.slice(0, maxNamedItems).map((item) => namesOf(item, redaction, depth + 1));
  }
  const names: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(view)) {
    if (typeof value === "number" || typeof value === "boolean") names[key] = value;
    else if (typeof value === "string") {
      if (nameKeys.has(key)) names[key] = redaction.text(ownText(value.slice(0, maxNameChars)));
    } else if (nameContainers.has(key)) names[key] = namesOf(value, redaction, depth + 1);
  }
  return names;
}

/** One copy of the views of one event; they share its bounds. */
class Copy {
  readonly #redaction: Redaction;
  #chars: number;
  #nodes = 0;

  constructor(maxChars: number, redaction: Redaction) {
    this.#chars = maxChars;
    this.#redaction = redaction;
  }

  of(value: unknown): unknown {
    return this.#value(value, false, 0);
  }

  #value(value: unknown, isSecret: boolean, depth: number): unknown {
    this.#nodes += 1;
    if (typeof value === "string") return isSecret && value !== "" ? redacted : this.#text(value);
    if (typeof value !== "object" || value === null) return plain(value);
    if (depth >= maxDepth || this.#nodes > maxNodes) return cut;
    if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
    if (Array.isArray(value)) return this.#array(value, isSecret, depth);
    return this.#object(value instanceof Map ? Object.fromEntries(value) : value, isSecret, depth);
  }

  /** The last items first: where room runs out, the newest message of a conversation is the one to keep. */
  #array(items: readonly unknown[], isSecret: boolean, depth: number): unknown[] {
    const copies: unknown[] = [];
    for (const item of items.toReversed()) {
      if (this.#nodes > maxNodes) break;
      copies.push(this.#value(item, isSecret, depth + 1));
    }
    return copies.reverse();
  }

  #object(value: object, isSecret: boolean, depth: number): Record<string, unknown> {
    const copy: Record<string, unknown> = {};
    for (const [key, item] of Object.entries(value)) {
      if (this.#nodes > maxNodes) break;
      const name = this.#redaction.text(key.slice(0, maxNameChars));
      copy[name] = this.#value(item, isSecret || this.#redaction.isSecretName(key), depth + 1);
    }
    return copy;
  }

  #text(text: string): string {
    const room = Math.max(leftOverChars, this.#chars);
    this.#chars -= Math.min(text.length, room);
    // Cut first: what is not kept need not be searched.
    return text.length > room
      ? ownText(this.#redaction.text(text.slice(0, room)) + cut)
      : this.#redaction.text(text);
  }
}

/** What JSON can say of a value without parts. */
function plain(value: unknown): unknown {
  return typeof value === "number" || typeof value === "boolean" || value === null
    ? value
    : undefined;
}
