/** token-exchange with DPoP: tokens that are bound to a key of the proxy, and a proof of it with every request. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Provider } from "oidc-provider";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { readAll, TlsOrigin } from "../support/tls-origin.ts";
import { hashOf, readProof } from "../support/dpop.ts";
import { get, request, type RawResponse, type RequestShape } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin, type RecordedRequest, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { oneThread, type Settings } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const identity = { type: "client-secret", client_id: "my-client", client_secret: "my-secret" };
let api: HttpOrigin;
let idp: StubIdp;
let proxy: ProxyProcess;

beforeAll(async () => {
  api = await own(HttpOrigin.launch());
  idp = await own(StubIdp.start());
  proxy = await own(
    exchanging({
      routes: { rules: [{ host: "plain.test", dpop: "off" }, { host: "api.test" }] },
    }),
  );
});

beforeEach(() => {
  idp.issue = ({ form }) => ({
    access_token: `for-${form.get("subject_token") ?? "nobody"}`,
    token_type: "DPoP",
    expires_in: 300,
  });
});

function file(config: Settings = {}, over: Settings = {}): Settings {
  const hosts = { "api.test": ["127.0.0.1"], "plain.test": ["127.0.0.1"] };
  return merge(
    settings(merge({ egress: { hosts } }, over)),
    outbound({
      name: "token-exchange",
      config: {
        token_url: idp.tokenUrl,
        identity,
        dpop: "process",
        default_policy: "exchange",
        ...config,
      },
    }),
  );
}

function exchanging(config: Settings = {}, over: Settings = {}): Promise<ProxyProcess> {
  return ProxyProcess.start(file(config, over));
}

let counter = 0;
const newPath = (): string => `/call-${(counter += 1)}`;

function call(
  path: string,
  token: string,
  { through = proxy, host = "api.test", shape = {} }: Through = {},
): Promise<RawResponse> {
  return request(through.forward, {
    target: `http://${host}:${api.port}${path}`,
    headers: { Authorization: `Bearer ${token}` },
    ...shape,
  });
}

interface Through {
  readonly through?: ProxyProcess;
  readonly host?: string;
  readonly shape?: Partial<RequestShape>;
}

async function proven(seen: RecordedRequest): ReturnType<typeof readProof> {
  const proof = seen.header("dpop");
  if (proof === undefined) throw new Error("no proof");
  return readProof(proof);
}

describe("an exchanged token", () => {
  test("is bound to the proxy's key, and each request proves it anew", async () => {
    const paths = [`${newPath()}?q=1`, newPath()];
    for (const path of paths) expect((await call(path, "alice")).status).toBe(200);
    const [asked, ...more] = idp.tokenCalls.filter(
      ({ form }) => form.get("subject_token") === "alice",
    );
    expect(more).toHaveLength(0);
    const forToken = await readProof(asked?.dpop ?? "");
    expect(forToken.claims).toMatchObject({ htm: "POST", htu: idp.tokenUrl });
    expect(forToken.claims["ath"]).toBeUndefined();
    const ids = new Set([forToken.claims.jti]);
    for (const path of paths) {
      const bare = path.split("?")[0] ?? "";
      const seen = api.requestFor(bare);
      expect(seen.header("authorization")).toBe("DPoP for-alice");
      const { thumbprint, claims } = await proven(seen);
      expect(thumbprint).toBe(forToken.thumbprint);
      expect(claims).toMatchObject({
        htm: "GET",
        htu: `http://api.test:${api.port}${bare}`,
        ath: hashOf("for-alice"),
      });
      ids.add(claims.jti);
    }
    expect(ids.size).toBe(3);
  });

  test("is cached with its key through a reload", async () => {
    const through = await own(exchanging());
    const [before, after] = [newPath(), newPath()];
    await call(before, "carol", { through });
    await through.reload(file({ audience_from_host: false, issued_audiences: "any" }));
    await call(after, "carol", { through });
    const keys = await Promise.all(
      [before, after].map(async (path) => (await proven(api.requestFor(path))).thumbprint),
    );
    expect(keys[0]).toBe(keys[1]);
  });

  test("goes without a proof to a host whose route says so, and the client's own proof never does", async () => {
    idp.issue = () => ({ access_token: "plain", token_type: "Bearer", expires_in: 300 });
    const path = newPath();
    const headers = { Authorization: "DPoP bob", DPoP: "of.the.client" };
    const shape = { headers };
    expect((await call(path, "bob", { host: "plain.test", shape })).status).toBe(200);
    expect(api.requestFor(path).header("authorization")).toBe("Bearer plain");
    expect(api.requestFor(path).header("dpop")).toBeUndefined();
    const asked = idp.tokenCalls.find(({ form }) => form.get("subject_token") === "bob");
    expect(asked?.dpop).toBeUndefined();
  });

  test("that is not bound is not used", async () => {
    idp.issue = () => ({ access_token: "loose", token_type: "Bearer", expires_in: 300 });
    const path = newPath();
    const answer = await call(path, "dave");
    expect(answer.status).toBe(503);
    expect(api.requestsFor(path)).toHaveLength(0);
    const line = await proxy.log((one) => String(one["reason"]).includes("not bound"));
    expect(line["reason"]).toContain("(dpop)");
    expect(proxy.stderr).not.toContain("loose");
  });

  test("dpop: caller has a key for each caller", async () => {
    const callers = {
      clients: [
        { name: "one", password: "1" },
        { name: "two", password: "2" },
      ],
    };
    const through = await own(exchanging({ dpop: "caller" }, { callers }));
    const keys = new Map<string, string>();
    for (const name of ["one", "two", "one"]) {
      const path = newPath();
      const password = name === "one" ? "1" : "2";
      const credentials = Buffer.from(`${name}:${password}`).toString("base64");
      const headers = {
        Authorization: "Bearer eve",
        "Proxy-Authorization": `Basic ${credentials}`,
      };
      expect((await call(path, "eve", { through, shape: { headers } })).status).toBe(200);
      const { thumbprint } = await proven(api.requestFor(path));
      expect(keys.get(name) ?? thumbprint).toBe(thumbprint);
      keys.set(name, thumbprint);
    }
    expect(keys.get("one")).not.toBe(keys.get("two"));
  });
});

describe("a nonce", () => {
  const alone = oneThread("another thread hears of a nonce a moment later", {});

  test("of the token endpoint is used at once and kept for the next token", async () => {
    const through = await own(exchanging({}, alone));
    const before = idp.tokenCalls.length;
    idp.tokenReplies.push({
      status: 400,
      body: { error: "use_dpop_nonce" },
      headers: { "content-type": "application/json", "DPoP-Nonce": "idp-1" },
    });
    expect((await call(newPath(), "n-1", { through })).status).toBe(200);
    expect((await call(newPath(), "n-2", { through })).status).toBe(200);
    const proofs = await Promise.all(
      idp.tokenCalls.slice(before).map(async ({ dpop = "" }) => (await readProof(dpop)).claims),
    );
    expect(proofs.map(({ nonce }) => nonce)).toEqual([undefined, "idp-1", "idp-1"]);
    expect(new Set(proofs.map(({ jti }) => jti)).size).toBe(3);
  });

  test("is asked for once by a token endpoint that never likes it", async () => {
    const before = idp.tokenCalls.length;
    const refusal = {
      status: 400,
      body: { error: "use_dpop_nonce" },
      headers: { "content-type": "application/json", "DPoP-Nonce": "idp-2" },
    };
    idp.tokenReplies.push(refusal, refusal);
    expect((await call(newPath(), "n-3")).status).toBe(503);
    expect(idp.tokenCalls.length - before).toBe(2);
  });

  const challenge = (nonce: string): string =>
    reply(401, "no", {
      "WWW-Authenticate": 'Bearer realm="x", DPoP realm="x", error="use_dpop_nonce", algs="ES256"',
      "DPoP-Nonce": nonce,
    });

  /** Wants a nonce, and takes none but that. */
  function wanting(path: string, nonce: string): void {
    api.on(path, async (seen) => {
      const { claims } = await proven(seen);
      return claims["nonce"] === nonce ? reply(200, `got ${seen.text}`) : challenge(nonce);
    });
  }

  test.each([
    ["GET", undefined, {}],
    ["POST", "small body", {}],
    ["POST", "6\r\nchunks\r\n0\r\n\r\n", { "Transfer-Encoding": "chunked" }],
  ] as const)("of an origin: %s %s is sent again with it", async (method, body, fields) => {
    const through = await own(exchanging({}, alone));
    const path = newPath();
    wanting(path, "origin-1");
    const headers = { Authorization: "Bearer frank", ...fields };
    const shape = { method, headers, ...(body === undefined ? {} : { body }) };
    const answer = await call(path, "frank", { through, shape });
    expect(answer.status, answer.text).toBe(200);
    const sent = body?.includes("chunks") === true ? "chunks" : (body ?? "");
    expect(answer.text).toBe(`got ${sent}`);
    const seen = api.requestsFor(path);
    expect(seen).toHaveLength(2);
    const ids = await Promise.all(seen.map(async (one) => (await proven(one)).claims.jti));
    expect(new Set(ids).size).toBe(2);
    // The next request has it from the start.
    const next = newPath();
    wanting(next, "origin-1");
    expect((await call(next, "frank", { through })).status).toBe(200);
    expect(api.requestsFor(next)).toHaveLength(1);
  });

  test("of a good response is used from then on", async () => {
    const through = await own(exchanging({}, alone));
    const [first, second] = [newPath(), newPath()];
    api.on(first, () => reply(200, "", { "DPoP-Nonce": "origin-2" }));
    await call(first, "grace", { through });
    await call(second, "grace", { through });
    expect((await proven(api.requestFor(second))).claims["nonce"]).toBe("origin-2");
  });

  test("that an origin never likes is tried once, and the client gets the refusal", async () => {
    const path = newPath();
    api.on(path, () => challenge("never"));
    const answer = await call(path, "heidi");
    expect(answer.status).toBe(401);
    expect(answer.text).toBe("no");
    expect(api.requestsFor(path)).toHaveLength(2);
  });

  test("is no reason to send a body again that was too large to keep; the next request has it", async () => {
    const through = await own(exchanging());
    const path = newPath();
    wanting(path, "origin-3");
    const body = Buffer.alloc(300_000, "x");
    const headers = { Authorization: "Bearer ivan" };
    const shape = { method: "POST", headers, body };
    expect((await call(path, "ivan", { through, shape })).status).toBe(401);
    expect((await call(path, "ivan", { through, shape })).status).toBe(200);
    expect(api.requestsFor(path)).toHaveLength(2);
  });

  test("a hundred requests at once each get their response", async () => {
    const through = await own(exchanging());
    const paths = Array.from({ length: 100 }, newPath);
    for (const path of paths) wanting(path, "origin-4");
    const answers = await Promise.all(paths.map((path) => call(path, "judy", { through })));
    expect(answers.map(({ status }) => status)).toEqual(paths.map(() => 200));
  });
});

