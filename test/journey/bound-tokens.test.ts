/** Tokens that are bound to a key of the client: let in with the proof of that key, and not without. */
import { createHash, X509Certificate } from "node:crypto";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "node:tls";
import { beforeAll, describe, expect, test } from "vitest";
import { TestAuthority } from "../support/certs.ts";
import { type ClientCertificate, clientCertificate } from "../support/client-certificate.ts";
import { DpopKey, type ProofShape } from "../support/dpop.ts";
import { eventually } from "../support/eventually.ts";
import { RawClient, type RawResponse, request } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { peerClient } from "../support/peer-client.ts";
import { PeerFiles } from "../support/peer-files.ts";
import { SpiffeAuthority } from "../support/spiffe-authority.ts";
import { oneThread, type Settings } from "../support/program.ts";
import { inbound, merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let agent: HttpOrigin;
let idp: StubIdp;
let key: DpopKey;
let proxy: ProxyProcess;

beforeAll(async () => {
  agent = await own(HttpOrigin.launch());
  idp = await own(StubIdp.start());
  key = await DpopKey.make();
  proxy = await own(guarded());
});

function file(config: Settings = {}): Settings {
  return merge(
    settings({ listener: { reverse_proxy_backend: agent.url, roles: ["reverse"] } }),
    inbound({
      name: "jwt-validation",
      config: { issuer: idp.issuer, audience: "agent", ...config },
    }),
  );
}

function guarded(config: Settings = {}): Promise<ProxyProcess> {
  return ProxyProcess.start(file(config));
}

let counter = 0;
const newPath = (): string => `/call-${(counter += 1)}`;
const boundToken = (to = key): Promise<string> => idp.token({ claims: { cnf: to.cnf } });
const urlOf = (path: string, target = proxy): string =>
  `http://${target.reverse.host}:${target.reverse.port}${path}`;

type Fields = readonly (readonly [string, string])[];

/** Calls the agent by the address that the proxy listens on. */
function call(
  path: string,
  fields: Fields,
  { target = proxy, method = "GET" }: { target?: ProxyProcess; method?: string } = {},
): Promise<RawResponse> {
  const { host, port } = target.reverse;
  return request(target.reverse, {
    method,
    target: path,
    headers: [["Host", `${host}:${port}`], ...fields],
  });
}

/** One call with a fresh bound token and a proof that differs from a good one by `shape`. */
async function prove(
  shape: Partial<ProofShape> = {},
  { target = proxy, path = newPath() }: { target?: ProxyProcess; path?: string } = {},
): Promise<RawResponse> {
  const token = await boundToken();
  const proof = await key.proof({ url: urlOf(path, target), token, ...shape });
  return call(
    path,
    [
      ["Authorization", `DPoP ${token}`],
      ["DPoP", proof],
    ],
    { target },
  );
}

function expectRefused(answer: RawResponse, cause: string, error = "invalid_dpop_proof"): void {
  expect(answer.status, answer.text).toBe(401);
  expect(answer.json()).toEqual({
    error: "auth.unauthorized",
    message: "DPoP proof refused",
    details: { cause },
    plugin: "jwt-validation",
  });
  const challenge = answer.header("www-authenticate");
  expect(challenge).toMatch(/^DPoP realm="authbridge"/);
  expect(challenge).toContain(`error="${error}"`);
  expect(challenge).toMatch(/algs="[^"]*ES256[^"]*"/);
}

describe("a token bound with DPoP", () => {
  test("is let in with its proof, and the agent gets both", async () => {
    const path = newPath();
    const answer = await prove({}, { path });
    expect(answer.status, answer.text).toBe(200);
    const seen = agent.requestFor(path);
    expect(seen.header("authorization")).toMatch(/^DPoP /);
    expect(seen.header("dpop")).toMatch(/^ey/);
    const labels = { plugin: "jwt-validation", event: "proof_accepted" };
    expect(await proxy.metric("authbridge_plugin_events_total", labels)).toBeGreaterThan(0);
  });

  test.each(["EdDSA", "PS256", "RS256", "ES384"])("may be bound to a key for %s", async (alg) => {
    const other = await DpopKey.make(alg);
    const path = newPath();
    const token = await boundToken(other);
    const proof = await other.proof({ url: urlOf(path), token });
    const answer = await call(path, [
      ["authorization", `dpop ${token}`],
      ["dpop", proof],
    ]);
    expect(answer.status, answer.text).toBe(200);
  });

  test("htu is compared without query, fragment, case of the host and needless encoding", async () => {
    const { port } = proxy.reverse;
    for (const [path, htu] of [
      ["/a?x=1", `http://127.0.0.1:${port}/a`],
      ["/b?x=1", `http://127.0.0.1:${port}/b?y=2#z`],
      ["/%7Euser/%c3%a9", `HTTP://127.0.0.1:${port}/~user/%C3%A9`],
    ] as const) {
      const answer = await prove({ url: htu }, { path });
      expect(answer.status, `${path}: ${answer.text}`).toBe(200);
    }
  });

  const seconds = (offset: number): number => Math.floor(Date.now() / 1000) + offset;
  const bad: readonly (readonly [cause: string, name: string, shape: () => Partial<ProofShape>])[] =
    [
      ["proof_method", "for another method", () => ({ method: "POST" })],
      ["proof_method", "in lower case", () => ({ method: "get" })],
      ["proof_method", "without one", () => ({ without: ["htm"] })],
      ["proof_target", "for another path", () => ({ url: urlOf("/other") })],
      ["proof_target", "for another host", () => ({ url: "http://evil.test/x" })],
      ["proof_target", "for another scheme", () => ({ url: urlOf("/x").replace("http", "https") })],
      ["proof_target", "for a relative address", () => ({ url: "/x" })],
      ["proof_target", "with user information", () => ({ url: urlOf("/x").replace("//", "//a@") })],
      ["proof_target", "without one", () => ({ without: ["htu"] })],
      ["proof_late", "ten minutes old", () => ({ claims: { iat: seconds(-600) } })],
      ["proof_early", "five minutes ahead", () => ({ claims: { iat: seconds(300) } })],
      ["proof_malformed", "with a date as text", () => ({ claims: { iat: "1" as never } })],
      ["proof_malformed", "without a date", () => ({ without: ["iat"] })],
      ["proof_malformed", "without an id", () => ({ without: ["jti"] })],
      ["proof_malformed", "with an empty id", () => ({ claims: { jti: "" } })],
      ["proof_malformed", "of another type", () => ({ header: { typ: "JWT" } })],
      ["proof_malformed", "without a key", () => ({ header: { jwk: undefined } })],
      ["proof_token", "for another token", () => ({ token: "another" })],
      ["proof_token", "without the hash", () => ({ without: ["ath"] })],
    ];
  test.each(bad)("%s: a proof %s is refused", async (cause, _name, shape) => {
    const path = "/x";
    expectRefused(await prove(shape(), { path }), cause);
  });

  test("proof_key: a proof of another key is refused", async () => {
    const thief = await DpopKey.make();
    const path = newPath();
    const token = await boundToken();
    const proof = await thief.proof({ url: urlOf(path), token });
    const fields: Fields = [
      ["Authorization", `DPoP ${token}`],
      ["DPoP", proof],
    ];
    expectRefused(await call(path, fields), "proof_key", "invalid_token");
    // The right key in the header does not help who cannot sign with it.
    const forged = await thief.proof({ url: urlOf(path), token, header: { jwk: key.jwk } });
    expectRefused(
      await call(path, [
        ["Authorization", `DPoP ${token}`],
        ["DPoP", forged],
      ]),
      "proof_signature",
    );
  });

  test("a proof with the private key in it, unsigned, or with a symmetric algorithm is refused", async () => {
    expectRefused(
      await prove({ header: { jwk: { ...(await key.privateJwk()) } } }),
      "proof_malformed",
    );
    const path = newPath();
    const token = await boundToken();
    const [header = "", payload = ""] = (await key.proof({ url: urlOf(path), token })).split(".");
    for (const alg of ["none", "HS256"]) {
      const changed = {
        ...(JSON.parse(Buffer.from(header, "base64url").toString()) as Settings),
        alg,
      };
      const encoded = Buffer.from(JSON.stringify(changed)).toString("base64url");
      const answer = await call(path, [
        ["Authorization", `DPoP ${token}`],
        ["DPoP", `${encoded}.${payload}.c2ln`],
      ]);
      expectRefused(answer, "proof_algorithm");
    }
  });

  test("without a proof, with two, or with none of that name, it is refused", async () => {
    const path = newPath();
    const token = await boundToken();
    const authorization = ["Authorization", `DPoP ${token}`] as const;
    expectRefused(await call(path, [authorization]), "proof_missing");
    const proofs = await Promise.all([1, 2].map(() => key.proof({ url: urlOf(path), token })));
    const fields = proofs.map((proof) => ["DPoP", proof] as const);
    expectRefused(await call(path, [authorization, ...fields]), "proof_malformed");
    const joined = ["DPoP", proofs.join(", ")] as const;
    expectRefused(await call(path, [authorization, joined]), "proof_malformed");
    expect(agent.requestsFor(path)).toHaveLength(0);
  });

  test("as a bearer token it is refused, with or without a proof, and the challenge names DPoP", async () => {
    const path = newPath();
    const token = await boundToken();
    const proof = await key.proof({ url: urlOf(path), token });
    for (const fields of [[], [["DPoP", proof]]] as readonly Fields[]) {
      const answer = await call(path, [["Authorization", `Bearer ${token}`], ...fields]);
      expect(answer.status).toBe(401);
      expect(answer.json()).toMatchObject({ message: "token validation failed" });
      expect(answer.header("www-authenticate")).toMatch(
        /^Bearer realm="authbridge", error="invalid_token", DPoP realm="authbridge", algs="/,
      );
    }
  });

  test("an unbound token is none under the scheme DPoP", async () => {
    const path = newPath();
    const token = await idp.token();
    const proof = await key.proof({ url: urlOf(path), token });
    const answer = await call(path, [
      ["Authorization", `DPoP ${token}`],
      ["DPoP", proof],
    ]);
    expect(answer.status).toBe(401);
    expect(answer.header("www-authenticate")).toMatch(/^DPoP .*error="invalid_token"/);
    const line = await proxy.log((one) => one["path"] === path);
    expect(line).toMatchObject({ cause: "not_bound", claim: "cnf" });
  });

  test("a bad token with a good proof uses no proof up", async () => {
    const path = newPath();
    const now = Math.floor(Date.now() / 1000);
    const expired = await idp.token({ claims: { cnf: key.cnf, exp: now - 60 } });
    const proof = await key.proof({ url: urlOf(path), token: expired });
    const fields: Fields = [
      ["Authorization", `DPoP ${expired}`],
      ["DPoP", proof],
    ];
    for (let round = 0; round < 2; round += 1) {
      const answer = await call(path, fields);
      expect(answer.status).toBe(401);
      expect(answer.header("www-authenticate")).toMatch(/^DPoP .*error="invalid_token"/);
    }
  });
});

describe("a proof", () => {
  async function proven(path: string, target = proxy): Promise<Fields> {
    const token = await boundToken();
    const proof = await key.proof({ url: urlOf(path, target), token });
    return [
      ["Authorization", `DPoP ${token}`],
      ["DPoP", proof],
    ];
  }

  test("is good for one request: of a hundred at once, one passes", async () => {
    const path = newPath();
    const fields = await proven(path);
    const answers = await Promise.all(Array.from({ length: 100 }, () => call(path, fields)));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    for (const answer of answers)
      if (answer.status !== 200) expectRefused(answer, "proof_replayed");
    expect(agent.requestsFor(path)).toHaveLength(1);
  });

  test("a hundred proofs at once pass", async () => {
    const paths = Array.from({ length: 100 }, newPath);
    const answers = await Promise.all(paths.map(async (path) => call(path, await proven(path))));
    expect(answers.map(({ status }) => status)).toEqual(paths.map(() => 200));
  });

  test("that was used is used after a reload, and with another query", async () => {
    const target = await own(guarded());
    const path = newPath();
    const fields = await proven(path, target);
    expect((await call(path, fields, { target })).status).toBe(200);
    await target.reload(file({ required_scopes: ["openid"] }));
    expectRefused(await call(`${path}?again`, fields, { target }), "proof_replayed");
  });

  test("for which there is no room is answered 503 with the key", async () => {
    const few = oneThread("each has its own room", file({ dpop: { max_proofs: 2 } }));
    const target = await own(ProxyProcess.start(few));
    for (let round = 0; round < 2; round += 1)
      expect((await prove({}, { target })).status).toBe(200);
    const answer = await prove({}, { target });
    expect(answer.status).toBe(503);
    expect(answer.json()).toMatchObject({
      error: "proxy.overloaded",
      message: expect.stringContaining("dpop.max_proofs"),
    });
  });

  test("of an upgrade counts as long as its connection is open", async () => {
    const target = await own(guarded());
    const path = newPath();
    agent.answerHead = (head, connection) => {
      if (!head.startLine.includes(path)) return false;
      void connection.send(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: custom/1\r\n\r\n",
      );
      void connection.reader.exactly(4).then((bytes) => connection.send(bytes));
      return true;
    };
    const client = await own(RawClient.connect(target.reverse));
    const { host, port } = target.reverse;
    client.write({
      target: path,
      headers: [
        ["Host", `${host}:${port}`],
        ["Connection", "Upgrade"],
        ["Upgrade", "custom/1"],
        ...(await proven(path, target)),
      ],
    });
    expect((await client.head()).head.startLine).toContain(" 101 ");
    await target.reload(file({ clock_skew: "1s" }));
    client.send("ping");
    expect((await client.reader.exactly(4)).toString()).toBe("ping");
    await target.reload(file({ issuer: "http://other.test" }));
    await client.untilClosed();
  });
});

describe("dpop.required", () => {
  test("takes no other token, and the challenge names no other scheme", async () => {
    const target = await own(guarded({ dpop: { required: true } }));
    expect((await prove({}, { target })).status).toBe(200);
    const bare = await call(newPath(), [], { target });
    expect(bare.status).toBe(401);
    expect(bare.header("www-authenticate")).toMatch(/^DPoP realm="authbridge", algs="[^"]+"$/);
    const token = await idp.token();
    const answer = await call(newPath(), [["Authorization", `Bearer ${token}`]], { target });
    expect(answer.status).toBe(401);
    expect(answer.header("www-authenticate")).toMatch(/^DPoP .*error="invalid_token"/);
  });

  test("cannot be combined with tokens that are taken without proof", async () => {
    const answer = await ProxyProcess.start(
      file({ dpop: { required: true }, bound_tokens: "accept" }),
    ).catch((error: unknown) => String(error));
    expect(answer).toContain("bound_tokens");
    expect(answer).toContain("dpop.required");
  });
});

describe("dpop.nonce", () => {
  test("is handed out with the refusal, and then asked for", async () => {
    const target = await own(guarded({ dpop: { nonce: true } }));
    const first = await prove({}, { target });
    expectRefused(first, "proof_nonce", "use_dpop_nonce");
    const nonce = first.header("dpop-nonce") ?? "";
    expect(nonce).not.toBe("");
    expect(first.header("cache-control")).toBe("no-store");
    // The nonce says how old the proof is; the client's clock does not matter.
    const claims = { iat: Math.floor(Date.now() / 1000) - 7_200 };
    const good = await prove({ nonce, claims }, { target });
    expect(good.status, good.text).toBe(200);
    expectRefused(await prove({ nonce: "mine" }, { target }), "proof_nonce", "use_dpop_nonce");
    const path = newPath();
    const token = await boundToken();
    const proof = await key.proof({ url: urlOf(path, target), token, nonce });
    const fields: Fields = [
      ["Authorization", `DPoP ${token}`],
      ["DPoP", proof],
    ];
    expect((await call(path, fields, { target })).status).toBe(200);
    expectRefused(await call(path, fields, { target }), "proof_replayed");
  });

  test("of another process is none", async () => {
    const [one, two] = [
      await own(guarded({ dpop: { nonce: true } })),
      await own(guarded({ dpop: { nonce: true } })),
    ];
    const nonce = (await prove({}, { target: one })).header("dpop-nonce");
    expectRefused(await prove({ nonce }, { target: two }), "proof_nonce", "use_dpop_nonce");
  });

  test("is renewed by responses before it ends", async () => {
    const target = await own(guarded({ dpop: { nonce: true, nonce_lifetime: "1s" } }));
    let nonce = (await prove({}, { target })).header("dpop-nonce");
    const renewed = await eventually(async () => {
      const answer = await prove({ nonce }, { target });
      const next = answer.header("dpop-nonce");
      if (answer.status === 200 && next !== undefined) return next;
      nonce = next ?? nonce;
      return false;
    });
    expect(renewed).not.toBe(nonce);
  });
});

test("dpop.proof_lifetime: as old as that, and what the clocks may differ by, a proof may be", async () => {
  const target = await own(guarded({ dpop: { proof_lifetime: "10m" } }));
  const old = (seconds: number): Partial<ProofShape> => ({
    claims: { iat: Math.floor(Date.now() / 1_000) - seconds },
  });
  expect((await prove(old(600), { target })).status).toBe(200);
  expectRefused(await prove(old(660), { target }), "proof_late");
});

test("dpop.public_urls: htu is what clients call, whatever the Host field says", async () => {
  const publicUrl = "https://gateway.example/agents/weather";
  const target = await own(guarded({ dpop: { public_urls: [publicUrl, "https://a.example/"] } }));
  const path = newPath();
  expect((await prove({ url: publicUrl + path }, { target, path })).status).toBe(200);
  expect((await prove({ url: `https://a.example${path}` }, { target, path })).status).toBe(200);
  expectRefused(await prove({}, { target, path }), "proof_target");
  expectRefused(await prove({ url: publicUrl }, { target, path }), "proof_target");
});

test.each(["refuse", "accept"])("bound_tokens: %s asks for no proof", async (mode) => {
  const target = await own(guarded({ bound_tokens: mode }));
  const answer = await call(newPath(), [["Authorization", `Bearer ${await boundToken()}`]], {
    target,
  });
  expect(answer.status).toBe(mode === "accept" ? 200 : 401);
  if (mode === "refuse") expect((await prove({}, { target })).status).toBe(401);
});

describe("a token bound to a client certificate", () => {
  let authority: TestAuthority;
  let client: ClientCertificate;
  let secure: ProxyProcess;
  let api: HttpOrigin;

  const thumbprint = ({ cert }: ClientCertificate): string =>
    createHash("sha256").update(new X509Certificate(cert).raw).digest("base64url");

  beforeAll(async () => {
    api = await own(HttpOrigin.launch());
    authority = await TestAuthority.create();
    client = clientCertificate("spiffe://example.test/client");
    const server = await authority.server();
    const where = await mkdtemp(join(tmpdir(), "authbridge-bound-"));
    const files = { "tls.crt": server.cert, "tls.key": server.key, "clients.crt": client.ca };
    for (const [name, text] of Object.entries(files)) await writeFile(join(where, name), text);
    secure = await own(
      ProxyProcess.start(
        merge(
          settings({
            egress: { hosts: { "api.test": ["127.0.0.1"] } },
            listener: {
              forward_proxy_tls: {
                cert_file: join(where, "tls.crt"),
                key_file: join(where, "tls.key"),
                client_ca_file: join(where, "clients.crt"),
              },
            },
          }),
          outbound({
            name: "jwt-validation",
            config: { issuer: idp.issuer, audience: "agent" },
          }),
        ),
      ),
    );
  });

  /** The status of one request over TLS, with several on the same connection where asked. */
  function ask(
    certificate: Partial<Pick<ClientCertificate, "cert" | "key">>,
    token: string,
    fields: Fields = [],
  ): Promise<number> {
    return new Promise((resolve, reject) => {
      const { host, port } = secure.forward;
      const socket = connect({
        host,
        port,
        servername: "localhost",
        ca: authority.caPem,
        ...certificate,
      });
      socket.once("error", reject);
      socket.once("data", (bytes) => {
        resolve(Number(bytes.toString("latin1").split(" ")[1]));
        socket.destroy();
      });
      const more = fields.map(([name, value]) => `${name}: ${value}\r\n`).join("");
      const scheme = fields.length === 0 ? "Bearer" : "DPoP";
      const url = `http://api.test:${api.port}/`;
      socket.write(
        `GET ${url} HTTP/1.1\r\nHost: api.test:${api.port}\r\nAuthorization: ${scheme} ${token}\r\n${more}\r\n`,
      );
    });
  }

  test("is let in over a connection with that certificate, and over no other", async () => {
    const token = await idp.token({ claims: { cnf: { "x5t#S256": thumbprint(client) } } });
    expect(await ask({ cert: client.cert, key: client.key }, token)).toBe(200);
    expect(await ask({}, token)).toBe(401);
    const other = clientCertificate("spiffe://example.test/client");
    expect(await ask({ cert: other.cert, key: other.key }, token)).toBe(401);
    for (const cause of ["bound_to_key", "certificate_mismatch"]) {
      await secure.log((line) => line["cause"] === cause);
    }
  });

  test("is let in with a certificate that no authority vouches for: the key is what counts", async () => {
    const selfMade = clientCertificate("spiffe://example.test/other");
    const token = await idp.token({ claims: { cnf: { "x5t#S256": thumbprint(selfMade) } } });
    expect(await ask({ cert: selfMade.cert, key: selfMade.key }, token)).toBe(200);
  });

  test("and to a key as well needs both proofs", async () => {
    const cnf = { ...key.cnf, "x5t#S256": thumbprint(client) };
    const token = await idp.token({ claims: { cnf } });
    const url = `http://api.test:${api.port}/`;
    const proof = async (): Promise<Fields> => [["DPoP", await key.proof({ url, token })]];
    const both = { cert: client.cert, key: client.key };
    expect(await ask(both, token, await proof())).toBe(200);
    expect(await ask(both, token)).toBe(401);
    expect(await ask({}, token, await proof())).toBe(401);
  });
});

test("a peer of mutual TLS proves what its token is bound to, by its certificate or with DPoP for https", async () => {
  const authority = SpiffeAuthority.create();
  const files = await PeerFiles.write(authority.svid("/agent"), [authority]);
  const mtls = { mtls: { mode: "permissive" }, spiffe: files.spiffe };
  const target = await own(ProxyProcess.start(merge(file(), mtls)));
  const [peer, other] = [authority.svid("/peer"), authority.svid("/other")];
  const raw = new X509Certificate(peer.cert).raw;
  const bound = createHash("sha256").update(raw).digest("base64url");
  const token = await idp.token({ claims: { cnf: { "x5t#S256": bound } } });
  const { host, port } = target.reverse;
  const fields = { Host: `${host}:${port}`, Authorization: `Bearer ${token}` };
  const status = async (svid: typeof peer, headers: Readonly<Record<string, string>>) => {
    const client = await own(peerClient(target.reverse, svid));
    return (await client.ask({ target: "/peer", headers })).status;
  };
  expect(await status(peer, fields)).toBe(200);
  expect(await status(other, fields)).toBe(401);
  expect((await call("/peer", [["Authorization", `Bearer ${token}`]], { target })).status).toBe(
    401,
  );
  const withKey = await boundToken();
  for (const [scheme, expected] of [
    ["https", 200],
    ["http", 401],
  ] as const) {
    const url = `${scheme}://${host}:${port}/peer`;
    const proof = await key.proof({ url, token: withKey });
    const proven = { Host: `${host}:${port}`, Authorization: `DPoP ${withKey}`, DPoP: proof };
    expect(await status(peer, proven)).toBe(expected);
  }
});
