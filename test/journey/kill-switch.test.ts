/** The kill switch: everything, a caller, a session or a destination, in a moment, and until it is released. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Approver } from "../support/approvals.ts";
import { browserPath, launchBrowser, openPage } from "../support/browser.ts";
import { eventually, within } from "../support/eventually.ts";
import { get, openTunnel, RawClient, request, type RawResponse } from "../support/http-client.ts";
import { HttpOrigin, reply, TcpOrigin } from "../support/origin.ts";
import { sendOrder } from "../support/operator-order.ts";
import { owner } from "../support/owner.ts";
import type { Settings } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { hasRedis, RedisServer } from "../support/redis.ts";

const own = owner();
const secret = "operator-secret";
const scratch = mkdtempSync(join(tmpdir(), "authbridge-kill-"));
const secretFile = join(scratch, "secret");
writeFileSync(secretFile, secret);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

let origin: HttpOrigin;
let echo: TcpOrigin;
let files = 0;
const held = new Map<string, () => void>();

beforeAll(async () => {
  origin = await own(
    HttpOrigin.launch(async ({ target }) => {
      if (!target.startsWith("/held")) return reply(200, "hello");
      await new Promise<void>((resolve) => held.set(target, resolve));
      return reply(200, "at last");
    }),
  );
  echo = await own(
    TcpOrigin.start(async (connection) => {
      for (
        let bytes = await connection.reader.some();
        bytes !== undefined;
        bytes = await connection.reader.some()
      )
        await connection.send(bytes);
    }),
  );
});

const lines = (count: number, line: (at: number) => string): string =>
  Array.from({ length: count }, (_, at) => `${line(at)}\n`).join("");

const newFile = (): string => join(scratch, `kill-${(files += 1)}`);

function start(over: Settings = {}): Promise<ProxyProcess> {
  const base = settings({
    session: { api_secret_file: secretFile },
    egress: { hosts: { "one.test": ["127.0.0.1"], "two.test": ["127.0.0.1"] } },
  });
  return own(ProxyProcess.start(merge(base, over)));
}

async function tunnel(proxy: ProxyProcess, authority: string): Promise<RawClient> {
  const { client, answer } = await openTunnel(proxy.forward, authority);
  expect(answer.status).toBe(200);
  return own(client);
}

const post = (
  proxy: ProxyProcess,
  path: string,
  form: Record<string, string>,
  token = secret,
): Promise<RawResponse> => sendOrder(proxy, path, form, token);

const codeOf = ({ text }: RawResponse): unknown => (JSON.parse(text) as { error: unknown }).error;

describe("all", () => {
  test("a hundred tunnels and a hundred exchanges end, nothing new begins, and a release lets it go on", async () => {
    const proxy = await start();
    const tunnels = await Promise.all(
      Array.from({ length: 100 }, () => tunnel(proxy, `127.0.0.1:${echo.port}`)),
    );
    const waiting = await Promise.all(
      Array.from({ length: 100 }, async (_, at) => {
        const client = await own(RawClient.connect(proxy.forward));
        client.write({ target: `${origin.url}/held-${at}` });
        return client;
      }),
    );
    await eventually(() => held.size >= 100);
    const done = await post(proxy, "/v1/kill", { scope: "all", reason: "drill" });
    expect(done.status, done.text).toBe(200);
    expect(JSON.parse(done.text)).toMatchObject({
      cut: 200,
      kills: [{ scope: "all", reason: "drill" }],
    });
    const answers = await Promise.all(
      waiting.map((client) => within("a refusal", client.response())),
    );
    for (const answer of answers)
      expect([answer.status, codeOf(answer)]).toEqual([403, "policy.killed"]);
    await Promise.all(tunnels.map(({ closed }) => within("the end of a tunnel", closed)));
    const refused = await get(proxy.forward, `${origin.url}/`);
    expect([refused.status, refused.text]).toEqual([403, expect.stringContaining("drill")]);
    expect(
      (await request(proxy.forward, { method: "CONNECT", target: `127.0.0.1:${echo.port}` }))
        .status,
    ).toBe(403);
    expect(await proxy.metric("authbridge_kill_switch_active")).toBe(1);
    const released = await post(proxy, "/v1/kill/release", { scope: "all" });
    expect(JSON.parse(released.text)).toMatchObject({ kills: [] });
    expect((await get(proxy.forward, `${origin.url}/`)).status).toBe(200);
    for (const [, end] of held) end();
  });

  test("SIGUSR2 stops everything", async () => {
    const proxy = await start();
    proxy.signal("SIGUSR2");
    await eventually(async () => (await get(proxy.forward, `${origin.url}/`)).status === 403);
  });
});

describe("one of many", () => {
  test("a destination: its tunnels end, the other's go on", async () => {
    const proxy = await start();
    const one = await tunnel(proxy, `one.test:${echo.port}`);
    const two = await tunnel(proxy, `two.test:${echo.port}`);
    const done = await post(proxy, "/v1/kill", { destination: "ONE.test" });
    expect(JSON.parse(done.text)).toMatchObject({ cut: 1 });
    await within("the end of the tunnel", one.closed);
    two.send("still here");
    expect((await two.reader.exactly(10)).toString()).toBe("still here");
    expect((await get(proxy.forward, `http://one.test:${origin.port}/`)).status).toBe(403);
    expect((await get(proxy.forward, `http://two.test:${origin.port}/`)).status).toBe(200);
  });

  test.each([
    "one.test.",
    "ONE.test",
    "one.test.:PORT",
    "127.1",
    "[::ffff:127.0.0.1]:PORT",
    "0x7f000001",
  ])("a destination in another spelling: %s", async (spelled) => {
    const proxy = await start();
    const destination = spelled.replace("PORT", String(origin.port));
    const host = spelled.toLowerCase().startsWith("one") ? "one.test" : "127.0.0.1";
    const answer = await post(proxy, "/v1/kill", { destination });
    expect(answer.status, answer.text).toBe(200);
    expect((await get(proxy.forward, `http://${host}:${origin.port}/`)).status).toBe(403);
    await post(proxy, "/v1/kill/release", { destination });
    expect((await get(proxy.forward, `http://${host}:${origin.port}/`)).status).toBe(200);
  });

  test("a session: its next message is refused", async () => {
    const proxy = await start({ session: { header: "x-session" } });
    const call = (session: string): Promise<RawResponse> =>
      request(proxy.forward, { target: `${origin.url}/`, headers: { "X-Session": session } });
    expect((await call("a")).status).toBe(200);
    await post(proxy, "/v1/kill", { session: "a" });
    expect((await call("a")).status).toBe(403);
    expect((await call("b")).status).toBe(200);
  });

  test("a session: what of it waits for an approval, or for its response, ends", async () => {
    const endpoint = { host: "127.0.0.1", port: origin.port, protocol: "rest" };
    const rules = [
      { allow: { method: "GET", path: "/**" } },
      { ask: { method: "DELETE", path: "/**" } },
    ];
    const endpoints = [{ ...endpoint, enforcement: "enforce", rules }];
    const policy = { name: "egress-policy", config: { network_policies: { api: { endpoints } } } };
    const proxy = await start(merge({ session: { header: "x-session" } }, outbound(policy)));
    const operator = new Approver(proxy, secret);
    const call = (method: string, path: string, session: string): Promise<RawResponse> => {
      const target = `${origin.url}${path}`;
      const headers = { Host: origin.authority, "X-Session": session };
      return request(proxy.forward, { method, target, headers });
    };
    const asked = call("DELETE", "/", "a");
    const answered = call("GET", "/held-session", "a");
    const other = call("GET", "/held-other", "b");
    const { id } = await operator.next();
    await eventually(() => held.has("/held-session") && held.has("/held-other"));
    const done = await post(proxy, "/v1/kill", { session: "a" });
    expect(JSON.parse(done.text)).toMatchObject({ cut: 2 });
    await operator.decide(id, { decision: "allow" });
    held.get("/held-other")?.();
    expect([codeOf(await asked), codeOf(await answered), (await other).status]).toEqual([
      "policy.killed",
      "policy.killed",
      200,
    ]);
  });

  test("a session whose name has spaces and other marks, also after a restart", async () => {
    const over = { session: { header: "x-session" }, kill_switch: { file: newFile() } };
    const first = await start(over);
    const session = `one "two" # 3 \\`;
    const call = async (proxy: ProxyProcess, name: string): Promise<number> =>
      (await request(proxy.forward, { target: `${origin.url}/`, headers: { "X-Session": name } }))
        .status;
    expect(await call(first, session)).toBe(200);
    const done = await post(first, "/v1/kill", { session, reason: "a # b" });
    expect(JSON.parse(done.text)).toMatchObject({ survivesRestart: true });
    expect([await call(first, session), await call(first, "one")]).toEqual([403, 200]);
    first.signal("SIGKILL");
    await first.ended;
    const second = await start(over);
    expect([await call(second, session), await call(second, "one")]).toEqual([403, 200]);
    await post(second, "/v1/kill/release", { session });
    expect(await call(second, session)).toBe(200);
  });

  test("a caller whose name has a space", async () => {
    const password = join(scratch, "caller");
    writeFileSync(password, "password");
    const clients = [{ name: "build # 1", password_file: password }];
    const proxy = await start({ callers: { clients } });
    const basic = Buffer.from("build # 1:password").toString("base64");
    const call = async (): Promise<number> =>
      (
        await request(proxy.forward, {
          target: `${origin.url}/`,
          headers: { "Proxy-Authorization": `Basic ${basic}` },
        })
      ).status;
    expect(await call()).toBe(200);
    await post(proxy, "/v1/kill", { caller: "build # 1" });
    expect(await call()).toBe(403);
  });

  test("a caller", async () => {
    const proxy = await start();
    await post(proxy, "/v1/kill", { caller: "127.0.0.1" });
    expect(codeOf(await get(proxy.forward, `${origin.url}/`))).toBe("policy.killed");
  });

  test("a caller by its executable, also where no policy asks for it", async () => {
    const proxy = await start();
    const open = await tunnel(proxy, echo.authority);
    await post(proxy, "/v1/kill", { caller: realpathSync(process.execPath) });
    await within("the tunnel is cut", open.closed);
    expect(codeOf(await get(proxy.forward, `${origin.url}/`))).toBe("policy.killed");
    await post(proxy, "/v1/kill/release", { caller: realpathSync(process.execPath) });
    await post(proxy, "/v1/kill", { caller: "/usr/bin/other" });
    expect((await get(proxy.forward, `${origin.url}/`)).status).toBe(200);
  });

  test("a caller by its address, where the listener is on every address", async () => {
    const listener = { forward_proxy_addr: "[::]:0" };
    const proxy = await start({ listener });
    const forward = { ...proxy.forward, host: "127.0.0.1" };
    expect((await get(forward, `${origin.url}/`)).status).toBe(200);
    await post(proxy, "/v1/kill", { caller: "127.0.0.1" });
    expect(codeOf(await get(forward, `${origin.url}/`))).toBe("policy.killed");
  });

  test("what is exempt from the pipeline is stopped as well", async () => {
    const proxy = await start({ listener: { skip_hosts: ["one.test"] } });
    await post(proxy, "/v1/kill", { destination: "one.test" });
    expect(codeOf(await get(proxy.forward, `http://one.test:${origin.port}/`))).toBe(
      "policy.killed",
    );
  });
});

describe("who is listened to", () => {
  let proxy: ProxyProcess;
  beforeAll(async () => {
    proxy = await start();
  });

  test("nobody without the secret, and nobody where there is none", async () => {
    expect((await post(proxy, "/v1/kill", { scope: "all" }, "wrong")).status).toBe(401);
    const open = await own(ProxyProcess.start(settings()));
    const answer = await post(open, "/v1/kill", { scope: "all" });
    expect([answer.status, answer.text]).toEqual([
      403,
      expect.stringContaining("session.api_secret_file"),
    ]);
  });

  test.each([
    [{}, "say what is meant"],
    [{ scope: "everything" }, "none of all, caller"],
    [{ scope: "caller" }, "needs a value"],
    [{ scope: "all", value: "x" }, "takes no value"],
    [{ scope: "all", caller: "x" }, "say what is meant"],
    [{ destination: "a*b" }, "a destination is a host"],
    [{ caller: "a\u0007b" }, "a control character"],
    [{ scope: "all", wrong: "x" }, "unknown"],
  ])("%j is not an order", async (form: Record<string, string>, words) => {
    const answer = await post(proxy, "/v1/kill", form);
    expect([answer.status, answer.text]).toEqual([400, expect.stringContaining(words)]);
    expect((await get(proxy.forward, `${origin.url}/`)).status).toBe(200);
  });

  test("JSON is an order too", async () => {
    const answer = await request(proxy.address("sessions"), {
      method: "POST",
      target: "/v1/kill",
      headers: {
        Host: "localhost",
        Authorization: `Bearer ${secret}`,
        "Content-Type": "application/json",
      },
      body: JSON.stringify({ scope: "destination", value: "one.test" }),
    });
    expect(answer.status, answer.text).toBe(200);
  });
});

describe("the file", () => {
  test("a kill outlives the process, and so does its release", async () => {
    const file = newFile();
    const over = { kill_switch: { file } };
    const first = await start(over);
    const done = await post(first, "/v1/kill", { destination: "one.test", reason: "leak #1" });
    expect(JSON.parse(done.text)).toMatchObject({ survivesRestart: true });
    first.signal("SIGKILL");
    await first.ended;
    const second = await start(over);
    expect((await get(second.forward, `http://one.test:${origin.port}/`)).status).toBe(403);
    expect((await get(second.forward, `http://two.test:${origin.port}/`)).status).toBe(200);
    await post(second, "/v1/kill/release", { destination: "one.test" });
    expect(readFileSync(file, "utf8")).not.toContain("one.test");
  });

  test.each([
    ["an empty one", ""],
    ["a line that is not understood", "destnation one.test\n"],
  ])("%s stops all", async (_name, content) => {
    const file = newFile();
    writeFileSync(file, content);
    const proxy = await start({ kill_switch: { file } });
    expect(codeOf(await get(proxy.forward, `${origin.url}/`))).toBe("policy.killed");
  });

  test.each([
    [
      "more than can be stopped",
      `${lines(100, (at) => `destination host-${at}.test`)}destination one.test\n`,
    ],
    ["a host with a character outside ASCII", "destination b\u00fccher.test\n"],
    ["a port below a domain", "destination *.test:443\n"],
    ["line ends of another time", "destination one.test # leak\rdestination two.test # leak\r"],
    ["a reason with a line separator", "destination one.test # leak \u2028 7\n"],
  ])("%s leaves nothing running that is named", async (_name, content) => {
    const file = newFile();
    writeFileSync(file, content);
    const proxy = await start({ kill_switch: { file } });
    expect(codeOf(await get(proxy.forward, `http://one.test:${origin.port}/`))).toBe(
      "policy.killed",
    );
  });

  test.each(["a pipe", "a directory"])(
    "%s in its place stops all, and blocks nothing",
    async (what) => {
      const file = newFile();
      const proxy = await start({ kill_switch: { file } });
      expect((await get(proxy.forward, `${origin.url}/`)).status).toBe(200);
      if (what === "a pipe") execFileSync("mkfifo", [file]);
      else mkdirSync(file);
      await eventually(
        async () => codeOf(await get(proxy.forward, `${origin.url}/`)) === "policy.killed",
      );
      rmSync(file, { recursive: true });
      await eventually(async () => (await get(proxy.forward, `${origin.url}/`)).status === 200);
    },
  );

  test("an order does not undo what was just written into it", async () => {
    const file = newFile();
    const proxy = await start({ kill_switch: { file } });
    writeFileSync(file, "destination one.test\n");
    await post(proxy, "/v1/kill", { destination: "two.test" });
    const text = readFileSync(file, "utf8");
    expect(text).toContain("destination one.test");
    expect(text).toContain("destination two.test");
    for (const host of ["one.test", "two.test"])
      expect((await get(proxy.forward, `http://${host}:${origin.port}/`)).status).toBe(403);
  });

  test("where nothing can be renamed into its place it is written where it is", async () => {
    // Its name leaves no room for that of another file beside it.
    const file = join(scratch, `${"k".repeat(244)}-${(files += 1)}`);
    const over = { kill_switch: { file } };
    const first = await start(over);
    const done = await post(first, "/v1/kill", { destination: "one.test" });
    expect(JSON.parse(done.text)).toMatchObject({ survivesRestart: true });
    first.signal("SIGKILL");
    await first.ended;
    const text = readFileSync(file, "utf8");
    writeFileSync(file, text.slice(0, text.indexOf("destination one.test")));
    const cut = await start(over);
    expect(codeOf(await get(cut.forward, `http://two.test:${origin.port}/`))).toBe("policy.killed");
    writeFileSync(file, text);
    await eventually(
      async () => (await get(cut.forward, `http://two.test:${origin.port}/`)).status === 200,
    );
    expect((await get(cut.forward, `http://one.test:${origin.port}/`)).status).toBe(403);
  });

  test("what an operator writes into it counts while the process runs", async () => {
    const file = newFile();
    const proxy = await start({ kill_switch: { file } });
    const open = await tunnel(proxy, `one.test:${echo.port}`);
    writeFileSync(file, "# by hand\ndestination one.test # incident 7\n");
    await within("the end of the tunnel", open.closed);
    expect((await get(proxy.forward, `http://one.test:${origin.port}/`)).text).toContain(
      "incident 7",
    );
    rmSync(file);
    await eventually(
      async () => (await get(proxy.forward, `http://one.test:${origin.port}/`)).status === 200,
    );
  });
});

test.skipIf(browserPath === undefined)("the console stops and releases", async () => {
  const proxy = await start();
  const { host, port } = proxy.address("sessions");
  const browser = await launchBrowser();
  await own(Promise.resolve({ close: () => browser.close() }));
  const { page } = await openPage(browser, { width: 1200, height: 900 });
  await page.goto(`http://${host}:${port}/#kill`);
  await page.locator("#secret input").fill(secret);
  await page.locator("#secret button").click();
  await page.getByText("Nothing is stopped.").waitFor();
  const open = await tunnel(proxy, `one.test:${echo.port}`);
  await page.getByLabel("Name").fill("one.test");
  await page.getByLabel("Reason").fill("<b>leak</b>");
  await page.getByRole("button", { name: "Stop" }).click();
  const card = page.locator('[data-kill="destination one.test"]');
  await card.waitFor();
  await within("the end of the tunnel", open.closed);
  expect(await card.textContent()).toContain("<b>leak</b>");
  const target = `http://one.test:${origin.port}/`;
  expect((await get(proxy.forward, target)).status).toBe(403);
  await card.getByRole("button", { name: "Release" }).click();
  await page.getByText("Nothing is stopped.").waitFor();
  expect((await get(proxy.forward, target)).status).toBe(200);
});

test("inbound requests stop as well", async () => {
  const proxy = await start({
    listener: { roles: ["forward", "reverse"], reverse_proxy_backend: origin.url },
  });
  expect((await get(proxy.reverse, "/")).status).toBe(200);
  await post(proxy, "/v1/kill", { scope: "all" });
  expect((await get(proxy.reverse, "/")).status).toBe(403);
});

test.skipIf(!hasRedis)("replicas hear of it, and one that starts later", async () => {
  const redis = await own(RedisServer.start());
  const over = { state: { store: "redis", url: redis.url } };
  const [one, two] = await Promise.all([start(over), start(over)]);
  const done = await post(one, "/v1/kill", { destination: "one.test" });
  expect(JSON.parse(done.text)).toMatchObject({ replicasTold: true });
  const target = `http://one.test:${origin.port}/`;
  await eventually(async () => (await get(two.forward, target)).status === 403);
  const three = await start(over);
  await eventually(async () => (await get(three.forward, target)).status === 403);
  await post(two, "/v1/kill/release", { destination: "one.test" });
  await eventually(async () => (await get(one.forward, target)).status === 200);
});

test.skipIf(!hasRedis)("replicas hear of what is written into a file, and taken out", async () => {
  const redis = await own(RedisServer.start());
  const over = { state: { store: "redis", url: redis.url } };
  const file = newFile();
  const one = await start(merge(over, { kill_switch: { file } }));
  const two = await start(over);
  const target = `http://one.test:${origin.port}/`;
  await post(two, "/v1/kill", { destination: "two.test" });
  await eventually(
    async () => (await get(one.forward, `http://two.test:${origin.port}/`)).status === 403,
  );
  await eventually(() => readFileSync(file, "utf8").includes("destination two.test"));
  writeFileSync(file, `${readFileSync(file, "utf8")}destination one.test # by hand\n`);
  await eventually(async () => (await get(two.forward, target)).text.includes("by hand"));
  one.signal("SIGKILL");
  await one.ended;
  // Meanwhile another replica releases it: the file that still names it must not bring it back.
  await post(two, "/v1/kill/release", { destination: "two.test" });
  const again = await start(merge(over, { kill_switch: { file } }));
  await eventually(
    async () => (await get(again.forward, `http://two.test:${origin.port}/`)).status === 200,
  );
  expect((await get(again.forward, target)).status).toBe(403);
  rmSync(file);
  await eventually(async () => (await get(two.forward, target)).status === 200);
});

test("every thread follows, and one that takes another's place", async () => {
  const proxy = await start({ workers: 2 });
  await post(proxy, "/v1/kill", { destination: "one.test" });
  const answers = await Promise.all(
    Array.from({ length: 40 }, () => get(proxy.forward, `http://one.test:${origin.port}/`)),
  );
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([403]));
});
