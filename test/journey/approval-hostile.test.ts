/** Approval under attack: look-alikes, ids of others, floods, text that wants to be more than text, messages that nobody signed. */
import { createHmac } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Approver, type ShownApproval } from "../support/approvals.ts";
import { browserPath, launchBrowser, openPage } from "../support/browser.ts";
import { eventually } from "../support/eventually.ts";
import { RawClient, request, type RawResponse, type RequestShape } from "../support/http-client.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { oneThread, runWith, type Settings } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { hasRedis, RedisServer } from "../support/redis.ts";

const own = owner();
const scratch = mkdtempSync(join(tmpdir(), "authbridge-approval-hostile-"));
const fileOf = (name: string, text: string): string => {
  writeFileSync(join(scratch, name), text);
  return join(scratch, name);
};
const secretFile = fileOf("operator", "operator-secret");
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

let origin: HttpOrigin;
let served = 0;
beforeAll(async () => {
  origin = await own(
    HttpOrigin.launch(() => {
      served += 1;
      return reply(200, "done");
    }),
  );
});
beforeEach(() => {
  served = 0;
});

const callers = (): Settings => ({
  callers: {
    clients: ["one", "two"].map((name) => ({
      name,
      password_file: fileOf(`caller-${name}`, name),
    })),
  },
});

function plugins(): Settings {
  const endpoint = { host: "127.0.0.1", port: origin.port, protocol: "rest" };
  const rules = [{ allow: { method: "GET", path: "/**" } }, { ask: { method: "*", path: "/**" } }];
  const endpoints = [{ ...endpoint, enforcement: "enforce", rules }];
  return outbound("mcp-parser", {
    name: "egress-policy",
    config: { network_policies: { api: { endpoints } } },
  });
}

async function start(over: Settings = {}): Promise<[ProxyProcess, Approver]> {
  const file = merge(
    settings(merge({ session: { api_secret_file: secretFile } }, over)),
    plugins(),
  );
  const proxy = await own(ProxyProcess.start(file));
  return [proxy, new Approver(proxy, "operator-secret")];
}

const as = (name: string): Record<string, string> => ({
  "Proxy-Authorization": `Basic ${Buffer.from(`${name}:${name}`).toString("base64")}`,
});

interface Sent {
  readonly method?: string;
  readonly path?: string;
  readonly body?: string | Buffer;
  readonly fields?: readonly (readonly [string, string])[];
  readonly caller?: string;
}

function send(
  proxy: ProxyProcess,
  { method = "POST", path = "/pay?a=1&b=2", body = "amount=1", fields = [], caller }: Sent,
): Promise<RawResponse> {
  const shape: RequestShape = {
    method,
    target: `${origin.url}${path}`,
    body,
    headers: [
      ["Host", origin.authority],
      ...fields,
      ...Object.entries(caller === undefined ? {} : as(caller)),
    ],
  };
  return request(proxy.forward, shape);
}

const bodyOf = ({ text }: RawResponse): Record<string, unknown> =>
  JSON.parse(text) as Record<string, unknown>;

