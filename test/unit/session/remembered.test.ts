/** What is remembered of messages holds no more memory than is counted, whatever it was cut out of. */
import { describe, expect, test } from "vitest";
import { BoundedMap } from "../../../src/bounded-map.ts";
import { canonicalRequest } from "../../../src/approval/canonical.ts";
import { canonicalTarget } from "../../../src/http/canonical-target.ts";
import { bounded, parseJsonObject } from "../../../src/http/json-access.ts";
import { HeaderList } from "../../../src/http/headers.ts";
import { parseAbsoluteTarget } from "../../../src/net/destination.ts";
import { Cancellation } from "../../../src/pipeline/cancellation.ts";
import { RequestContext } from "../../../src/pipeline/context.ts";
import { makeFlow } from "../../../src/pipeline/flow.ts";
import { beginTrace } from "../../../src/proxy/flow/trace-facts.ts";
import type { Tracing } from "../../../src/telemetry/flow-trace.ts";
import { PlaceholderStore } from "../../../src/plugins/credentials/placeholder.ts";
import { DenialAggregate } from "../../../src/policy/aggregate.ts";
import { ContentPolicy } from "../../../src/session/content.ts";
import { correlationOf, keysOf } from "../../../src/session/correlation.ts";
import { eventOf, type SessionEvent } from "../../../src/session/event.ts";
import { Redaction } from "../../../src/session/redaction.ts";
import { approximateBytes } from "../../../src/session/size.ts";
import { intentText } from "../../../src/session/turn.ts";
import { RequestHead } from "../../../src/wire/head.ts";
import { heldBy } from "../../support/held-memory.ts";

const many = 16;
const largeBytes = 524_288;

function large(at: number, letter = "a"): string {
  return `${String(at).padStart(40, "0")}${letter.repeat(largeBytes / letter.length)}`;
}

/** A head with a long field, of which nothing is remembered. */
function context(at: number): RequestContext {
  const host = `${at}.a-host-with-a-name.example`;
  const fields = [
    `GET http://${host}/a/path/of/some/length/${at}?q HTTP/1.1`,
    `Host: ${host}`,
    `traceparent: 00-${String(at + 1).padStart(32, "0")}-00f067aa0ba902b7-01`,
    `x-conversation: the conversation number ${at}`,
    `user-agent: an agent with the number ${at}`,
    `x-padding: ${"p".repeat(largeBytes)}`,
  ];
  const head = new RequestHead(Buffer.from(`${fields.join("\r\n")}\r\n`).toString("latin1"), 100);
  const { destination, path } = parseAbsoluteTarget(head.target);
  const client = { address: "127.0.0.1", port: 1 };
  const flow = makeFlow({ direction: "inbound", transport: "http", client, destination });
  const { method, host: named = "" } = head;
  const headers = new HeaderList([...head.rawHeaders]);
  const cancellation = new Cancellation();
  const facts = { flow, stage: "request", method, path, host: named, headers } as const;
  const made = new RequestContext({ ...facts, hasBody: false, cancellation });
  made.sessionId = correlationOf(made, "x-conversation")?.field;
  return made;
}

function spanOf(at: number): unknown {
  const made: unknown[] = [];
  const started = { traceparent: "00-0-0-01" };
  const tracing = {
    start: (begun: { facts: unknown }) => (made.push(begun.facts), started),
  } as unknown as Tracing;
  beginTrace(tracing, context(at));
  return made;
}

const plain = eventOf(context(0), { phase: "request", at: 0 });

function shaped(event: Partial<SessionEvent>, bodies: "off" | "truncated" = "truncated"): object {
  const policy = new ContentPolicy({ bodies, maxChars: 1_000, redaction: new Redaction() });
  return policy.shaped({ ...plain, ...event });
}

function refused(at: number): DenialAggregate {
  const {
    destination: { host, port },
    method,
    path,
  } = context(at);
  const target = canonicalTarget(path);
  const denials = new DenialAggregate();
  const read = target.kind === "target" ? target.path : "";
  denials.record({ host, port, code: "not-permitted", method, path: read }, at);
  return denials;
}

function placed(at: number): PlaceholderStore {
  const token = context(at).headers.get("x-conversation") ?? "";
  const store = new PlaceholderStore({ now: () => 0 });
  store.mint(token, 1_000);
  return store;
}

describe("nothing of what it was cut out of is kept by", () => {
  const params = (at: number): Record<string, unknown> | undefined =>
    parseJsonObject(`{"method":"${large(at)}","text":"${large(at)}"}`);
  test.each<readonly [what: string, make: (at: number) => unknown]>([
    ["a key of a bounded map", (at) => new BoundedMap(2).set(large(at).slice(0, 40), at)],
    ["a bounded text", (at) => bounded(large(at), 40)],
    ["an event", (at) => eventOf(context(at), { phase: "request", at })],
    [
      "values by which messages find each other",
      (at) => keysOf(correlationOf(context(at), "x-conversation")),
    ],
    ["the facts of a span", spanOf],
    ["truncated content", (at) => shaped({ mcp: params(at) })],
    ["names without content", (at) => shaped({ mcp: params(at) }, "off")],
    ["the path of a step", (at) => shaped({ httpPath: large(at) })],
    ["what policies refused", refused],
    ["a token behind a handle", placed],
    ["a question for a person", (at) => canonicalRequest(context(at))?.shown],
    ["an intent", (at) => [intentText({ text: large(at) })]],
  ])("%s", (_what, make) => {
    const held = heldBy(() => Array.from({ length: many }, (_, at) => make(at)));
    expect(held).toBeLessThan((many * largeBytes) / 2);
  });
});

test("long names in strangers' JSON are not remembered", () => {
  const held = heldBy(() => {
    const redaction = new Redaction();
    for (let at = 0; at < many; at += 1)
      expect(redaction.isSecretName(large(at, "token"))).toBe(false);
    return redaction;
  });
  expect(held).toBeLessThan((many * largeBytes) / 2);
});

test("names count as the values below them do", () => {
  const names = Array.from({ length: 100 }, (_, at) => [String(at).padStart(200, "n"), 1]);
  const mcp: unknown = Object.fromEntries(names);
  expect(approximateBytes({ ...plain, mcp }) - approximateBytes(plain)).toBeGreaterThan(100 * 200);
});
