/**
 * Where no credential is attached, none is asked for: under on_error: observe, and for connections that are judged again.
 * A stored one is shown to nobody but its destination.
 */
import { beforeAll, expect, test } from "vitest";
import { handSigned, standIn } from "../support/aws-agent.ts";
import { eventually } from "../support/eventually.ts";
import { RawClient, request } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin, TcpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import type { Settings } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const host = "transcribe.eu-central-1.amazonaws.com";
const hosts = { egress: { hosts: { "a.test": ["127.0.0.1"], [host]: ["127.0.0.1"] } } };

let echo: TcpOrigin;
let idp: StubIdp;
let broker: HttpOrigin;

beforeAll(async () => {
  idp = await own(StubIdp.start());
  // Its tokens are over at once, so that none is remembered.
  idp.issue = () => ({ access_token: "exchanged", token_type: "Bearer", expires_in: 1 });
  broker = await own(HttpOrigin.launch());
  echo = await own(
    TcpOrigin.start(async (connection) => {
      await connection.reader.some();
      await connection.send(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
      );
      for (let bytes = await connection.reader.some(60_000); bytes;) {
        await connection.send(bytes);
        bytes = await connection.reader.some(60_000);
      }
    }),
  );
});

const exchange = (): object => ({
  name: "token-exchange",
  config: {
    token_url: idp.tokenUrl,
    identity: { type: "client-secret", client_id: "c", client_secret: "s" },
    default_policy: "exchange",
    audience_from_host: true,
  },
});

test("under on_error: observe nobody is asked for a token that goes nowhere", async () => {
  const origin = await own(HttpOrigin.launch());
  const plugins = [
    exchange(),
    { name: "token-broker", config: { broker_url: broker.url, default_policy: "broker" } },
  ].map((plugin) => ({ ...plugin, on_error: "observe" }));
  const proxy = await own(ProxyProcess.start(settings(outbound(...plugins))));
  const before = idp.tokenCalls.length;
  const response = await request(proxy.forward, {
    target: `${origin.url}/observed`,
    headers: { Host: origin.authority, Authorization: "Bearer mine" },
  });
  expect(response.status).toBe(200);
  expect(origin.requestFor("/observed").header("authorization")).toBe("Bearer mine");
  expect(idp.tokenCalls.length).toBe(before);
  expect(broker.requests).toEqual([]);
  const { events } = (await proxy.sessions("/v1/sessions/default")).json() as {
    events: { invocations?: { outbound?: { plugin: string; reason: string }[] } }[];
  };
  const said = events.flatMap(({ invocations }) => invocations?.outbound ?? []);
  expect(said.map(({ plugin, reason }) => `${plugin} ${reason}`)).toEqual(
    expect.arrayContaining(["token-exchange would_exchange", "token-broker would_ask"]),
  );
});

async function upgraded(
  proxy: ProxyProcess,
  authority: string,
  headers: Readonly<Record<string, string>>,
): Promise<RawClient> {
  const client = await own(RawClient.connect(proxy.forward));
  client.write({
    target: `http://${authority}/`,
    headers: { Host: authority, ...headers, Connection: "Upgrade", Upgrade: "echo" },
  });
  expect((await client.head()).head.startLine).toMatch(/ 101 /);
  return client;
}

async function isEchoed(client: RawClient): Promise<boolean> {
  client.send("still here");
  return (await client.reader.exactly(10))?.toString() === "still here";
}

/** Rules that let both pass, and are others each time. */
const allowing = (count: number): object => ({
  name: "egress-policy",
  config: { allow: ["a.test", host, `other-${count}.test`] },
});
const fileOf = (count: number, plugin: object): Settings =>
  settings(merge(hosts, outbound(allowing(count), plugin)));

test("an open connection is judged again without its token, which nobody can issue any more", async () => {
  const proxy = await own(ProxyProcess.start(fileOf(1, exchange())));
  const headers = { Authorization: "Bearer mine" };
  const client = await upgraded(proxy, `a.test:${echo.port}`, headers);
  const before = idp.tokenCalls.length;
  idp.tokenReplies.push({ status: 400, body: { error: "invalid_grant" } });
  await proxy.reload(fileOf(2, exchange()));
  expect(await isEchoed(client)).toBe(true);
  expect(idp.tokenCalls.length).toBe(before);
  // What refuses it by other rules still does.
  await proxy.reload(
    settings(
      merge(hosts, outbound({ name: "egress-policy", config: { allow: [host] } }, exchange())),
    ),
  );
  await client.untilClosed();
});

test("an open connection that was signed in time is not late when it is judged again", async () => {
  const keys = {
    access_key_id: standIn.accessKeyId,
    secret_access_key: standIn.secretAccessKey,
    credentials: { source: "static", access_key_id: "AKIAREAL", secret_access_key: "real" },
  };
  const signer = {
    name: "aws-sigv4",
    config: {
      keys: [keys],
      routes: { rules: [{ host: "**.amazonaws.com" }] },
      allow_plaintext: true,
      clock_skew: "5s",
    },
  };
  const proxy = await own(ProxyProcess.start(fileOf(1, signer)));
  const authority = `${host}:${echo.port}`;
  const shape = { method: "GET", host: authority, path: "/", region: "eu-central-1" };
  const { host: _, ...fields } = handSigned({ ...shape, service: "transcribe" }).fields;
  const signedAt = Date.now();
  const client = await upgraded(proxy, authority, fields);
  await eventually(() => Date.now() > signedAt + 6_000);
  await proxy.reload(fileOf(2, signer));
  expect(await isEchoed(client)).toBe(true);
});

test.each(["token-exchange", "token-broker"])(
  "a stored credential is no token that %s asks with",
  async (name) => {
    const origin = await own(HttpOrigin.launch());
    const inject = {
      name: "static-inject",
      config: {
        source: "mappings",
        mappings: { "a.test": "stored-secret" },
        hosts: ["a.test"],
        placeholder: "STAND-IN",
      },
    };
    const other =
      name === "token-exchange"
        ? exchange()
        : { name, config: { broker_url: broker.url, default_policy: "broker" } };
    const proxy = await own(ProxyProcess.start(settings(merge(hosts, outbound(inject, other)))));
    const before = idp.tokenCalls.length;
    const authority = `a.test:${origin.port}`;
    const response = await request(proxy.forward, {
      target: `http://${authority}/`,
      headers: { Host: authority, Authorization: "Bearer STAND-IN" },
    });
    expect(response.status).toBe(403);
    expect(response.text).toContain("passthrough");
    expect(response.text).not.toContain("stored-secret");
    expect(idp.tokenCalls.length).toBe(before);
    expect([...broker.requests, ...origin.requests]).toEqual([]);
  },
);
