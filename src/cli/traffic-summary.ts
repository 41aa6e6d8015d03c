/** Summarises the flow log of a command: what it tried to reach, and the outcomes. */
import { printableLine } from "./event-line.ts";

type Line = Readonly<Record<string, unknown>>;
type Verdict = "reached" | "refused" | "failed" | "left";

/** Everything of one host that ended in the same way for the same reason. */
interface Entry {
  readonly verdict: Verdict;
  readonly host: string;
  readonly reason: string;
  /** How often, by method. */
  readonly methods: Map<string, number>;
}

/** A command can reach any number of hosts, with any method; nobody reads more lines than this. */
const maxEntries = 200;
const maxMethods = 12;
const order: readonly Verdict[] = ["refused", "failed", "left", "reached"];

/** Where clients say where they want to go. */
const clientSurfaces: ReadonlySet<unknown> = new Set(["forward", "socks"]);

/** Collects flows and tells them host by host, refusals first. */
export class TrafficSummary {
  /** By verdict, host and reason, in order of first appearance. */
  readonly #entries = new Map<string, Entry>();
  readonly #counts: Record<Verdict, number> = { reached: 0, refused: 0, failed: 0, left: 0 };
  #omitted = 0;

  /** Takes a log line; only what the command sent is looked at. */
  hear(line: Line): void {
    const isFlow = line["msg"] === "flow" && line["direction"] === "outbound";
    const isUnreadable = line["msg"] === "refused" && clientSurfaces.has(line["surface"]);
    if (!isFlow && !isUnreadable) return;
    const verdict = verdictOf(line);
    // A tunnel that was looked into is described by the requests inside it.
    const protocol = textOf(line, "bridged") || textOf(line, "opened");
    if (verdict === "reached" && protocol !== "") return;
    this.#counts[verdict] += 1;
    const host = isUnreadable ? "(no destination)" : textOf(line, "host");
    const reason = reasonOf(line, verdict);
    const key = JSON.stringify([verdict, host, reason]);
    let entry = this.#entries.get(key);
    if (entry === undefined) {
      if (this.#entries.size >= maxEntries) {
        this.#omitted += 1;
        return;
      }
      entry = { verdict, host, reason, methods: new Map() };
      this.#entries.set(key, entry);
    }
    countMethod(entry.methods, textOf(line, "method"));
  }

  /** Lines for a terminal, each with its end. */
  toString(): string {
    const entries = [...this.#entries.values()];
    if (entries.length === 0) {
      return "  nothing: it made no request, spoke to this machine only, or its client reads no proxy variable (docs/trust.md)\n";
    }
    const width = Math.max(...entries.map(({ host }) => host.length));
    const lines = order.flatMap((verdict) =>
      entries.filter((entry) => entry.verdict === verdict).map((entry) => wordEntry(entry, width)),
    );
    if (this.#omitted > 0) lines.push(`${this.#omitted} more, not shown`);
    lines.push(wordCounts(this.#counts));
    return lines.map((line) => `  ${printableLine(line)}\n`).join("");
  }
}

function verdictOf(line: Line): Verdict {
  switch (textOf(line, "outcome")) {
    case "ok":
      return "reached";
    case "denied":
      return "refused";
    case "cancelled":
      return "left";
    default:
      return "failed";
  }
}

function reasonOf(line: Line, verdict: Verdict): string {
  if (verdict === "left") return "the command left before the end";
  if (verdict === "reached")
    return textOf(line, "transport") === "connect" ? "tunnelled, not looked into" : "";
  const code = textOf(line, "code");
  if (code === "tls.client-rejected")
    return "the command did not trust the proxy's certificate (docs/trust.md)";
  const words = textOf(line, "reason");
  const by = textOf(line, "plugin");
  return `${by === "" ? code : `${by}, ${code}`}: ${words}`;
}

function countMethod(methods: Map<string, number>, method: string): void {
  const known = methods.has(method) || methods.size < maxMethods;
  const name = known ? method : "others";
  methods.set(name, (methods.get(name) ?? 0) + 1);
}

function wordEntry({ verdict, host, reason, methods }: Entry, width: number): string {
  const counted = [...methods].map(([method, count]) =>
    count === 1 ? method : `${method} ${count} times`,
  );
  const because = reason === "" ? "" : `  ${reason}`;
  return `${verdict}  ${host.padEnd(width)}  ${counted.join(", ")}${because}`;
}

function wordCounts(counts: Readonly<Record<Verdict, number>>): string {
  return order
    .filter((verdict) => counts[verdict] > 0 || verdict === "refused" || verdict === "reached")
    .map((verdict) => `${counts[verdict]} ${verdict}`)
    .join(", ");
}

function textOf(line: Line, key: string): string {
  const value = line[key];
  return typeof value === "string" || typeof value === "number" ? String(value) : "";
}