describe("look-alikes", () => {
  const json = ["Content-Type", "application/json"] as const;
  const rpc = (params: string, rest = ""): string =>
    `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":${params}${rest}}`;
  const call = rpc('{"name":"pay","arguments":{"to":"a","amount":1}}');

  /** Each differs from what was approved, and is asked about. */
  const table: readonly (readonly [string, Sent, Sent])[] = [
    ["the order of the query", {}, { path: "/pay?b=2&a=1" }],
    ["an empty query member", {}, { path: "/pay?a=1&b=2&" }],
    ["a member twice", {}, { path: "/pay?a=1&a=1&b=2" }],
    ["a percent spelling of the query", {}, { path: "/pay?a=%31&b=2" }],
    ["upper case percent digits", { path: "/pay?a=%3a" }, { path: "/pay?a=%3A" }],
    ["a plus for a space", { path: "/pay?a=%20" }, { path: "/pay?a=+" }],
    ["a percent spelling of the path", {}, { path: "/p%61y?a=1&b=2" }],
    ["the case of the path", {}, { path: "/PAY?a=1&b=2" }],
    ["a slash more", {}, { path: "/pay/?a=1&b=2" }],
    ["a method", {}, { method: "PUT" }],
    ["the case of the method", {}, { method: "Post" }],
    ["a byte of the body", {}, { body: "amount=2" }],
    ["an end of a line in the body", {}, { body: "amount=1\n" }],
    ["a form of Unicode in the body", { body: "n=\u00e9" }, { body: "n=e\u0301" }],
    ["a field more", {}, { fields: [["X-Tenant", "b"]] }],
    ["the value of a field", { fields: [["X-Tenant", "a"]] }, { fields: [["X-Tenant", "A"]] }],
    [
      "the order of two fields of a name",
      {
        fields: [
          ["X-T", "a"],
          ["X-T", "b"],
        ],
      },
      {
        fields: [
          ["X-T", "b"],
          ["X-T", "a"],
        ],
      },
    ],
    [
      "a credential",
      { fields: [["Authorization", "Bearer a"]] },
      { fields: [["Authorization", "Bearer b"]] },
    ],
    [
      "a content type",
      { fields: [json] },
      { fields: [["Content-Type", "application/json; charset=utf-16"]] },
    ],
    ["a coding of the body", {}, { fields: [["Content-Encoding", "identity"]] }],
    ["a method override", {}, { fields: [["X-HTTP-Method-Override", "DELETE"]] }],
    [
      "a key twice in JSON",
      { fields: [json], body: call },
      { fields: [json], body: rpc('{"name":"pay","arguments":{"to":"a","to":"b","amount":1}}') },
    ],
    [
      "a key twice at the top",
      { fields: [json], body: call },
      {
        fields: [json],
        body: rpc('{"name":"pay","arguments":{"to":"a","amount":1}}', ',"method":"tools/call"'),
      },
    ],
    [
      "the order of keys where it is no call",
      { fields: [json], body: '{"a":1,"b":2}' },
      { fields: [json], body: '{"b":2,"a":1}' },
    ],
    [
      "the order of an array",
      { fields: [json], body: rpc('{"name":"pay","arguments":{"to":["a","b"]}}') },
      { fields: [json], body: rpc('{"name":"pay","arguments":{"to":["b","a"]}}') },
    ],
    [
      "a number as text",
      { fields: [json], body: call },
      { fields: [json], body: rpc('{"name":"pay","arguments":{"to":"a","amount":"1"}}') },
    ],
    [
      "another spelling of a number",
      { fields: [json], body: call },
      { fields: [json], body: rpc('{"name":"pay","arguments":{"to":"a","amount":1.0}}') },
    ],
    [
      "a __proto__ member",
      { fields: [json], body: call },
      {
        fields: [json],
        body: rpc('{"name":"pay","arguments":{"to":"a","amount":1,"__proto__":{"amount":9}}}'),
      },
    ],
    [
      "a note to the tool",
      { fields: [json], body: call },
      {
        fields: [json],
        body: rpc(
          '{"name":"pay","arguments":{"to":"a","amount":1},"_meta":{"progressToken":1,"dryRun":false}}',
        ),
      },
    ],
    ["another caller", { caller: "one" }, { caller: "two" }],
    ["a field whose name begins as those for a proxy do", {}, { fields: [["Proxy-Data", "b"]] }],
    [
      "another protocol",
      { method: "PUT", body: "" },
      {
        method: "PUT",
        body: "",
        fields: [
          ["Connection", "Upgrade"],
          ["Upgrade", "other"],
        ],
      },
    ],
  ];

  test("none rides on a decision", async () => {
    const [plain, operator] = await start({ approval: { on_pending: "poll" } });
    const [named, other] = await start({ ...callers(), approval: { on_pending: "poll" } });
    for (const [name, approved, alike] of table) {
      const isNamed = approved.caller !== undefined;
      const [proxy, decides] = isNamed ? [named, other] : [plain, operator];
      const first = await send(proxy, approved);
      if (first.status === 202) {
        const { approval } = bodyOf(first) as { approval: string };
        await decides.allow(approval, { scope: "duration", duration: "1h" });
      }
      expect([name, (await send(proxy, approved)).status]).toEqual([name, 200]);
      const before = served;
      const response = await send(proxy, alike);
      // Pending, a JSON-RPC error, or refused as no request at all: it did not pass.
      expect([name, served]).toEqual([name, before]);
      expect([name, response.text]).toEqual([name, expect.stringMatching(/error/)]);
    }
  }, 60_000);

  test("a decision that has ended is none, and two at once share one for once", async () => {
    const [proxy, operator] = await start({ approval: { on_pending: "poll", expires: "1500ms" } });
    const { approval } = bodyOf(await send(proxy, {})) as { approval: string };
    await operator.allow(approval, { scope: "duration", duration: "300ms" });
    await eventually(async () => (await send(proxy, {})).status === 202);
    const next = bodyOf(await send(proxy, {})) as { approval: string };
    expect(next.approval).not.toBe(approval);
    const before = served;
    await operator.allow(next.approval);
    await Promise.all(Array.from({ length: 50 }, () => send(proxy, {})));
    expect(served).toBe(before + 1);
    const last = bodyOf(await send(proxy, {})) as { approval: string };
    await operator.allow(last.approval);
    await eventually(async () => {
      const look = await send(proxy, {
        method: "GET",
        path: `/.well-known/authbridge/approvals/${last.approval}`,
        body: "",
      });
      return look.status === 200 && operator.pending();
    });
  });
});