describe.each(["http/1.1", "h2"] as const)(
  "an origin that speaks %s, through the bridge",
  (speaks) => {
    test("gets the request again with its nonce, body included", async () => {
      const authority = await TestAuthority.create();
      const host = "api.allowed.test";
      const origin = await own(TlsOrigin.start(await authority.server([host]), speaks));
      const bridge = await own(
        BridgeProxy.start({
          ports: [origin.port],
          originCa: authority.caPem,
          bridge: { upstream_http2: speaks === "h2" ? "on" : "off" },
          plugins: [
            {
              name: "token-exchange",
              config: {
                token_url: idp.tokenUrl,
                identity,
                dpop: "process",
                default_policy: "exchange",
              },
            },
          ],
        }),
      );
      const targets: unknown[] = [];
      origin.on("/paid", async (incoming, response, seen) => {
        await readAll(incoming, seen);
        const { claims } = await readProof(String(incoming.headers["dpop"]));
        targets.push(claims["htu"]);
        if (claims["nonce"] !== "tls-1") {
          response.statusCode = 401;
          response.setHeader("www-authenticate", 'DPoP error="use_dpop_nonce"');
          response.setHeader("dpop-nonce", "tls-1");
        }
        response.end(seen.body);
      });
      const wire = await bridge.http1(origin.at(host));
      const ask = (body: string): Promise<RawResponse> =>
        wire.exchange(
          `POST /paid HTTP/1.1\r\nHost: ${origin.at(host)}\r\nAuthorization: Bearer kim\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
        );
      for (const body of ["first", "second"]) {
        const answer = await ask(body);
        expect([answer.status, answer.text]).toEqual([200, body]);
      }
      wire.close();
      expect(targets).toEqual(Array(3).fill(`https://${origin.at(host)}/paid`));
    });
  },
);

test("an authorization server that verifies proofs and wants nonces gives a bound token", async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  await own({ close: () => void server.close() });
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: "my-client",
        client_secret: "my-secret",
        grant_types: ["client_credentials"],
        redirect_uris: [],
        response_types: [],
        token_endpoint_auth_method: "client_secret_post",
      },
    ],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      introspection: { enabled: true },
      dPoP: { enabled: true, nonceSecret: Buffer.alloc(32, 7), requireNonce: () => true },
    },
    cookies: { keys: ["k"] },
  });
  const respond = provider.callback();
  server.on("request", (incoming, response) => void respond(incoming, response));
  const through = await own(
    exchanging({
      token_url: `${issuer}/token`,
      no_token_policy: "client-credentials",
    }),
  );
  const path = newPath();
  const answer = await get(through.forward, `http://api.test:${api.port}${path}`);
  expect(answer.status, answer.text + through.stderr).toBe(200);
  const seen = api.requestFor(path);
  const [scheme, token = ""] = seen.header("authorization")?.split(" ") ?? [];
  expect(scheme).toBe("DPoP");
  const introspected = await fetch(`${issuer}/token/introspection`, {
    method: "POST",
    body: new URLSearchParams({ token, client_id: "my-client", client_secret: "my-secret" }),
  });
  const { cnf } = (await introspected.json()) as { cnf?: { jkt?: string } };
  expect((await proven(seen)).thumbprint).toBe(cnf?.jkt);
});
