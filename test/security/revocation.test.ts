/** What was let in under rules that no longer hold: callers, upgrades, and what was on its way when they changed. */
import { beforeAll, expect, test } from "vitest";
import { writeFile } from "node:fs/promises";
import { openTunnel, RawClient } from "../support/http-client.ts";
import { TcpOrigin } from "../support/origin.ts";
import { eventually } from "../support/eventually.ts";
import { StubIdp } from "../support/idp.ts";
import { owner } from "../support/owner.ts";
import { type Settings } from "../support/program.ts";
import { inbound, merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let echo: TcpOrigin;

beforeAll(async () => {
  echo = await own(
    TcpOrigin.start(async (connection) => {
      for (let bytes = await connection.reader.some(60_000); bytes;) {
        const isUpgrade = /^upgrade: echo/im.test(bytes.toString("latin1"));
        await connection.send(
          isUpgrade
            ? "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
            : bytes,
        );
        bytes = await connection.reader.some(60_000);
      }
    }),
  );
});

const hosts: Settings = {
  egress: { hosts: { "a.test": ["127.0.0.1"], "b.test": ["127.0.0.1"] } },
};

const basic = (name: string): Record<string, string> => ({
  "Proxy-Authorization": `Basic ${Buffer.from(`${name}:secret-${name}`).toString("base64")}`,
});

async function isEchoed(client: RawClient): Promise<boolean> {
  client.send("still here");
  return (await client.reader.exactly(10))?.toString() === "still here";
}

test("a caller that is taken out of the file loses its tunnels, another keeps them", async () => {
  const of = (...names: string[]): Settings =>
    settings(
      merge(hosts, {
        callers: { clients: names.map((name) => ({ name, password: `secret-${name}` })) },
        listener: { skip_hosts: ["b.test"] },
      }),
    );
  const proxy = await own(ProxyProcess.start(of("gone", "kept")));
  const open = async (caller: string, host: string): Promise<RawClient> => {
    const { client, answer } = await openTunnel(
      proxy.forward,
      `${host}:${echo.port}`,
      basic(caller),
    );
    expect(answer.status).toBe(200);
    return own(client);
  };
  const gone = [await open("gone", "a.test"), await open("gone", "b.test")];
  const kept = await open("kept", "a.test");
  await proxy.reload(of("kept"));
  for (const client of gone) await client.untilClosed();
  expect(await isEchoed(kept)).toBe(true);
});

test("a file that begins to ask for callers ends the tunnels of those who never said who they are", async () => {
  const proxy = await own(ProxyProcess.start(settings(hosts)));
  const { client, answer } = await openTunnel(proxy.forward, `a.test:${echo.port}`);
  expect(answer.status).toBe(200);
  await own(client);
  const callers = { clients: [{ name: "one", password: "secret-one" }] };
  await proxy.reload(settings(merge(hosts, { callers })));
  await client.untilClosed();
});

test("an upgraded connection that the new rules refuse is closed, another stays", async () => {
  const allowing = (...names: string[]): Settings =>
    settings(merge(hosts, outbound({ name: "egress-policy", config: { allow: names } })));
  const proxy = await own(ProxyProcess.start(allowing("a.test", "b.test")));
  const upgraded = async (host: string): Promise<RawClient> => {
    const client = await own(RawClient.connect(proxy.forward));
    const authority = `${host}:${echo.port}`;
    client.write({
      method: "GET",
      target: `http://${authority}/`,
      headers: { Host: authority, Connection: "Upgrade", Upgrade: "echo" },
    });
    expect((await client.head()).head.startLine).toMatch(/ 101 /);
    expect(await isEchoed(client)).toBe(true);
    return client;
  };
  const [gone, kept] = [await upgraded("a.test"), await upgraded("b.test")];
  await proxy.reload(allowing("b.test"));
  await gone.untilClosed();
  expect(await isEchoed(kept)).toBe(true);
});

test("an upgraded connection that came in is closed when its token is no longer valid, and stays while it is", async () => {
  const [idp, other] = [await own(StubIdp.start()), await own(StubIdp.start())];
  const trusting = (provider: StubIdp, over: Settings = {}): Settings =>
    settings(
      merge(
        merge(over, { listener: { reverse_proxy_backend: `http://${echo.authority}` } }),
        inbound({
          name: "jwt-validation",
          config: { issuer: provider.issuer, audience: "agent" },
        }),
      ),
    );
  const proxy = await own(ProxyProcess.start(trusting(idp)));
  const client = await own(RawClient.connect(proxy.reverse));
  client.write({
    method: "GET",
    target: "/",
    headers: {
      Host: "agent.test",
      Authorization: `Bearer ${await idp.token()}`,
      Connection: "Upgrade",
      Upgrade: "echo",
    },
  });
  expect((await client.head()).head.startLine).toMatch(/ 101 /);
  // Rules about what leaves are none about what comes in.
  const callers = { clients: [{ name: "one", password: "secret-one" }] };
  await proxy.reload(trusting(idp, { callers }));
  expect(await isEchoed(client)).toBe(true);
  await proxy.reload(trusting(other, { callers }));
  await client.untilClosed();
});

test("a tunnel that was being judged while the rules changed is judged by the new ones", async () => {
  const waiting = (over: Settings = {}, ...more: object[]): Settings =>
    settings(
      merge(merge(hosts, over), outbound({ name: "door", config: { until: "opened" } }, ...more)),
    );
  const proxy = await own(ProxyProcess.start(waiting()));
  const client = await own(RawClient.connect(proxy.forward));
  client.write({ method: "CONNECT", target: `a.test:${echo.port}` });
  await eventually(async () => (await proxy.records("opened.waiting")).length > 0);
  await proxy.reload(waiting({}, { name: "connect-denier", config: { host: "a.test" } }));
  await writeFile(proxy.path("opened"), "");
  // The chain that it came in with says yes; what is open then is cut.
  await client.untilClosed();
});
