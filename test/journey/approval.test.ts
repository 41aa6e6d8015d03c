/** Approval by a person: what is asked, who decides, and that a decision is for exactly one request. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Approver } from "../support/approvals.ts";
import { eventually } from "../support/eventually.ts";
import {
  RawClient,
  request,
  statusOf,
  type RawResponse,
  type RequestShape,
} from "../support/http-client.ts";
import { HttpOrigin, reply, TcpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { oneThread, type Settings } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { hasRedis, RedisServer } from "../support/redis.ts";

const own = owner();
const scratch = mkdtempSync(join(tmpdir(), "authbridge-approval-"));
const secretFile = (name: string): string => join(scratch, name);
for (const name of ["operator", "alice", "bob"]) writeFileSync(secretFile(name), `${name}-secret`);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

let origin: HttpOrigin;
let echo: TcpOrigin;
let served: string[] = [];

beforeAll(async () => {
  origin = await own(
    HttpOrigin.launch(({ target, head }) => {
      const isLeaked = head.fields.some(([name]) => /authbridge-approval/i.test(name));
      served.push(`${target}${isLeaked ? " leaked" : ""}`);
      return reply(200, "done");
    }),
  );
  echo = await own(
    TcpOrigin.start(async (connection) => {
      const bytes = await connection.reader.some();
      if (bytes !== undefined) await connection.send(bytes);
    }),
  );
});
beforeEach(() => {
  served = [];
});

function policy(rest: object = {}, port = origin.port): Settings {
  const endpoint = {
    host: "127.0.0.1",
    port,
    protocol: "rest",
    enforcement: "enforce",
    rules: [{ allow: { method: "GET", path: "/**" } }, { ask: { method: "POST", path: "/**" } }],
    ...rest,
  };
  return outbound({
    name: "egress-policy",
    config: { network_policies: { api: { endpoints: [endpoint] } } },
  });
}

async function start(...over: readonly Settings[]): Promise<[ProxyProcess, Approver]> {
  const base = settings({ session: { api_secret_file: secretFile("operator") } });
  const file = over.reduce((sum, one) => merge(sum, one), base);
  const proxy = await own(ProxyProcess.start(file));
  return [proxy, new Approver(proxy, "operator-secret")];
}

function send(proxy: ProxyProcess, over: Change = {}): Promise<RawResponse> {
  return request(proxy.forward, {
    method: "POST",
    target: `${origin.url}/pay`,
    body: "amount=1",
    ...over,
    headers: { Host: origin.authority, ...over.headers },
  });
}

/** What differs from the request that everybody sends. */
type Change = Partial<Omit<RequestShape, "headers">> & {
  readonly headers?: Readonly<Record<string, string>>;
};

const bodyOf = ({ text }: RawResponse): Record<string, unknown> =>
  JSON.parse(text) as Record<string, unknown>;

