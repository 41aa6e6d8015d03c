/** A budget that asks: what would be refused waits for a person, goes on a yes, and is counted. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Approver } from "../support/approvals.ts";
import { openTunnel, request, type RawResponse } from "../support/http-client.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import type { Settings } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const scratch = mkdtempSync(join(tmpdir(), "authbridge-budgets-ask-"));
const secret = join(scratch, "operator");
writeFileSync(secret, "operator-secret");
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

let origin: HttpOrigin;
let served: string[] = [];
beforeAll(async () => {
  origin = await own(
    HttpOrigin.launch(({ body }) => {
      served.push(body.toString());
      return reply(200, "done");
    }),
  );
});
beforeEach(() => {
  served = [];
});

const limit = { name: "asked", unit: "requests", limit: 1, window: "day", mode: "ask" };

async function start(
  limits: readonly object[],
  over: Settings = { session: { api_secret_file: secret } },
): Promise<[ProxyProcess, Approver]> {
  const chain = outbound(
    { name: "egress-policy", config: { allow: [origin.authority] } },
    { name: "budgets", config: { limits } },
  );
  const file = merge(settings(chain), over);
  const proxy = await own(ProxyProcess.start(file));
  return [proxy, new Approver(proxy, "operator-secret")];
}

function send(proxy: ProxyProcess, body: string): Promise<RawResponse> {
  const headers = { Host: origin.authority };
  return request(proxy.forward, { method: "POST", target: `${origin.url}/`, headers, body });
}

test("what is above waits, goes on a yes, is counted, and another request is another question", async () => {
  const [proxy, operator] = await start([limit]);
  expect((await send(proxy, "first")).status).toBe(200);
  const waiting = send(proxy, "second");
  const ask = await operator.next();
  expect(ask).toMatchObject({
    plugin: "budgets",
    rule: "asked",
    why: expect.stringContaining('the budget "asked" is used up: 1 of 1 requests (day)'),
    request: { method: "POST", bodyBytes: 6 },
  });
  expect(served).toEqual(["first"]);
  await operator.allow(ask.id);
  expect([(await waiting).status, served]).toEqual([200, ["first", "second"]]);
  const refused = send(proxy, "third");
  const next = await operator.next();
  await operator.deny(next.id, "enough");
  const answer = await refused;
  expect([answer.status, served.length]).toEqual([403, 2]);
  expect(answer.text).toContain("enough");
  const { text } = await request(proxy.address("sessions"), {
    target: "/v1/budgets",
    headers: { Host: "localhost", Authorization: "Bearer operator-secret" },
  });
  expect(text).toContain('"mode":"ask"');
  expect(text).toContain('"used":2,"limit":1');
});

test("a yes does not lift another limit, and bytes that were approved go", async () => {
  const up = { name: "up", unit: "bytes_up", limit: 200, window: "day", mode: "ask" };
  const hard = { name: "hard", unit: "requests", limit: 1, window: "day" };
  const [proxy, operator] = await start([up, hard]);
  const waiting = send(proxy, "x".repeat(4_000));
  await operator.allow((await operator.next()).id);
  expect((await waiting).status).toBe(200);
  const second = send(proxy, "y".repeat(4_000));
  await operator.allow((await operator.next()).id);
  const refused = await second;
  expect([refused.status, refused.text]).toEqual([429, expect.stringContaining('"hard"')]);
  expect(served).toHaveLength(1);
});

test("a CONNECT is held before its 200", async () => {
  const [proxy, operator] = await start([{ ...limit, unit: "bytes_up", refuses: "all" }]);
  const opened = openTunnel(proxy.forward, origin.authority);
  const { client, answer } = await opened;
  await own(client);
  expect(answer.status).toBe(200);
  client.send("x".repeat(100));
  await client.closed;
  const held = openTunnel(proxy.forward, origin.authority);
  const ask = await operator.next();
  expect(ask.request).toMatchObject({ method: "CONNECT" });
  await operator.allow(ask.id);
  const second = await held;
  await own(second.client);
  expect(second.answer.status).toBe(200);
});

test("where nobody can say yes, it is refused with the keys that would help", async () => {
  const [proxy] = await start([limit], {});
  expect((await send(proxy, "first")).status).toBe(200);
  const refused = await send(proxy, "second");
  expect([refused.status, refused.text]).toEqual([
    403,
    expect.stringContaining("set session.api_secret_file or approval.operators"),
  ]);
  expect(served).toEqual(["first"]);
});