describe("others", () => {
  test("the id of a question tells nobody but who asked it, at its origin", async () => {
    const [proxy, operator] = await start({ ...callers(), approval: { on_pending: "poll" } });
    const { approval, poll } = bodyOf(await send(proxy, { caller: "one" })) as {
      approval: string;
      poll: string;
    };
    const look = async (caller: string, path = poll): Promise<string> =>
      (await send(proxy, { method: "GET", path, body: "", caller })).text;
    const state = '"status":"pending"';
    expect(await look("one")).toContain(state);
    // To others it is a path like any other, and a rule asks about it.
    expect(await look("two")).not.toContain(state);
    expect(await look("one", `${poll}x`)).not.toContain(state);
    const named = await send(proxy, { caller: "two", fields: [["Authbridge-Approval", approval]] });
    expect(bodyOf(named)).toMatchObject({ error: "policy.approval-denied" });
    await operator.allow(approval);
    const stolen = await send(proxy, {
      caller: "two",
      fields: [["Authbridge-Approval", approval]],
    });
    expect(stolen.status).toBe(403);
    expect((await send(proxy, { caller: "one" })).status).toBe(200);
  });

  test("a caller that floods takes neither the questions nor the places of another", async () => {
    const bounds = {
      max_pending: 60,
      max_pending_per_caller: 20,
      max_held: 60,
      max_held_per_caller: 30,
    };
    const [proxy, operator] = await start(
      oneThread("each thread counts a burst for itself", { ...callers(), approval: bounds }),
    );
    const flood = Array.from({ length: 100 }, (_, at) =>
      send(proxy, { caller: "one", body: `n=${at}` }),
    );
    const tooMany = (count: number): Promise<true> =>
      eventually(
        async () =>
          (await proxy.metric("authbridge_approvals_total", { event: "too_many" })) === count,
      );
    await tooMany(80);
    await operator.waitFor(20);
    const same = Array.from({ length: 30 }, () => send(proxy, { caller: "one", body: "n=same" }));
    await Promise.all(same);
    const first = (await operator.pending())[0] as ShownApproval;
    const body = await bodyThatAsked(operator, first);
    const joined = Array.from({ length: 30 }, () => send(proxy, { caller: "one", body }));
    await tooMany(80 + 30 + 20);
    const other = send(proxy, { caller: "two" });
    const asked = await eventually(
      async () =>
        (await operator.pending()).find(({ request: { caller } }) => caller === "two") ?? false,
    );
    await operator.allow(asked.id);
    expect((await other).status).toBe(200);
    for (const { id } of await operator.pending()) await operator.deny(id);
    const refused = await Promise.all([...flood, ...joined]);
    expect(refused.every(({ status }) => status === 403)).toBe(true);
    expect(refused.some(({ text }) => text.includes("approval.max_pending_per_caller"))).toBe(true);
    expect(refused.some(({ text }) => text.includes("approval.max_held_per_caller"))).toBe(true);
  });

  /** One of the bodies `n=AT`, by the digest that operators see. */
  async function bodyThatAsked(
    _operator: Approver,
    { request: { bodySha256 } }: ShownApproval,
  ): Promise<string> {
    const { hash } = await import("node:crypto");
    const found = Array.from({ length: 100 }, (_, at) => `n=${at}`).find(
      (text) => hash("sha256", text) === bodySha256,
    );
    if (found === undefined) throw new Error("nobody sent it");
    return found;
  }
});

