/** What a command tried to reach through the doctor's proxy, read from the lines of the flow log. */
import { type Finding, fail, pass, skip } from "./report.ts";

type Line = Readonly<Record<string, unknown>>;

/** A command can reach any number of hosts; nobody reads more lines than this. */
const maxKinds = 200;

/** Collects flows and tells them host by host. */
export class ObservedTraffic {
  /** Findings by what they say, in order of first appearance. */
  readonly #kinds = new Map<string, { readonly finding: Finding; count: number }>();
  #omitted = 0;

  /** Takes a log line; only flows of agents are looked at. */
  hear(line: Line): void {
    if (line["msg"] !== "flow" || line["direction"] !== "outbound") return;
    const finding = findingOf(line);
    const known = this.#kinds.get(finding.text);
    if (known !== undefined) known.count += 1;
    else if (this.#kinds.size < maxKinds) this.#kinds.set(finding.text, { finding, count: 1 });
    else this.#omitted += 1;
  }

  findings(): Finding[] {
    const told = [...this.#kinds.values()].map(({ finding, count }) =>
      count === 1 ? finding : { ...finding, text: `${finding.text} (${count} times)` },
    );
    if (this.#omitted > 0) told.push(skip(`${this.#omitted} more flows`));
    if (told.length > 0) return told;
    return [
      fail(
        "the command reached nothing through the proxy",
        "it made no request, or its client reads no proxy variable: see docs/trust.md for its language",
      ),
    ];
  }
}

function findingOf(line: Line): Finding {
  const host = textOf(line, "host");
  const transport = textOf(line, "transport");
  const code = textOf(line, "code");
  const what = transport === "connect" ? `CONNECT ${host}` : `${textOf(line, "method")} ${host}`;
  if (code === "tls.client-rejected") {
    return fail(
      `${what}: the command did not trust the certificate of the bridge`,
      "its TLS library reads none of the variables that env prints: give it ca.crt in its own way (docs/trust.md), or list the host in tls_bridge.passthrough_hosts",
    );
  }
  switch (textOf(line, "outcome")) {
    case "ok":
      return pass(`${what}: ${howItWent(line, transport)}`);
    case "cancelled":
      return skip(`${what}: the command left before the end`);
    default:
      return fail(`${what}: ${code}: ${textOf(line, "reason")}`, remedyOf(line));
  }
}

function howItWent(line: Line, transport: string): string {
  const status = textOf(line, "status");
  if (transport === "connect") {
    const bridged = textOf(line, "bridged");
    return bridged === ""
      ? "tunnelled without looking inside; the command judged the origin's own certificate"
      : `opened by the bridge (${bridged}), its certificate was trusted`;
  }
  return transport === "bridge" ? `answered ${status} inside TLS` : `answered ${status}`;
}

function remedyOf(line: Line): string {
  const plugin = textOf(line, "plugin");
  if (textOf(line, "outcome") === "unavailable")
    return `${plugin} could not judge it: see that what it asks answers`;
  if (plugin !== "") return `${plugin} refused it: change its config if that is not meant`;
  const code = textOf(line, "code");
  if (code.startsWith("policy."))
    return "the outbound pipeline refused it: name the host in a plugin, or see pipeline.outbound.default";
  if (code.startsWith("upstream.")) return "the origin failed; the words before this say how";
  return "see docs/trust.md";
}

function textOf(line: Line, key: string): string {
  const value = line[key];
  return typeof value === "string" || typeof value === "number" ? String(value) : "";
}
