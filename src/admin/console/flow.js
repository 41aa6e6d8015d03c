/** One message of an agent as the list shows it: the events of a flow, and what follows from them. */

/**
 * @typedef {object} Invocation
 * @property {string} plugin
 * @property {"allow" | "deny" | "skip" | "modify" | "observe"} action
 * @property {"request" | "response"} phase
 * @property {string} reason
 * @property {string} [cause]
 * @property {string} [path]
 * @property {Record<string, string>} [details]
 * @property {boolean} [shadow]
 */

/**
 * An event of the session API; docs/session-api.md has every field.
 *
 * @typedef {object} SessionEvent
 * @property {string} sessionId
 * @property {string} [movedTo]
 * @property {string} at
 * @property {"inbound" | "outbound"} direction
 * @property {"request" | "response" | "denied"} phase
 * @property {string} requestId
 * @property {string} host
 * @property {string} [httpMethod]
 * @property {string} [httpPath]
 * @property {boolean} [bridged]
 * @property {number} [port]
 * @property {string} [executable]
 * @property {boolean} [tunnel]
 * @property {{ received: number, sent: number }} [messages]
 * @property {Record<string, any>} [mcp]
 * @property {Record<string, any>} [a2a]
 * @property {Record<string, any>} [inference]
 * @property {Record<string, any>} [plugins]
 * @property {{ inbound?: Invocation[], outbound?: Invocation[] }} [invocations]
 * @property {{ subject: string, clientId?: string, scopes?: string[] }} [identity]
 * @property {number} [statusCode]
 * @property {number} [durationMs]
 * @property {number} [bytesReceived]
 * @property {number} [bytesSent]
 * @property {string} [caller]
 * @property {{ kind: string, code: string, message: string }} [error]
 */

/** @typedef {"pending" | "allowed" | "observed" | "denied" | "failed"} Verdict */

/** What the list, the filter and the details read. */
export class Flow {
  /** @type {SessionEvent[]} */
  events = [];
  /** Milliseconds since the epoch. */
  at = 0;
  id = "";
  session = "";
  /** @type {"inbound" | "outbound"} */
  direction = "outbound";
  method = "";
  host = "";
  path = "";
  user = "";
  binary = "";
  audience = "";
  caller = "";
  /** Who decided, and by which rule. */
  plugin = "";
  rule = "";
  what = "";
  /** Names of the tools that were called.
   * @type {readonly string[]} */
  tools = [];
  /** A CONNECT or a redirected connection whose TLS was opened: its requests are flows of their own. */
  isOpened = false;
  isTunnel = false;
  /** In the clear, on port 80. */
  isPlain = false;
  /** @type {Verdict} */
  verdict = "pending";
  status = 0;
  /** @type {number | undefined} */
  durationMs = undefined;
  /** @type {number | undefined} */
  bytes = undefined;
  error = "";
  /** Everything that free text is looked for in, in lower case. */
  text = "";

  /** @param {SessionEvent} first */
  constructor(first) {
    this.id = first.requestId;
    this.at = Date.parse(first.at);
    this.direction = first.direction;
    this.take(first);
  }

  /**
   * Adds an event; false when it is known already.
   *
   * @param {SessionEvent} event
   */
  take(event) {
    if (this.events.some(({ phase, at }) => phase === event.phase && at === event.at)) return false;
    this.events.push(event);
    this.session = event.movedTo ?? event.sessionId;
    this.method = event.httpMethod ?? this.method;
    this.host = event.host;
    this.path = event.httpPath ?? this.path;
    this.user = event.identity?.subject ?? this.user;
    this.caller = event.caller ?? this.caller;
    this.status = event.statusCode ?? this.status;
    this.durationMs = event.durationMs ?? this.durationMs;
    if (event.bytesSent !== undefined) this.bytes = event.bytesSent + (event.bytesReceived ?? 0);
    this.error = event.error?.message ?? this.error;
    this.what = whatOf(event) ?? this.what;
    this.#connect(event);
    this.binary = event.executable ?? this.binary;
    const tools = toolsOf(event);
    if (tools.length > 0) this.tools = [...new Set([...this.tools, ...tools])];
    this.#decide(event);
    this.text = [
      this.session,
      this.method,
      this.host,
      this.path,
      this.user,
      this.binary,
      this.audience,
      this.caller,
      this.plugin,
      this.rule,
      this.what,
      ...this.tools,
      this.error,
      String(this.status || ""),
    ]
      .join("\n")
      .toLowerCase();
    return true;
  }