describe("text", () => {
  const evil = `<img src=x onerror="document.title='owned'"> <!channel> <@U1> *b* [x](http://evil.test) https://evil.test/?${"&".repeat(3_000)} \u202e\u200b`;
  const body = JSON.stringify({
    jsonrpc: "2.0",
    id: 1,
    method: "tools/call",
    params: { name: "<script>alert(1)</script>", arguments: { to: evil } },
  });
  const call: Sent = { body, fields: [["Content-Type", "application/json"]] };

  test("is no markup, no mention and no link to Slack, and does not crowd out the rest", async () => {
    const told: string[] = [];
    const hook = await own(
      HttpOrigin.launch(({ body: message }) => {
        told.push(message.toString());
        return reply(200, "ok");
      }),
    );
    const [proxy, operator] = await start({
      approval: { webhook: { url: `${hook.url}/hook`, format: "slack" } },
    });
    const sent = send(proxy, call);
    const [text = ""] = await eventually(() => told.length > 0 && told);
    interface Message {
      readonly unfurl_links: boolean;
      readonly blocks: readonly {
        readonly text?: {
          readonly type: string;
          readonly text: string;
          readonly verbatim: boolean;
        };
      }[];
    }
    const message = JSON.parse(text) as Message;
    const section = message.blocks[0]?.text;
    expect(section).toMatchObject({ type: "mrkdwn", verbatim: true });
    expect(message.unfurl_links).toBe(false);
    expect(section?.text).not.toMatch(/<(?:!|@|img|script|http)/);
    expect(section?.text).not.toMatch(/\u202e/);
    expect(section?.text).toMatch(/SHA-256 [0-9a-f]{64}/);
    expect(section?.text).toMatch(/until 2/);
    expect(section?.text.length).toBeLessThan(3_000);
    await operator.deny((await operator.next()).id);
    await sent;
  });

  test.skipIf(browserPath === undefined)("is text in the console", async () => {
    const [proxy, operator] = await start();
    const browser = await launchBrowser();
    await own(Promise.resolve({ close: () => browser.close() }));
    const { page } = await openPage(browser, { width: 1200, height: 900 });
    const { host, port } = proxy.address("sessions");
    await page.goto(`http://${host}:${port}/#approvals`);
    await page.locator("#secret input").fill("operator-secret");
    await page.locator("#secret button").click();
    const sent = send(proxy, call);
    const card = page.locator(`[data-approval="${(await operator.next()).id}"]`);
    await card.waitFor();
    expect(await card.textContent()).toContain("<script>alert(1)</script>");
    expect(await card.textContent()).toContain(String.raw`\u{202e}\u{200b}`);
    expect(await card.locator("img, script, a").count()).toBe(0);
    expect(await page.title()).not.toBe("owned");
    await card.getByRole("button", { name: "Deny" }).click();
    await sent;
    expect(served).toBe(0);
  });
});