describe("a held request", () => {
  test("waits, is shown whole, and goes on once it is allowed; the next one like it is asked again", async () => {
    const [proxy, operator] = await start(policy());
    const sent = send(proxy);
    const ask = await operator.next();
    expect(ask).toMatchObject({
      plugin: "egress-policy",
      why: expect.stringContaining("needs an approval"),
      request: { method: "POST", host: "127.0.0.1", path: "/pay", bodyBytes: 8 },
    });
    expect(ask.id).toMatch(/^[\w-]{24}$/);
    expect(served).toEqual([]);
    const decided = await operator.allow(ask.id, { reason: "fine" });
    expect([decided.status, bodyOf(decided)]).toMatchObject([200, { by: ["operator"] }]);
    expect([(await sent).status, served]).toEqual([200, ["/pay"]]);
    expect((await operator.allow(ask.id)).status).toBe(409);
    const again = send(proxy);
    const next = await operator.next();
    expect(next.id).not.toBe(ask.id);
    await operator.deny(next.id, "not twice");
    const refused = await again;
    expect([refused.status, bodyOf(refused)]).toMatchObject([
      403,
      { error: "policy.approval-denied", message: expect.stringContaining("not twice") },
    ]);
    // A refusal stands for a while, without anybody being asked.
    expect((await send(proxy)).status).toBe(403);
    expect(await proxy.metric("authbridge_approvals_total", { event: "asked" })).toBe(2);
    expect(served).toEqual(["/pay"]);
  });

  test("what no rule allows is asked with enforcement: ask, and a deny rule is not", async () => {
    const [proxy, operator] = await start(
      policy({
        enforcement: "ask",
        rules: [{ allow: { method: "GET", path: "/open" } }],
        deny_rules: [{ method: "DELETE", path: "/**" }],
      }),
    );
    expect(
      (await send(proxy, { method: "GET", target: `${origin.url}/open`, body: "" })).status,
    ).toBe(200);
    expect((await send(proxy, { method: "DELETE", body: "" })).status).toBe(403);
    const sent = send(proxy);
    await operator.allow((await operator.next()).id);
    expect((await sent).status).toBe(200);
  });

  test("no look-alike rides on a decision", async () => {
    const [proxy, operator] = await start(policy(), {
      approval: { on_pending: "poll" },
    });
    const first = await send(proxy);
    expect(first.status).toBe(202);
    const { approval, poll } = bodyOf(first) as { approval: string; poll: string };
    expect(first.header("location")).toBe(poll);
    expect(first.header("retry-after")).toBe("5");
    await operator.allow(approval, { scope: "duration", duration: "1h" });
    const url = `${origin.url}/pay`;
    const others: Change[] = [
      { body: "amount=2" },
      { body: "" },
      { headers: { "X-Other": "1" } },
      { headers: { "Content-Type": "text/plain" } },
      { target: `${url}/` },
      { target: `${origin.url}/Pay` },
      { target: `${origin.url}/%70ay` },
      { target: `${url}?a=1` },
      { target: `${origin.url}//pay` },
      { method: "PUT" },
      { headers: { "Authbridge-Approval": approval }, body: "amount=2" },
    ];
    for (const other of others) {
      const { status } = await send(proxy, other);
      expect([status, other]).not.toEqual([200, other]);
    }
    expect(served).toEqual([]);
    expect((await send(proxy)).status).toBe(200);
    expect((await send(proxy, { headers: { "Authbridge-Approval": approval } })).status).toBe(200);
    expect(served).toEqual(["/pay", "/pay"]);
  });

  test("polling: it says how it stands, passes once, and the id of another request counts for nothing", async () => {
    const [proxy, operator] = await start(policy(), {
      approval: { on_pending: "poll", retry_after: "90s" },
    });
    const first = await send(proxy);
    expect(first.header("retry-after")).toBe("90");
    const { approval, poll } = bodyOf(first) as { approval: string; poll: string };
    const look = (): Promise<RawResponse> =>
      request(proxy.forward, { target: origin.url + poll, headers: { Host: origin.authority } });
    const pending = await look();
    expect(bodyOf(pending)).toMatchObject({ status: "pending", approval });
    expect(pending.header("retry-after")).toBe("90");
    expect(bodyOf(await send(proxy))).toMatchObject({ approval });
    await operator.allow(approval);
    expect([(await look()).status, bodyOf(await look())]).toMatchObject([
      200,
      { status: "allowed" },
    ]);
    const all = await Promise.all(Array.from({ length: 20 }, () => send(proxy)));
    expect(all.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(served).toEqual(["/pay"]);
    const late = await send(proxy, { headers: { "Authbridge-Approval": approval } });
    expect(late.status).toBe(403);
    expect((await look()).status).toBe(410);
  });

  test("a hundred that differ wait at once; a hundred that do not are one question", async () => {
    const [proxy, operator] = await start(policy());
    const others = Array.from({ length: 100 }, async (_, at) => send(proxy, { body: `n=${at}` }));
    const asks = await operator.waitFor(100);
    await Promise.all(asks.map(({ id }) => operator.allow(id)));
    expect((await Promise.all(others)).filter(({ status }) => status === 200)).toHaveLength(100);
    const same = Array.from({ length: 100 }, async () => send(proxy));
    const ask = await operator.next();
    await eventually(
      async () => (await proxy.metric("authbridge_approvals_total", { event: "joined" })) === 99,
    );
    await operator.allow(ask.id, { scope: "duration", duration: "1m" });
    expect((await Promise.all(same)).filter(({ status }) => status === 200)).toHaveLength(100);
  });

  test("approved once, one of those that wait passes", async () => {
    const [proxy, operator] = await start(policy());
    const same = Array.from({ length: 5 }, async () => send(proxy));
    await eventually(
      async () => (await proxy.metric("authbridge_approvals_total", { event: "joined" })) === 4,
    );
    await operator.allow((await operator.next()).id);
    const statuses = (await Promise.all(same))
      .map(({ status }) => status)
      .toSorted((one, other) => one - other);
    expect(statuses).toEqual([200, 403, 403, 403, 403]);
    expect(served).toEqual(["/pay"]);
  });

  test("bounds: too many are refused, the hold and the question end, and a client may leave", async () => {
    const [proxy, operator] = await start(policy(), {
      approval: { hold: "300ms", expires: "1500ms", max_pending_per_caller: 2 },
    });
    const late = await send(proxy);
    expect(bodyOf(late)).toMatchObject({ error: "policy.approval-pending" });
    const gone = await own(RawClient.connect(proxy.forward));
    gone.write({ method: "POST", target: `${origin.url}/gone`, body: "x" });
    await operator.waitFor(2);
    gone.close();
    await eventually(
      async () => (await proxy.metric("authbridge_approvals_total", { event: "cancelled" })) === 1,
    );
    expect(bodyOf(await send(proxy, { body: "third" }))).toMatchObject({
      error: "policy.approval-denied",
      message: expect.stringContaining("approval.max_pending_per_caller"),
    });
    await operator.waitFor(0);
    expect(await proxy.metric("authbridge_approvals_total", { event: "expired" })).toBe(2);
    expect(await proxy.metric("authbridge_approvals_held")).toBe(0);
    expect(served).toEqual([]);
  });

  test("max_held: who finds all places taken is refused, and one that is left is free again", async () => {
    const [proxy, operator] = await start(
      policy(),
      oneThread("places are those of a thread", { approval: { max_held: 1 } }),
    );
    const held = send(proxy);
    await operator.waitFor(1);
    const refused = await send(proxy, { body: "other" });
    expect(refused.status).toBe(403);
    expect(refused.text).toContain("approval.max_held)");
    const asked = await operator.pending();
    for (const { id } of asked) await operator.deny(id);
    expect((await held).status).toBe(403);
    const next = send(proxy, { body: "next" });
    await operator.allow((await operator.next()).id);
    expect((await next).status).toBe(200);
  });

  test("nobody can answer: it is refused at once, with the key to set", async () => {
    const proxy = await own(ProxyProcess.start(merge(settings(), policy())));
    const refused = await send(proxy);
    expect([refused.status, bodyOf(refused)]).toMatchObject([
      403,
      {
        error: "policy.approval-denied",
        message: expect.stringContaining("session.api_secret_file"),
      },
    ]);
  });

  test("SIGTERM refuses what waits", async () => {
    const [proxy, operator] = await start(policy());
    const sent = send(proxy);
    await operator.next();
    proxy.signal("SIGTERM");
    const refused = await sent;
    expect([refused.status, bodyOf(refused)]).toMatchObject([
      403,
      { message: expect.stringContaining("shutting down") },
    ]);
    expect((await proxy.ended).code).toBe(0);
  });

  test("a reload that changes the rule refuses what waits; another one does not", async () => {
    const base = settings({ session: { api_secret_file: secretFile("operator") } });
    const [proxy, operator] = await start(policy());
    const sent = send(proxy);
    const ask = await operator.next();
    await proxy.reload(merge(merge(base, policy()), { limits: { response_timeout: "77s" } }));
    expect((await operator.next()).id).toBe(ask.id);
    await proxy.reload(merge(base, policy({ rules: [{ ask: { method: "POST", path: "/pay" } }] })));
    const refused = await sent;
    expect([refused.status, bodyOf(refused)]).toMatchObject([
      403,
      { message: expect.stringContaining("rules have changed") },
    ]);
    expect((await operator.allow(ask.id)).status).toBe(409);
    const again = send(proxy);
    await operator.allow((await operator.next()).id);
    expect((await again).status).toBe(200);
  });
});

describe("a connection", () => {
  const whole = (): Settings =>
    policy({ protocol: "tcp", rules: undefined, enforcement: "ask" }, echo.port);

  function connect(proxy: ProxyProcess): Promise<RawClient> {
    return own(RawClient.connect(proxy.forward)).then((client) => {
      const target = `127.0.0.1:${echo.port}`;
      client.write({ method: "CONNECT", target, headers: { Host: target } });
      return client;
    });
  }

  test("a CONNECT is held before its 200, and its tunnel outlives a reload that leaves the rule as it is", async () => {
    const [proxy, operator] = await start(whole());
    const client = await connect(proxy);
    const ask = await operator.next();
    expect(ask.request).toMatchObject({ method: "CONNECT", port: echo.port });
    await operator.allow(ask.id);
    expect(statusOf((await client.head()).head)).toBe(200);
    const base = settings({ session: { api_secret_file: secretFile("operator") } });
    await proxy.reload(merge(merge(base, whole()), { limits: { response_timeout: "77s" } }));
    client.send("hello");
    expect((await client.reader.exactly(5)).toString()).toBe("hello");
  });

  test("polling: a CONNECT gets no success before it is allowed", async () => {
    const [proxy, operator] = await start(whole(), { approval: { on_pending: "poll" } });
    const first = await (await connect(proxy)).response();
    expect([first.status, bodyOf(first)]).toMatchObject([
      403,
      { error: "policy.approval-pending" },
    ]);
    await operator.allow((await operator.next()).id);
    expect(statusOf((await (await connect(proxy)).head()).head)).toBe(200);
  });
});

describe("who decides", () => {
  test("two persons, with secrets of their own; one of them refuses alone", async () => {
    const [proxy, common] = await start(policy(), {
      approval: {
        two_person: true,
        operators: ["alice", "bob"].map((name) => ({ name, secret_file: secretFile(name) })),
      },
    });
    const alice = new Approver(proxy, "alice-secret");
    const bob = new Approver(proxy, "bob-secret");
    const sent = send(proxy);
    const { id } = await alice.next();
    expect((await common.allow(id)).status).toBe(400);
    expect((await new Approver(proxy, "mallory").allow(id)).status).toBe(401);
    expect((await alice.allow(id)).status).toBe(202);
    expect((await alice.allow(id)).status).toBe(400);
    expect((await bob.pending())[0]).toMatchObject({ votes: ["alice"] });
    expect(served).toEqual([]);
    expect(bodyOf(await bob.allow(id))).toMatchObject({ by: ["alice", "bob"] });
    expect((await sent).status).toBe(200);
    const second = send(proxy);
    await bob.deny((await bob.next()).id);
    expect((await second).status).toBe(403);
  });

  test("orders that mean nothing are refused with a reason", async () => {
    const [proxy, operator] = await start(policy({ host: "api.test" }), {
      approval: { max_duration: "1h" },
      egress: { hosts: { "api.test": ["127.0.0.1"] } },
    });
    const authority = `api.test:${origin.port}`;
    const sent = send(proxy, { target: `http://${authority}/pay`, headers: { Host: authority } });
    const { id } = await operator.next();
    const orders: Record<string, string>[] = [
      {},
      { decision: "maybe" },
      { decision: "allow", scope: "ever" },
      { decision: "allow", scope: "duration" },
      { decision: "allow", scope: "duration", duration: "2h" },
      { decision: "allow", scope: "duration", duration: "-1s" },
      { decision: "allow", duration: "1m" },
      { decision: "allow", scope: "session" },
      { decision: "allow", other: "x" },
    ];
    for (const order of orders) expect((await operator.decide(id, order)).status).toBe(400);
    expect((await operator.allow("nothing-like-it")).status).toBe(404);
    const decided = await operator.allow(id, { scope: "policy" });
    expect(bodyOf(decided)["policy"]).toContain("network_policies:");
    expect((await sent).status).toBe(200);
  });

  test("for a session: what belongs to another one is asked", async () => {
    const [proxy, operator] = await start(policy(), {
      session: { header: "x-session" },
      approval: { on_pending: "poll" },
    });
    const inSession = (session: string): Promise<RawResponse> =>
      send(proxy, { headers: { "X-Session": session } });
    const { approval } = bodyOf(await inSession("a")) as { approval: string };
    expect((await operator.allow(approval, { scope: "session" })).status).toBe(200);
    expect([(await inSession("a")).status, (await inSession("a")).status]).toEqual([200, 200]);
    expect((await inSession("b")).status).toBe(202);
  });

  test("everything is in the decision log", async () => {
    const [proxy, operator] = await start(policy(), {
      audit: { path: join(scratch, "audit.log") },
    });
    const sent = send(proxy, { target: `${origin.url}/pay?token=hidden` });
    await operator.allow((await operator.next()).id, { reason: "fine" });
    await sent;
    const lines = await eventually(() => {
      const text = readFileSync(join(scratch, "audit.log"), "utf8");
      const found = text.split("\n").filter((line) => line.includes('"decision":"approval_'));
      return found.length === 2 && found;
    });
    expect(lines[1]).toMatch(/"approval_allowed".*"by":\["operator"\].*"reason":"fine"/);
    expect(lines.join("")).not.toContain("hidden");
  });
});

describe("several", () => {
  test("threads: what waits in any of them is seen and decided", async () => {
    const [proxy, operator] = await start(policy(), { workers: 2 });
    const sent = Array.from({ length: 12 }, async (_, at) => send(proxy, { body: `n=${at}` }));
    const asks = await operator.waitFor(12);
    for (const { id } of asks) await operator.allow(id);
    expect((await Promise.all(sent)).map(({ status }) => status)).toEqual(Array(12).fill(200));
    const same = Array.from({ length: 12 }, async () => send(proxy));
    await eventually(async () => (await proxy.metric("authbridge_approvals_held")) === 12);
    await operator.allow((await operator.next()).id);
    const statuses = (await Promise.all(same)).map(({ status }) => status);
    expect(statuses.filter((status) => status === 200)).toHaveLength(1);
  });

  test.skipIf(!hasRedis)(
    "replicas: the decision of one releases what waits at the other",
    async () => {
      const server = await own(RedisServer.start());
      const state = { state: { store: "redis", url: server.url, timeout: "5s" } };
      const [one] = await start(policy(), state);
      const [, operator] = await start(policy(), state);
      const sent = send(one);
      await operator.allow((await operator.next()).id);
      expect((await sent).status).toBe(200);
    },
  );
});
