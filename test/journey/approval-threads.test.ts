/** What waits for a person in a thread that ends: its clients lose their connections, and nothing else is lost or left over. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Approver } from "../support/approvals.ts";
import { eventually } from "../support/eventually.ts";
import { get, openTunnel, renderRequest } from "../support/http-client.ts";
import { HttpOrigin, reply, TcpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import type { Settings } from "../support/program.ts";
import { merge, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const secret = "operator-secret";
const threadPlugins = fileURLToPath(new URL("../support/thread-plugins.ts", import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), "authbridge-approval-threads-"));
const secretFile = join(scratch, "operator");
writeFileSync(secretFile, secret);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const requests = 12;
const hosts = Array.from({ length: requests }, (_, at) => `host-${at}.test`);
const maxTunnels = requests;
let origin: HttpOrigin;
let far: TcpOrigin;

beforeAll(async () => {
  origin = await own(HttpOrigin.launch(() => reply(200, "done")));
  far = await own(
    TcpOrigin.start(({ socket }) => {
      socket.resume();
      socket.once("end", () => socket.end());
    }),
  );
});

/** With another `path` for the rules that ask it is another policy. */
function fileOf(over: Settings = {}, path = "/**"): Settings {
  const rules = [{ ask: { method: "POST", path } }];
  const endpoints = [
    ...hosts.flatMap((host) => [
      { host, port: origin.port, protocol: "rest", enforcement: "enforce", rules },
      { host, port: far.port, enforcement: "ask" },
    ]),
    { host: "127.0.0.1", port: far.port },
    { host: "thread.test", port: 80 },
  ];
  const policy = { name: "egress-policy", config: { network_policies: { api: { endpoints } } } };
  const file = settings({
    plugin_modules: [threadPlugins],
    workers: 2,
    session: { api_secret_file: secretFile },
    egress: { hosts: Object.fromEntries(hosts.map((host) => [host, ["127.0.0.1"]])) },
    limits: { max_tunnels: maxTunnels },
    pipeline: { outbound: { plugins: [{ name: "thread", config: {} }, policy] } },
  });
  return merge(file, over);
}

function start(over: Settings = {}): Promise<ProxyProcess> {
  return own(ProxyProcess.start(fileOf(over)));
}

/** A request that waits, of one client; half of them ask for a tunnel. */
class Waiting {
  isOver = false;
  readonly socket: Socket;
  #seen = "";

  readonly at: number;