  /** Who asked, in the words that say most: the agent's name, its executable, or its user. */
  get who() {
    return (
      this.caller || this.binary.slice(this.binary.lastIndexOf("/") + 1) || this.user || "agent"
    );
  }

  /** @param {SessionEvent} event */
  #connect({ tunnel, bridged, port }) {
    this.isTunnel ||= tunnel === true;
    this.isOpened ||= bridged === true;
    this.isPlain ||= port === 80;
  }

  /** @param {SessionEvent} event */
  #decide(event) {
    const steps = stepsOf(event);
    for (const { details } of steps) {
      this.binary = details?.["binary"] ?? this.binary;
      this.audience = details?.["audience"] ?? this.audience;
    }
    const decisive = decisiveOf(steps);
    if (event.phase === "denied" && decisive?.action !== "deny") {
      // The proxy itself refused, by an address or a limit.
      this.plugin = "proxy";
      this.rule = event.error?.code ?? "";
    } else if (decisive !== undefined && (this.plugin === "" || decisive.action === "deny")) {
      this.plugin = decisive.plugin;
      this.rule = ruleOf(decisive);
    }
    this.verdict = verdictOf(event, decisive, this.verdict);
  }
}

/**
 * The step that a reader asks about first: a refusal, one that was muted, or who allowed it.
 *
 * @param {readonly Invocation[]} steps
 */
function decisiveOf(steps) {
  return (
    steps.find(({ action, shadow }) => action === "deny" && shadow !== true) ??
    steps.find(({ shadow }) => shadow === true) ??
    steps.find(({ action }) => action === "allow") ??
    steps.find(({ action }) => action === "modify")
  );
}

/** @param {Invocation} step */
function ruleOf({ reason, cause = reason, details }) {
  const { policy, rule } = details ?? {};
  return [...new Set([policy, rule])].filter((part) => part !== undefined).join(" ") || cause;
}

/**
 * @param {SessionEvent} event
 * @param {Invocation | undefined} decisive
 * @param {Verdict} before
 * @returns {Verdict}
 */
function verdictOf({ phase, error, statusCode }, decisive, before) {
  // A check that could not be made is nobody's refusal.
  if (error?.kind === "policy" || (phase === "denied" && error?.kind !== "backend_error"))
    return "denied";
  // An error whose code is the status repeats it: that is what an origin answered.
  if (error !== undefined && error.code !== String(statusCode)) return "failed";
  if (decisive?.shadow === true) return "observed";
  return before === "pending" && phase === "response" ? "allowed" : before;
}

/**
 * @param {SessionEvent} event
 * @returns {Invocation[]}
 */
export function stepsOf({ invocations }) {
  return [...(invocations?.inbound ?? []), ...(invocations?.outbound ?? [])];
}

/**
 * The tools that a message calls.
 *
 * @param {SessionEvent} event
 * @returns {readonly string[]}
 */
export function toolsOf({ mcp, inference }) {
  const called =
    mcp?.["method"] === "tools/call" ? (mcp["params"]?.name ?? mcp["tool"]) : undefined;
  const calls = inference?.["toolCalls"];
  const wanted = Array.isArray(calls)
    ? calls.map((call) => call?.name ?? call?.function?.name)
    : String(inference?.["tools"] ?? "").split(", ");
  return [called, ...wanted].filter((name) => typeof name === "string" && name !== "");
}

/**
 * What parsers saw, in a few words.
 *
 * @param {SessionEvent} event
 * @returns {string | undefined}
 */
function whatOf({ mcp, a2a, inference, messages }) {
  if (messages !== undefined) return `${messages.received} up, ${messages.sent} down`;
  if (mcp !== undefined) {
    const tool = mcp["params"]?.name ?? mcp["tool"] ?? "";
    return ["mcp", mcp["method"], tool].filter(Boolean).join(" ");
  }
  if (a2a !== undefined) return ["a2a", a2a["method"]].filter(Boolean).join(" ");
  if (inference === undefined) return undefined;
  const tokens = inference["totalTokens"] === undefined ? "" : `${inference["totalTokens"]} tokens`;
  return [inference["model"], tokens].filter(Boolean).join(" ");
}
