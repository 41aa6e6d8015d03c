/** A session event as one line for a terminal. */

/** As it comes from the session API: nothing is certain. */
export type WireEvent = Readonly<Record<string, unknown>>;

/** The fields of a plugin's step that are printed. */
interface Step {
  readonly plugin: string;
  readonly action: string;
  readonly reason: string;
  /** What was expected and what came, where a refusal says so. */
  readonly comparison: string;
  readonly isShadow: boolean;
}

type Paint = (text: string) => string;

/** Colours of a terminal; all of them do nothing elsewhere. */
export interface Palette {
  readonly dim: Paint;
  readonly good: Paint;
  readonly bad: Paint;
  readonly odd: Paint;
}

const escape = String.fromCodePoint(27);

/** The colours, or none. */
export function paletteFor(isColoured: boolean): Palette {
  const paint =
    (code: number): Paint =>
    (text) =>
      isColoured ? `${escape}[${code}m${text}${escape}[0m` : text;
  return { dim: paint(2), good: paint(32), bad: paint(31), odd: paint(33) };
}

/** Time, session, direction, decision, what was asked, and who decided why. */
export function eventLine(event: WireEvent, palette: Palette): string {
  const phase = textOf(event, "phase");
  const steps = stepsOf(event);
  const words = [
    palette.dim(timeOf(textOf(event, "at"))),
    short(textOf(event, "sessionId"), 24),
    textOf(event, "direction") === "inbound" ? "in " : "out",
    decisionWord(event, phase, palette),
    statusOf(event),
    targetOf(event),
    subjectOf(event),
    reasonOf(event, steps),
    palette.dim(viewOf(event)),
    durationOf(event, palette),
  ];
  // Remote input must neither add lines nor send control sequences to the terminal.
  return words.filter((word) => word !== "" && word !== palette.dim("")).join("  ");
}

/** The plugins that took part in a message. */
export function stepsOf(event: WireEvent): readonly Step[] {
  const given = event["invocations"];
  if (typeof given !== "object" || given === null) return [];
  return Object.values(given).flatMap((list: unknown) =>
    (Array.isArray(list) ? list : []).map((step: unknown) => ({
      plugin: textOf(step, "plugin"),
      action: textOf(step, "action"),
      reason: textOf(step, "cause") || textOf(step, "reason"),
      comparison: comparisonOf(valueOf(step, "details")),
      isShadow: valueOf(step, "shadow") === true,
    })),
  );
}

function comparisonOf(details: unknown): string {
  const [claim, expected, found] = ["claim", "expected", "found"].map((key) =>
    textOf(details, key),
  );
  if (expected === "" || expected === undefined) return "";
  const what = claim === "" ? "" : `${claim} `;
  return ` (${what}expected ${short(expected, 80)}, found ${short(found ?? "", 80)})`;
}

/** A text member, cleaned; empty when there is none. */
export function textOf(value: unknown, key: string): string {
  const found = valueOf(value, key);
  return typeof found === "string" ? printableLine(found) : "";
}

/** Whether the message was refused by a check, and not because a check could not be made. */
export function isRefusal(event: WireEvent): boolean {
  const kind = textOf(event["error"], "kind");
  return kind === "policy" || (textOf(event, "phase") === "denied" && kind !== "backend_error");
}

/** Whether the message failed without being refused. */
export function isFault(event: WireEvent): boolean {
  const status = event["statusCode"];
  const error = valueOf(event, "error");
  if (isRefusal(event)) return false;
  // An error whose code is the status repeats it: that is what an origin answered.
  const isFailure = error !== undefined && textOf(error, "code") !== String(status);
  return isFailure || (typeof status === "number" && status >= 500);
}

function valueOf(value: unknown, key: string): unknown {
  return typeof value === "object" && value !== null
    ? (value as Readonly<Record<string, unknown>>)[key]
    : undefined;
}

/** Of the reader's own day; the date is in `--json`. */
function timeOf(at: string): string {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return "--:--:--";
  const pad = (number: number, length = 2): string => String(number).padStart(length, "0");
  const clock = [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => pad(part));
  return `${clock.join(":")}.${pad(date.getMilliseconds(), 3)}`;
}

function decisionWord(event: WireEvent, phase: string, palette: Palette): string {
  if (isRefusal(event)) return palette.bad("deny  ");
  if (isFault(event)) return palette.bad("error ");
  if (phase === "response") return "answer";
  return stepsOf(event).some(({ isShadow }) => isShadow)
    ? palette.odd("shadow")
    : palette.good("allow ");
}

function statusOf(event: WireEvent): string {
  const status = event["statusCode"];
  return typeof status === "number" ? String(status) : "";
}

function targetOf(event: WireEvent): string {
  const method = textOf(event, "httpMethod");
  return `${method === "" ? "" : `${method} `}${textOf(event, "host")}${short(textOf(event, "httpPath"), 80)}`;
}

function subjectOf(event: WireEvent): string {
  const subject = textOf(event["identity"], "subject");
  return subject === "" ? "" : `as ${short(subject, 32)}`;
}

/** The step that decided, else what the error says. */
function reasonOf(event: WireEvent, steps: readonly Step[]): string {
  const deciding = steps.filter(({ action }) => action !== "skip" && action !== "observe");
  const told = deciding
    .map(({ plugin, reason, comparison }) => `${plugin}: ${reason}${comparison}`)
    .join(", ");
  const message = textOf(event["error"], "message");
  return [told, short(message, 160)].filter((text) => text !== "").join(" – ");
}

/** What parsers saw, in two words. */
function viewOf(event: WireEvent): string {
  const words = ["mcp", "a2a"].flatMap((name) => {
    const method = textOf(event[name], "method");
    if (method === "") return [];
    const tool = textOf(valueOf(event[name], "params"), "name");
    return [`${name} ${method}${tool === "" ? "" : ` ${tool}`}`];
  });
  const model = textOf(event["inference"], "model");
  if (model !== "") {
    const tokens = valueOf(event["inference"], "totalTokens");
    words.push(typeof tokens === "number" && tokens > 0 ? `${model} ${tokens} tokens` : model);
  }
  return words.length === 0 ? "" : `[${words.join("; ")}]`;
}

function durationOf(event: WireEvent, palette: Palette): string {
  const duration = event["durationMs"];
  return typeof duration === "number" ? palette.dim(`${duration} ms`) : "";
}

function short(text: string, length: number): string {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

/** C0 and C1 controls: a terminal obeys U+009B as it does ESC [. Then the marks that turn the direction of what follows. */
const controls = String.raw`\u0000-\u001f\u007f-\u009f`;
const directionMarks = String.raw`\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069`;
const unprintable = new RegExp(`[${controls}${directionMarks}]+`, "g");
const unescaped = new RegExp(`[${controls}${directionMarks}]`, "g");

/** Removes line breaks and control sequences, which a server's reason or a host name may contain. */
export function printableLine(text: string): string {
  return text.replace(unprintable, " ");
}

/** JSON without control sequences for the terminal; it parses to the same value. */
export function printableJson(value: unknown, indent?: number): string {
  // JSON escapes only what is below U+0020. Line ends stay: inside of strings they are escaped already.
  return JSON.stringify(value, null, indent).replace(unescaped, (character) =>
    character === "\n" ? character : escapeOf(character),
  );
}

function escapeOf(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}