  constructor({ forward: { host, port } }: ProxyProcess, at: number) {
    this.at = at;
    this.socket = connect(port, host);
    this.socket.on("error", () => undefined);
    this.socket.on("data", (chunk) => (this.#seen += chunk.toString("latin1")));
    this.socket.once("close", () => (this.isOver = true));
    const name = `host-${at}.test`;
    const there = `${name}:${at % 2 === 0 ? far.port : origin.port}`;
    this.socket.write(
      renderRequest(
        at % 2 === 0
          ? { method: "CONNECT", target: there }
          : { method: "POST", target: `http://${there}/pass`, body: "amount=1" },
      ),
    );
  }

  get status(): number {
    return Number(this.#seen.split(" ")[1]);
  }
}

async function wait(proxy: ProxyProcess): Promise<readonly Waiting[]> {
  return Promise.all(
    hosts.map(async (_, at) => {
      const one = new Waiting(proxy, at);
      await own({ close: () => void one.socket.destroy() });
      return one;
    }),
  );
}

const held = (proxy: ProxyProcess): Promise<number | undefined> =>
  proxy.metric("authbridge_approvals_held");

/** Ends one of the threads; resolves when another serves in its place. */
async function endOne(proxy: ProxyProcess): Promise<void> {
  await get(proxy.forward, "http://thread.test/exit").catch(() => undefined);
  await proxy.log(({ msg }) => msg.startsWith("a thread serves in place"));
}

test("its clients are cut, those of others wait on, and who comes again finds the question", async () => {
  const proxy = await start();
  const waiting = await wait(proxy);
  const operator = new Approver(proxy, secret);
  await operator.waitFor(requests);
  await eventually(async () => (await held(proxy)) === requests);
  await endOne(proxy);
  await eventually(async () =>
    expect(await held(proxy)).toBe(waiting.filter((one) => !one.isOver).length),
  );
  const lost = waiting.filter((one) => one.isOver);
  const others = waiting.filter((one) => !one.isOver);
  expect(await operator.pending()).toHaveLength(requests);
  const again = lost.map(({ at }) => new Waiting(proxy, at));
  await eventually(async () => (await held(proxy)) === requests);
  expect(await operator.pending()).toHaveLength(requests);
  for (const { id } of await operator.pending()) await operator.allow(id);
  for (const one of [...others, ...again]) {
    await eventually(() => one.status === 200);
    one.socket.destroy();
  }
  expect(await operator.pending()).toEqual([]);
  await eventually(async () => (await held(proxy)) === 0);
  // Nothing is taken any more of what the tunnels of the thread had.
  await eventually(async () => {
    const tunnels = await Promise.all(
      Array.from({ length: maxTunnels }, () => openTunnel(proxy.forward, far.authority)),
    );
    for (const { client } of tunnels) client.close();
    return tunnels.every(({ answer }) => answer.status === 200);
  });
});

test("nobody comes again: the question ends by itself", async () => {
  const proxy = await start({ approval: { expires: "2s" } });
  await wait(proxy);
  const operator = new Approver(proxy, secret);
  await eventually(async () => (await held(proxy)) === requests);
  await endOne(proxy);
  await operator.waitFor(0);
  await eventually(async () => (await held(proxy)) === 0);
});

describe("a question of a thread that has ended, and a reload that changes its rule", () => {
  const why = "the rules have changed while it waited: send the request again";

  test("it ends for everybody, at once and with the reason, whoever waits", async () => {
    const withdrawn = new Map<string, string>();
    const hook = await own(
      HttpOrigin.launch(({ body }) => {
        const { type, id, why: said } = JSON.parse(body.toString()) as Record<string, string>;
        if (type === "approval.withdrawn") withdrawn.set(id ?? "", said ?? "");
        return reply(200, "ok");
      }),
    );
    const over = { approval: { expires: "1h", hold: "1h", webhook: { url: `${hook.url}/hook` } } };
    const proxy = await start(over);
    const waiting = await wait(proxy);
    const operator = new Approver(proxy, secret);
    const asked = await operator.waitFor(requests);
    await endOne(proxy);
    const lost = await eventually(() => {
      const gone = waiting.filter((one) => one.isOver);
      return gone.length > 0 && gone;
    });
    // Some of those come again, and join the question of the thread that is gone.
    const again = lost.slice(0, 2).map(({ at }) => new Waiting(proxy, at));
    const left = waiting.length - lost.length + again.length;
    await eventually(async () => (await held(proxy)) === left);
    await proxy.reload(fileOf({ ...over, limits: { max_tunnels: maxTunnels, max_body: "1MiB" } }));
    expect(await operator.pending()).toHaveLength(requests);
    await proxy.reload(fileOf(over, "/pass/**"));
    await operator.waitFor(0);
    for (const one of [...waiting.filter((one) => !lost.includes(one)), ...again])
      await eventually(() => one.status === 403);
    await eventually(() => withdrawn.size === requests);
    expect([...withdrawn.keys()].sort()).toEqual(asked.map(({ id }) => id).sort());
    expect(new Set(withdrawn.values())).toEqual(new Set([why]));
    await eventually(() => {
      const lines = proxy.logs.filter(({ event }) => event === "withdrawn");
      expect(lines.map(({ reason }) => reason)).toEqual(Array(requests).fill(why));
    });
  });

  test("also where it changes before another thread serves in its place", async () => {
    const over = { approval: { expires: "1h", hold: "1h" } };
    const proxy = await start(over);
    const waiting = await wait(proxy);
    const operator = new Approver(proxy, secret);
    await operator.waitFor(requests);
    await get(proxy.forward, "http://thread.test/exit").catch(() => undefined);
    await eventually(() => waiting.some((one) => one.isOver));
    await proxy.reload(fileOf(over, "/pass/**"));
    await operator.waitFor(0);
    await eventually(async () => (await held(proxy)) === 0);
  });

  test("also where the process began anew, with its state in a file; other rules end nothing", async () => {
    const over = { approval: { expires: "1h" }, state: { store: "file", path: "state.log" } };
    const proxy = await start(over);
    await wait(proxy);
    await new Approver(proxy, secret).waitFor(requests);
    proxy.signal("SIGKILL");
    await proxy.ended;
    const files = { "state.log": readFileSync(proxy.path("state.log"), "utf8") };
    const next = (path: string, more: Settings = {}): Promise<ProxyProcess> =>
      own(ProxyProcess.start(fileOf(merge(over, more), path), { files }));
    const same = await next("/**");
    await new Approver(same, secret).waitFor(requests);
    const other = await next("/pass/**", { workers: 1 });
    await new Approver(other, secret).waitFor(0);
    const line = await other.log(({ event }) => event === "withdrawn");
    expect(line).toMatchObject({ reason: why });
  });
});
