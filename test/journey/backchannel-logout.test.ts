/** Back-channel logout: what is remembered of a login is dropped where its issuer says that it has ended. */
import { randomUUID } from "node:crypto";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import type { JWTPayload } from "jose";
import { Provider } from "oidc-provider";
import { beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { type Address, RawClient, type RawResponse, request } from "../support/http-client.ts";
import { StubIdp, type TokenShape } from "../support/idp.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { type Settings, testThreads } from "../support/program.ts";
import { merge, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const event = "http://schemas.openid.net/event/backchannel-logout";
const identity = { type: "client-secret", client_id: "agent", client_secret: "agent-secret" };
let agent: HttpOrigin;
let idp: StubIdp;
let proxy: ProxyProcess;

beforeAll(async () => {
  agent = await own(HttpOrigin.launch());
  idp = await own(StubIdp.start());
  proxy = await own(ProxyProcess.start(file()));
  idp.issue = ({ form, path }) =>
    path.endsWith("/introspect")
      ? {
          active: true,
          sub: form.get("token")?.split("-")[1],
          aud: "agent",
          exp: Math.floor(Date.now() / 1000) + 300,
        }
      : { access_token: "exchanged", token_type: "Bearer", expires_in: 300 };
});

function file(config: Settings = {}): Settings {
  return merge(
    settings({
      listener: { reverse_proxy_backend: agent.url, roles: ["reverse", "forward"] },
      egress: { hosts: { "api.test": ["127.0.0.1"] } },
    }),
    {
      pipeline: {
        inbound: {
          plugins: [
            {
              name: "jwt-validation",
              config: {
                issuer: idp.issuer,
                audience: "agent",
                backchannel_logout: true,
                introspection: { identity },
                ...config,
              },
            },
          ],
        },
        outbound: {
          plugins: [
            {
              name: "token-exchange",
              config: { token_url: idp.tokenUrl, identity, default_policy: "exchange" },
            },
          ],
        },
      },
    },
  );
}

/** Calls the agent, and returns the status. */
async function comeIn(token: string, through = proxy): Promise<number> {
  const headers = { Authorization: `Bearer ${token}` };
  return (await request(through.reverse, { target: "/in", headers })).status;
}

/** Calls a tool, and returns how often the token endpoint has been asked for this token. */
async function goOut(token: string, through = proxy): Promise<number> {
  const headers = { Authorization: `Bearer ${token}` };
  const target = `http://api.test:${agent.port}/out`;
  const answer = await request(through.forward, { target, headers });
  expect(answer.status, answer.text).toBe(200);
  return idp.tokenCalls.filter(({ form }) => form.get("subject_token") === token).length;
}

let counter = 0;
const newName = (): string => `user${(counter += 1)}`;
const tokenOf = (claims: JWTPayload): Promise<string> => idp.token({ claims });

function logoutToken(claims: Settings, shape: TokenShape = {}): Promise<string> {
  const without = ["azp", "scope", ...("sub" in claims ? [] : ["sub"]), ...(shape.without ?? [])];
  return idp.token({
    header: { typ: "logout+jwt", ...shape.header },
    claims: { jti: randomUUID(), events: { [event]: {} }, ...claims, ...shape.claims },
    without,
  });
}

function post(
  body: string,
  {
    to = proxy.address("stats"),
    type = "application/x-www-form-urlencoded",
    method = "POST",
  }: { to?: Address; type?: string; method?: string } = {},
): Promise<RawResponse> {
  return request(to, {
    method,
    target: "/backchannel-logout",
    headers: { Host: `${to.host}:${to.port}`, "Content-Type": type },
    ...(body === "" ? {} : { body }),
  });
}

async function logOut(claims: Settings, shape: TokenShape = {}): Promise<RawResponse> {
  return post(new URLSearchParams({ logout_token: await logoutToken(claims, shape) }).toString());
}

describe("a logout", () => {
  test("of a subject drops what was exchanged, and refuses its tokens until there are newer ones", async () => {
    const sub = newName();
    const hourAgo = Math.floor(Date.now() / 1000) - 3_600;
    const token = await tokenOf({ sub, iat: hourAgo });
    const other = await tokenOf({ sub: newName() });
    for (const one of [token, other]) {
      expect(await comeIn(one)).toBe(200);
      expect(await goOut(one)).toBe(1);
      expect(await goOut(one)).toBe(1);
    }
    const answer = await logOut({ sub, iat: hourAgo + 3_300 });
    expect(answer.status, answer.text).toBe(200);
    expect(answer.header("cache-control")).toBe("no-store");
    expect(await comeIn(token)).toBe(401);
    expect(await comeIn(other)).toBe(200);
    expect(await goOut(token)).toBe(2);
    expect(await goOut(other)).toBe(1);
    expect(await comeIn(await tokenOf({ sub }))).toBe(200);
    const line = await proxy.log((one) => one.msg === "login ended by its issuer");
    expect(line).toMatchObject({ issuer: idp.issuer, subject: sub });
    expect(await proxy.metric("authbridge_logouts_total", { result: "accepted" })).toBeGreaterThan(
      0,
    );
    expect(await proxy.metric("authbridge_logout_dropped_total")).toBeGreaterThanOrEqual(2);
    const refused = await proxy.log((one) => one["cause"] === "logged_out");
    expect(refused).toMatchObject({ status: 401, plugin: "jwt-validation" });
  });

  test("of a session leaves the subject's other sessions", async () => {
    const sub = newName();
    const [one, two] = [await tokenOf({ sub, sid: "s1" }), await tokenOf({ sub, sid: "s2" })];
    for (const token of [one, two]) {
      expect(await comeIn(token)).toBe(200);
      await goOut(token);
    }
    expect((await logOut({ sub, sid: "s1" })).status).toBe(200);
    expect([await comeIn(one), await comeIn(two)]).toEqual([401, 200]);
    expect([await goOut(one), await goOut(two)]).toEqual([2, 1]);
    expect((await logOut({ sid: "s2" })).status).toBe(200);
    expect([await comeIn(two), await goOut(two)]).toEqual([401, 2]);
    // Of another user's token with a session of another name nothing is known.
    expect(await comeIn(await tokenOf({ sub: newName(), sid: "s3" }))).toBe(200);
  });

  test("has an opaque token looked up again, and exchanged again", async () => {
    const sub = newName();
    const token = `opaque-${sub}-x`;
    const lookUps = (): number =>
      idp.tokenCalls.filter(({ form }) => form.get("token") === token).length;
    expect([await comeIn(token), await comeIn(token)]).toEqual([200, 200]);
    // Each thread looks it up for itself.
    const before = lookUps();
    expect(before).toBeLessThanOrEqual(testThreads);
    await goOut(token);
    expect((await logOut({ sub })).status).toBe(200);
    expect([await comeIn(token), lookUps()]).toEqual([200, before + 1]);
    expect(await goOut(token)).toBe(2);
  });

  test("outlives a reload, and closes what was upgraded with a token of the login", async () => {
    const through = await own(ProxyProcess.start(file()));
    const sub = newName();
    const token = await tokenOf({ sub });
    agent.answerHead = (head, connection) => {
      if (!head.startLine.includes("/upgraded")) return false;
      void connection.send(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: custom/1\r\n\r\n",
      );
      return true;
    };
    const client = await own(RawClient.connect(through.reverse));
    client.write({
      target: "/upgraded",
      headers: [
        ["Authorization", `Bearer ${token}`],
        ["Connection", "Upgrade"],
        ["Upgrade", "custom/1"],
      ],
    });
    expect((await client.head()).head.startLine).toContain(" 101 ");
    const logout = await logoutToken({ sub });
    const form = new URLSearchParams({ logout_token: logout }).toString();
    expect((await post(form, { to: through.address("stats") })).status).toBe(200);
    await client.untilClosed();
    await through.reload(file({ clock_skew: "1s" }));
    expect(await comeIn(token, through)).toBe(401);
    const again = await post(form, { to: through.address("stats") });
    expect(again.json()).toEqual({ error: "invalid_request", error_description: "replayed" });
  });

  test("drops the handles that stand for its tokens", async () => {
    const config = merge(file({ placeholder_mode: true }), {
      pipeline: {
        outbound: {
          plugins: [
            {
              name: "token-exchange",
              config: {
                token_url: idp.tokenUrl,
                identity,
                default_policy: "exchange",
                resolve_placeholders: true,
              },
            },
          ],
        },
      },
    });
    const through = await own(ProxyProcess.start(config));
    const sub = newName();
    const before = agent.requests.length;
    expect(await comeIn(await tokenOf({ sub }), through)).toBe(200);
    const handle = agent.requests[before]?.header("authorization")?.split(" ")[1] ?? "";
    expect(handle).toMatch(/^abph_/);
    const target = `http://api.test:${agent.port}/out`;
    const headers = { Authorization: `Bearer ${handle}` };
    expect((await request(through.forward, { target, headers })).status).toBe(200);
    const form = new URLSearchParams({ logout_token: await logoutToken({ sub }) }).toString();
    expect((await post(form, { to: through.address("stats") })).status).toBe(200);
    expect((await request(through.forward, { target, headers })).status).toBe(401);
  });
});

describe("a logout token", () => {
  const now = Math.floor(Date.now() / 1000);
  const bad: readonly (readonly [cause: string, name: string, claims: Settings, TokenShape?])[] = [
    ["no_logout_event", "without events", { events: undefined }],
    ["no_logout_event", "with another event", { events: { "http://other": {} } }],
    ["no_logout_event", "with an event that is no object", { events: { [event]: true } }],
    ["no_logout_event", "with a list of events", { events: [event] }],
    ["has_nonce", "with a nonce", { nonce: "n" }],
    ["no_subject", "without sub and sid", { sub: undefined }],
    ["malformed", "with a sub that is no text", { sub: 7 }],
    ["malformed", "with an empty sid", { sid: "" }],
    ["no_id", "without jti", { jti: undefined }],
    ["malformed", "without iat", { iat: undefined }],
    ["issued_in_future", "of tomorrow", { iat: now + 86_400, exp: now + 90_000 }],
    ["expired", "of yesterday", { iat: now - 86_400 }],
    ["expired", "past its end", { exp: now - 3_600 }],
    ["issuer_mismatch", "of another issuer", { iss: "http://evil.test" }],
    ["audience_mismatch", "for another client", { aud: "somebody" }],
    ["audience_mismatch", "for nobody", { aud: undefined }],
    ["type_mismatch", "of the type of access tokens", {}, { header: { typ: "at+jwt" } }],
    ["unknown_key", "of another key", {}, { header: { kid: "unknown" } }],
  ];
  const named = bad.map(([cause, name, claims, shape]) => ({ cause, name, claims, shape }));
  test.each(named)("$cause: $name is refused", async ({ cause, claims, shape }) => {
    const sub = newName();
    const answer = await logOut({ sub, ...claims }, shape);
    expect(answer.status, answer.text).toBe(400);
    expect(answer.json()).toEqual({ error: "invalid_request", error_description: cause });
    expect(answer.header("cache-control")).toBe("no-store");
    expect(await comeIn(await tokenOf({ sub }))).toBe(200);
    await proxy.log((line) => line.msg === "logout token not accepted" && line["cause"] === cause);
  });

  test("that is an access token, is garbage, or signed by nobody is refused", async () => {
    const [header = "", payload = ""] = (await logoutToken({ sub: "x" })).split(".");
    for (const token of [await idp.token(), "a.b.c", "garbage", `${header}.${payload}.c2ln`]) {
      const answer = await post(new URLSearchParams({ logout_token: token }).toString());
      expect(answer.status).toBe(400);
    }
    expect(await proxy.metric("authbridge_logouts_total", { result: "refused" })).toBeGreaterThan(
      3,
    );
  });

  test("is good once, of a hundred at once as well", async () => {
    const form = new URLSearchParams({ logout_token: await logoutToken({ sub: newName() }) });
    const answers = await Promise.all(Array.from({ length: 100 }, () => post(form.toString())));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
  });

  test("may come without typ and exp, as older providers send it", async () => {
    const shape = { header: { typ: undefined }, without: ["exp"] };
    expect((await logOut({ sub: newName() }, shape)).status).toBe(200);
  });
});

describe("the endpoint", () => {
  test("takes a form with one token by POST, and nothing else", async () => {
    const token = await logoutToken({ sub: newName() });
    const get = await post("", { method: "GET" });
    expect([get.status, get.header("allow")]).toEqual([405, "POST"]);
    expect((await post(JSON.stringify({ token }), { type: "application/json" })).status).toBe(415);
    expect((await post("logout_token=")).status).toBe(400);
    expect((await post(`logout_token=${token}&logout_token=${token}`)).status).toBe(400);
    expect((await post(`logout_token=${"x".repeat(700_000)}`)).status).toBe(413);
    const other = await request(proxy.address("stats"), {
      method: "POST",
      target: "/stats",
      headers: { Host: "127.0.0.1" },
      body: "x",
    });
    expect([other.status, other.header("allow")]).toEqual([405, "GET, HEAD"]);
  });

  test("is off by default", async () => {
    const through = await own(ProxyProcess.start(file({ backchannel_logout: false })));
    const sub = newName();
    const form = new URLSearchParams({ logout_token: await logoutToken({ sub }) }).toString();
    expect((await post(form, { to: through.address("stats") })).status).toBe(404);
    expect(await comeIn(await tokenOf({ sub }), through)).toBe(200);
  });

  test("is 503 while the issuer's keys are not there", async () => {
    const silent = await own(StubIdp.start());
    silent.jwksReplies.push(...Array.from({ length: 20 }, () => ({ status: 500, body: "" })));
    const config = { issuer: silent.issuer, wait_for_keys: false };
    const through = await own(ProxyProcess.start(file(config)));
    const token = await silent.token({
      claims: { jti: "1", events: { [event]: {} } },
      header: { typ: "logout+jwt" },
    });
    const form = new URLSearchParams({ logout_token: token }).toString();
    const answer = await eventually(async () => {
      const one = await post(form, { to: through.address("stats") });
      return one.status === 503 && one;
    });
    expect(answer.json()).toMatchObject({ error: "temporarily_unavailable" });
  });

  test("needs the client ids where audiences are those of hosts", async () => {
    const config = file({ audience: undefined, audience_mode: "per-host" });
    await expect(ProxyProcess.start(config)).rejects.toThrow("logout_audiences");
    const named = { audience_mode: "per-host", audience: undefined, logout_audiences: ["app"] };
    const through = await own(ProxyProcess.start(file(named)));
    const form = new URLSearchParams({
      logout_token: await logoutToken({ sub: newName(), aud: ["x", "app"] }),
    }).toString();
    expect((await post(form, { to: through.address("stats") })).status).toBe(200);
  });
});

test("a provider that sends logout tokens ends the login of the tokens that it issued", async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  await own({ close: () => void server.close() });
  let respond: RequestListener = (_request, response) => {
    response.writeHead(503).end();
  };
  server.on("request", (incoming, response) => respond(incoming, response));
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const through = await own(
    ProxyProcess.start(
      file({
        issuer,
        jwks_url: `${issuer}/jwks`,
        audience: "https://agent.example/",
        logout_audiences: ["frontend"],
        wait_for_keys: false,
      }),
    ),
  );
  const { host, port } = through.address("stats");
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: "frontend",
        client_secret: "frontend-secret",
        grant_types: ["authorization_code"],
        redirect_uris: ["https://app.example/cb"],
        backchannel_logout_uri: `http://${host}:${port}/backchannel-logout`,
        backchannel_logout_session_required: true,
      },
    ],
    features: {
      devInteractions: { enabled: false },
      backchannelLogout: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: () => ({
          scope: "tools",
          audience: "https://agent.example/",
          accessTokenFormat: "jwt",
        }),
      },
    },
    cookies: { keys: ["k"] },
    // Its own way out reaches no loopback address.
    fetch: (url, options) => {
      const plain = { ...options };
      Reflect.deleteProperty(plain, "dispatcher");
      return fetch(url, plain);
    },
  });
  const answer = provider.callback();
  respond = (incoming, response) => void answer(incoming, response);
  const client = await provider.Client.find("frontend");
  if (client === undefined) throw new Error("no client");
  const issue = async (accountId: string): Promise<string> => {
    const token = new provider.AccessToken({ accountId, client, scope: "tools" } as never);
    token.resourceServer = new provider.ResourceServer("https://agent.example/", {
      scope: "tools",
      audience: "https://agent.example/",
      accessTokenFormat: "jwt",
      accessTokenTTL: 120,
    });
    return token.save();
  };
  const [alice, bob] = [await issue("alice"), await issue("bob")];
  await eventually(async () => (await comeIn(alice, through)) === 200);
  expect(await comeIn(bob, through)).toBe(200);
  await (
    client as never as { backchannelLogout(sub: string, sid: string): Promise<void> }
  ).backchannelLogout("alice", "session-1");
  expect([await comeIn(alice, through), await comeIn(bob, through)]).toEqual([401, 200]);
});
