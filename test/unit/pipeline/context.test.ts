/** One message as plugins see and change it. */
import { expect, test } from "vitest";
import { HeaderList } from "../../../src/http/headers.ts";
import { AddressSet } from "../../../src/net/address.ts";
import { ResponseHalf } from "../../../src/pipeline/context.ts";
import { message } from "../../support/plugin-bench.ts";

test("the path without its query", () => {
  expect(message({ path: "/a/b?c=/d?e" }).pathname).toBe("/a/b");
  expect(message({ path: "/a" }).pathname).toBe("/a");
  const context = message({ path: "/a?x" });
  context.rewritePath("/b?y");
  expect([context.path, context.pathname]).toEqual(["/b?y", "/b"]);
});

test("a body as it came, in the clear, and replaced", () => {
  const { content } = message();
  expect([content.bytes, content.clear, content.replaced]).toEqual([undefined, undefined, false]);
  const encoded = Buffer.from("encoded");
  const clear = { kind: "body", bytes: Buffer.from("clear") } as const;
  content.load(encoded, clear);
  expect([content.bytes, content.clear, content.replaced]).toEqual([encoded, clear, false]);
  const mine = Buffer.from("mine");
  content.replace(mine);
  expect([content.bytes, content.clear, content.replaced]).toEqual([
    mine,
    { kind: "body", bytes: mine },
    true,
  ]);
});

test("state of a plugin instance, one for each instance and message", () => {
  const [first, second] = [{}, {}];
  const context = message();
  const initial = () => ({ count: 0 });
  context.stateOf(first, initial).count += 1;
  expect(context.stateOf(first, initial)).toEqual({ count: 1 });
  expect(context.stateOf(second, initial)).toEqual({ count: 0 });
  expect(message().stateOf(first, initial)).toEqual({ count: 0 });
  // Also what is undefined at first is made once.
  expect(context.stateOf({}, () => undefined)).toBeUndefined();
});

test("limits of addresses add up", () => {
  const context = message();
  const ranges = ["10.0.0.0/8", "192.0.2.0/24"].map((text) => AddressSet.parse([text]));
  for (const range of ranges) context.limitAddresses(range);
  expect(context.addressLimits).toEqual(ranges);
});

test("a shadow has everything to read, and what is done to it reaches nobody", () => {
  const context = message({ path: "/a", body: "sent", headers: { "X-Sent": "1" } });
  const owner = {};
  context.stateOf(owner, () => ({ count: 1 }));
  context.setIdentity({ subject: "user", scopes: [], claims: {} });
  context.facts.set("mine", { seen: true });
  context.sessionId = "s1";
  context.tiedBy = "trace";
  context.messages = { received: 1, sent: 2 };
  context.delegation.push({ subject: "user", audience: "tool", scopes: [], at: 1 });
  context.noteStored("a stored credential");
  context.response = new ResponseHalf(200, new HeaderList(["X-Answer", "1"]));
  context.response.content.load(Buffer.from("answered"));

  const shadow = context.shadow();
  expect(shadow.flow).toBe(context.flow);
  expect(shadow.body?.toString()).toBe("sent");
  expect(shadow.identity?.subject).toBe("user");
  expect(shadow.facts.get("mine")).toEqual({ seen: true });
  expect([shadow.sessionId, shadow.tiedBy]).toEqual(["s1", "trace"]);
  expect(shadow.messages).toEqual(context.messages);
  expect(shadow.delegation).toEqual(context.delegation);
  expect(shadow.isStored("a stored credential")).toBe(true);
  expect(shadow.response?.body?.toString()).toBe("answered");
  expect(shadow.stateOf(owner, () => ({ count: 0 }))).toEqual({ count: 1 });

  shadow.delegation.pop();
  shadow.headers.set("X-Sent", "2");
  shadow.rewritePath("/b");
  shadow.setBody(Buffer.from("changed"));
  shadow.limitAddresses(new AddressSet());
  shadow.facts.set("mine", "changed");
  if (shadow.response === undefined) throw new Error("no response");
  shadow.response.status = 500;
  shadow.response.headers.delete("X-Answer");
  shadow.response.setBody(Buffer.from("changed"));

  expect(context.headers.get("x-sent")).toBe("1");
  expect(context.path).toBe("/a");
  expect(context.delegation).toHaveLength(1);
  expect([context.body?.toString(), context.content.replaced]).toEqual(["sent", false]);
  expect(context.addressLimits).toEqual([]);
  expect(context.facts.get("mine")).toEqual({ seen: true });
  expect(context.response.status).toBe(200);
  expect(context.response.headers.has("x-answer")).toBe(true);
  expect(context.response.body?.toString()).toBe("answered");
});

test("an answer's body that a plugin replaces", () => {
  const half = new ResponseHalf(200, new HeaderList());
  expect(half.body).toBeUndefined();
  half.setBody(Buffer.from("mine"));
  expect([half.body?.toString(), half.content.replaced]).toEqual(["mine", true]);
});
