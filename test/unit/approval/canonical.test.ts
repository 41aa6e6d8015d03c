import { describe, expect, test } from "vitest";
import { canonicalRequest } from "../../../src/approval/canonical.ts";
import { message, type MessageShape } from "../../support/plugin-bench.ts";

const textOf = (shape: MessageShape): string | undefined => canonicalRequest(message(shape))?.text;
const json = { "Content-Type": "application/json" };
const call = (over: object = {}, params: object = {}): MessageShape => ({
  headers: json,
  body: {
    jsonrpc: "2.0",
    id: 1,
    method: "tools/call",
    params: { name: "pay", arguments: { to: "a", amount: 1 }, ...params },
    ...over,
  },
});

describe("a call of JSON-RPC", () => {
  test.each<[string, MessageShape]>([
    ["another id", call({ id: 2 })],
    ["another kind of id", call({ id: "x" })],
    ["a progress token", call({}, { _meta: { progressToken: 7 } })],
    ["arguments in another order", call({}, { arguments: { amount: 1, to: "a" } })],
    ["a trace", { ...call(), headers: { ...json, traceparent: "00-1-2-01" } }],
  ])("with %s is the same", (_name, shape) => {
    expect(textOf(shape)).toBe(textOf(call()));
  });

  test.each<[string, MessageShape]>([
    ["another tool", call({}, { name: "Pay" })],
    ["another argument", call({}, { arguments: { to: "a", amount: 2 } })],
    ["an argument more", call({}, { arguments: { to: "a", amount: 1, more: null } })],
    ["a text for a number", call({}, { arguments: { to: "a", amount: "1" } })],
    ["notes besides", call({}, { _meta: { progressToken: 7, other: 1 } })],
    ["a member besides", call({ other: 1 })],
    ["no id", call({ id: undefined })],
    ["another caller", { ...call(), client: { caller: "other" } }],
    ["another address", { ...call(), client: { address: "127.0.0.2" } }],
    ["another host", { ...call(), to: "api.example.org:80" }],
    ["another field", { ...call(), headers: { ...json, "X-Tenant": "b" } }],
    [
      "a field whose name begins as those for a proxy do",
      { ...call(), headers: { ...json, "Proxy-Data": "b" } },
    ],
    ["an id that is no id", call({ id: { to: "b" } })],
    ["an id in which more has room", call({ id: "x".repeat(129) })],
    ["a long progress token", call({}, { _meta: { progressToken: "x".repeat(129) } })],
    [
      "the Host of another service behind the proxy",
      { ...call(), headers: { ...json, Host: "b" } },
    ],
    ["a progress token that is none", call({}, { _meta: { progressToken: { to: "b" } } })],
  ])("with %s is another", (_name, shape) => {
    expect(textOf(shape)).not.toBe(textOf(call()));
  });

  test("what asks for another protocol is another request, and says so", () => {
    const upgrade = { headers: { "Sec-WebSocket-Key": "k" }, upgrade: "websocket" };
    const plain = textOf({ headers: { "Sec-WebSocket-Key": "k" } });
    expect(textOf(upgrade)).not.toBe(plain);
    expect(textOf(upgrade)).not.toBe(textOf({ ...upgrade, upgrade: "other" }));
    expect(canonicalRequest(message({ upgrade: "a\u200bb" }))?.shown.upgrade).toBe("a\\u{200b}b");
  });

  test("numbers that JavaScript would round are told apart", () => {
    const amount = (digits: string): MessageShape => ({
      headers: json,
      body: `{"jsonrpc":"2.0","id":1,"method":"m","params":{"n":${digits}}}`,
    });
    expect(textOf(amount("9007199254740993"))).not.toBe(textOf(amount("9007199254740992")));
    expect(textOf(amount("1e2"))).not.toBe(textOf(amount("100")));
    expect(textOf(amount("123456789012.34567"))).not.toBe(textOf(amount("123456789012.34568")));
  });

  test("a long text in it is no fault", () => {
    expect(textOf(call({}, { arguments: { said: "x".repeat(9_000_000) } }))).toContain("calls ");
  });
});