describe("signed messages", () => {
  test("a decision that was signed counts once, for its question, and for five minutes", async () => {
    const [proxy, operator] = await start({ approval: { callback: { secret_file: secretFile } } });
    const post = (
      body: string,
      at: number,
      secret = "operator-secret",
      version = "v1",
    ): Promise<RawResponse> => {
      const signature = createHmac("sha256", secret)
        .update(`${version}:${at}:${body}`)
        .digest("hex");
      return request(proxy.address("stats"), {
        method: "POST",
        target: "/approvals/callback",
        headers: {
          Host: "localhost",
          "Content-Type": "application/json",
          "Authbridge-Timestamp": String(at),
          "Authbridge-Signature": `${version}=${signature}`,
        },
        body,
      });
    };
    const now = Math.floor(Date.now() / 1_000);
    const first = send(proxy, {});
    const { id } = await operator.next();
    const allow = JSON.stringify({ id, decision: "allow" });
    for (const [at, secret, version] of [
      [now - 400, "operator-secret", "v1"],
      [now + 400, "operator-secret", "v1"],
      [now, "other", "v1"],
      [now, "operator-secret", "v0"],
      [now, "", "v1"],
    ] as const)
      expect((await post(allow, at, secret, version)).status).toBe(401);
    expect(served).toBe(0);
    expect((await post(allow, now)).status).toBe(200);
    expect((await first).status).toBe(200);
    const second = send(proxy, {});
    const next = await operator.next();
    // The same message again is about a question that is over.
    expect((await post(allow, now)).status).toBe(409);
    expect(served).toBe(1);
    await operator.deny(next.id);
    expect((await second).status).toBe(403);
  });
});

describe("two persons", () => {
  const operators = (one: string, two: string): Settings => ({
    approval: {
      two_person: true,
      operators: [
        { name: "alice", secret_file: one },
        { name: "bob", secret_file: two },
      ],
    },
  });

  test("one person with two names is one", async () => {
    const [proxy] = await start(operators(fileOf("a", "same-secret"), fileOf("b", "same-secret")));
    const sent = send(proxy, {});
    const either = new Approver(proxy, "same-secret");
    const { id } = await either.next();
    expect((await either.allow(id)).status).toBe(202);
    expect((await either.allow(id)).status).toBe(400);
    expect(served).toBe(0);
    await either.deny(id);
    await sent;
  });

  test("one file for two names is a mistake", async () => {
    const file = merge(settings(operators(secretFile, secretFile)), plugins());
    const ended = await runWith("check", file);
    expect([ended.code, ended.stdout + ended.stderr]).toEqual([
      2,
      expect.stringContaining("secret_file twice"),
    ]);
  });
});

describe("nobody can answer", () => {
  test("a question outlives a restart where its state is in a file, and so does what was decided", async () => {
    const state = {
      state: { store: "file", path: join(scratch, "state"), timeout: "10s" },
      approval: { on_pending: "poll" },
    };
    const [before] = await start(state);
    const { approval } = bodyOf(await send(before, {})) as { approval: string };
    await before.stop();
    const [middle, operator] = await start(state);
    expect((await operator.next()).id).toBe(approval);
    expect((await operator.allow(approval)).status).toBe(200);
    await middle.stop();
    const [after, same] = await start(state);
    expect(await same.pending()).toEqual([]);
    expect((await send(after, {})).status).toBe(200);
    expect((await send(after, {})).status).toBe(202);
    expect(served).toBe(1);
  });

  test("what was held when the process ended did not pass, and does not pass by itself", async () => {
    const [proxy, operator] = await start();
    const client = await own(RawClient.connect(proxy.forward));
    client.write({
      method: "POST",
      target: `${origin.url}/pay`,
      headers: { Host: origin.authority },
      body: "x",
    });
    await operator.next();
    proxy.signal("SIGKILL");
    await client.ended();
    expect(served).toBe(0);
  });

  test.skipIf(!hasRedis)(
    "while the store is away nothing passes and nothing is decided",
    async () => {
      const server = await own(RedisServer.start());
      const [proxy, operator] = await start({
        state: { store: "redis", url: server.url, timeout: "1s" },
      });
      const sent = send(proxy, {});
      const { id } = await operator.next();
      await server.kill();
      const decided = await operator.allow(id);
      expect([decided.status, bodyOf(decided)]).toMatchObject([
        503,
        { error: "state.unavailable" },
      ]);
      const other = await send(proxy, { body: "amount=2" });
      expect([other.status, bodyOf(other)]).toMatchObject([503, { error: "state.unavailable" }]);
      expect(served).toBe(0);
      await proxy.stop();
      expect((await sent.catch(() => ({ status: 0 }))).status).not.toBe(200);
    },
  );
});
