/** dlp with two threads: a token that one of them was issued is known to the other, and to one that begins later. */
import { fileURLToPath } from "node:url";
import { beforeAll, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { RawClient } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const threadPlugins = fileURLToPath(new URL("../support/thread-plugins.ts", import.meta.url));
const connections = 100;

let origin: HttpOrigin;
let idp: StubIdp;
let proxy: ProxyProcess;

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
  idp = await own(StubIdp.start());
  let issued = 0;
  idp.issue = () => ({
    access_token: `issued-${(issued += 1)}-Zk7Qw93rTbXv5LmN8pYd2Hs6Fg`,
    token_type: "Bearer",
    expires_in: 300,
  });
  const exchange = {
    token_url: idp.tokenUrl,
    identity: { type: "client-secret", client_id: "a", client_secret: "client-secret-of-a" },
    routes: { rules: [{ host: "target.test", target_audience: "target" }] },
  };
  const hosts = { "target.test": ["127.0.0.1"], "free.test": ["127.0.0.1"] };
  proxy = await own(
    ProxyProcess.start(
      settings({
        plugin_modules: [threadPlugins],
        workers: 2,
        egress: { hosts },
        pipeline: {
          outbound: {
            plugins: [{ name: "dlp" }, { name: "token-exchange", config: exchange }, "thread"],
          },
        },
      }),
    ),
  );
});

interface Kept {
  readonly client: RawClient;
  readonly thread: string;
}

const ask = (client: RawClient, host: string, over: object = {}) => {
  const authority = `${host}:${origin.port}`;
  const headers = [["Host", authority] as const];
  return client.ask({ target: `http://${authority}/pass`, headers, ...over });
};

/** Connections of both threads, each of which says whose it is. */
async function dialled(): Promise<readonly Kept[]> {
  const kept = await Promise.all(
    Array.from({ length: connections }, async () => {
      const client = await own(RawClient.connect(proxy.forward));
      return { client, thread: (await ask(client, "free.test")).header("x-thread") ?? "" };
    }),
  );
  expect(new Set(kept.map(({ thread }) => thread)).size).toBe(2);
  return kept;
}

/** Asks on all of them until each is refused. */
async function refused(kept: readonly Kept[], token: string): Promise<void> {
  const body = JSON.stringify({ note: Buffer.from(`it is ${token}`).toString("base64") });
  await eventually(async () => {
    const answers = await Promise.all(
      kept.map(({ client }) => ask(client, "free.test", { method: "POST", body })),
    );
    return answers.every(({ status }) => status === 403);
  });
}

/** The token that the origin has once a client's own was exchanged on this connection. */
async function exchanged({ client }: Kept): Promise<string> {
  const headers = [
    ["Host", `target.test:${origin.port}`],
    ["Authorization", `Bearer ${await idp.token()}`],
  ];
  expect((await ask(client, "target.test", { headers })).status).toBe(200);
  return origin.requests.at(-1)?.header("authorization")?.slice("Bearer ".length) ?? "";
}

test("a token that one thread was issued is refused by both, on a hundred connections", async () => {
  const kept = await dialled();
  for (const thread of new Set(kept.map((one) => one.thread))) {
    const first = kept.find((one) => one.thread === thread);
    const token = first === undefined ? "" : await exchanged(first);
    expect(token).toMatch(/^issued-/);
    await refused(kept, token);
  }
  const told = /authbridge_plugin_events_total\{.*event="own_secret_told".*\}/;
  await eventually(async () => ((await proxy.metric(told)) ?? 0) >= 2);
});

test("a thread that takes the place of another one asks for it", async () => {
  const kept = await dialled();
  const [first] = kept;
  if (first === undefined) throw new Error("nobody is there");
  const token = await exchanged(first);
  const other = kept.find(({ thread }) => thread !== first.thread);
  const exit = `http://thread.test/exit/${other?.thread}`;
  await other?.client
    .ask({ target: exit, headers: [["Host", "thread.test"]] })
    .catch(() => undefined);
  await proxy.log(({ msg }) => msg.startsWith("a thread serves in place"));
  await refused(await dialled(), token);
});
