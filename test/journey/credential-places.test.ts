/** A stand-in is replaced in the places that the file opens, on every surface and by every plugin, and never comes back. */
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { StubIdp } from "../support/idp.ts";
import { BothOrigins, placeSurfaces, type Sent } from "../support/place-surfaces.ts";
import { TlsOrigin } from "../support/tls-origin.ts";

const stored = "stored.test";
const exchanged = "exchanged.test";
const real = "sk-Real/12";
const issued = "issued-Token12";
const standIn = "stand-in-key";
const handle = "abph_handle-of-nobody";

const places = [
  { header: "x-api-key" },
  { header: "X-Goog-Api-Key", paths: ["/v1beta/**"] },
  { header: "authorization" },
  { basic: "user" },
  { basic: "password" },
  { query: "key" },
  { path_segment: "bot*" },
  { form: "client_secret", paths: ["/form"] },
  { json: "/auth/0/api~1key", paths: ["/json/*"] },
  { mcp_meta: "example.com/key", paths: ["/mcp"] },
];

let idp: StubIdp;
let origins: BothOrigins;
let proxy: BridgeProxy;
const surfaces = placeSurfaces(() => origins);

beforeAll(async () => {
  const authority = await TestAuthority.create();
  idp = await StubIdp.start();
  idp.issue = () => ({ access_token: issued, token_type: "Bearer", expires_in: 300 });
  const tls = await TlsOrigin.start(await authority.server([stored, exchanged]), "both");
  origins = await BothOrigins.start(tls);
  proxy = await BridgeProxy.start({
    ports: [tls.port],
    originCa: authority.caPem,
    names: [stored, exchanged],
    limits: { max_body: "64KiB" },
    plugins: [
      "mcp-parser",
      {
        name: "static-inject",
        config: {
          source: "mappings",
          mappings: { [stored]: real },
          hosts: [stored],
          placeholder: standIn,
          allow_plaintext: true,
          places,
        },
      },
      {
        name: "token-exchange",
        config: {
          token_url: idp.tokenUrl,
          identity: { type: "client-secret", client_id: "me", client_secret: "mine" },
          routes: { file: "none.yaml", rules: [{ host: exchanged, target_audience: "t" }] },
          no_token_policy: "deny",
          places,
        },
      },
    ],
  });
});
afterAll(async () => {
  await proxy?.close();
  await origins?.close();
  await idp?.close();
});
beforeEach(() => {
  origins.answer = (_seen, response) => response.end("ok");
});

const basic = (pair: string): string => `Basic ${Buffer.from(pair).toString("base64")}`;
const json = { "content-type": "application/json" };
const form = { "content-type": "application/x-www-form-urlencoded" };

interface Row {
  readonly what: string;
  readonly sent: (key: string) => Omit<Sent, "host">;
  /** What the origin has to have seen. */
  readonly seen: (key: string) => readonly string[];
}

const rows: readonly Row[] = [
  {
    what: "a field",
    sent: (key) => ({ path: "/x", headers: { "x-api-key": key } }),
    seen: (key) => [`"x-api-key":"${key}"`],
  },
  {
    what: "a field on its path",
    sent: (key) => ({ path: "/v1beta/models/a", headers: { "x-goog-api-key": key } }),
    seen: (key) => [`"x-goog-api-key":"${key}"`],
  },
  {
    what: "a bearer token",
    sent: (key) => ({ path: "/x", headers: { authorization: `Bearer ${key}` } }),
    seen: (key) => [`"authorization":"Bearer ${key}"`],
  },
  {
    what: "a password",
    sent: (key) => ({ path: "/x", headers: { authorization: basic(`ü-ser:${key}`) } }),
    seen: (key) => [basic(`ü-ser:${key}`)],
  },
  {
    what: "a user",
    sent: (key) => ({ path: "/x", headers: { authorization: basic(`${key}:`) } }),
    seen: (key) => [basic(`${key}:`)],
  },
  {
    what: "a parameter",
    sent: (key) => ({ path: `/x?alt=sse&key=${key}&b=%2f` }),
    seen: (key) => [`/x?alt=sse&key=${encodeURIComponent(key)}&b=%2f`],
  },
  {
    what: "a member of a form",
    sent: (key) => ({
      path: "/form",
      headers: form,
      body: `a=%c3%a4+b&client_secret=${key}&z&client_secret=other`,
    }),
    seen: (key) => [`a=%c3%a4+b&client_secret=${encodeURIComponent(key)}&z&client_secret=other`],
  },
  {
    what: "a text in JSON",
    sent: (key) => ({
      path: "/json/a",
      headers: json,
      body: `{"n": 12345678901234567890.10, "auth" :[{"api/key":"${key}"}],"a":"ä\\u00e4"}`,
    }),
    seen: (key) => [
      `{"n": 12345678901234567890.10, "auth" :[{"api/key":"${key}"}],"a":"ä\\u00e4"}`,
    ],
  },
  {
    what: "a member of _meta",
    sent: (key) => ({
      path: "/mcp",
      headers: { ...json, accept: "application/json, text/event-stream" },
      body: `{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"example.com/key":"${key}"}}}`,
    }),
    seen: (key) => [`{"_meta":{"example.com/key":"${key}"}}`],
  },
];

const plugins = [
  { plugin: "static-inject", host: stored, sends: standIn, attached: real },
  { plugin: "token-exchange", host: exchanged, sends: handle, attached: issued },
];

describe.each(surfaces)("over $name", (surface) => {
  describe.each(plugins)("by $plugin", ({ host, sends, attached }) => {
    test.each(rows)("$what", async ({ sent, seen }) => {
      const got = await surface.send(proxy, { host, ...sent(sends) });
      expect(got.status, got.text).toBe(200);
      const { all, body, headers } = origins.last;
      for (const text of seen(attached)) expect(all.replaceAll("\\/", "/")).toContain(text);
      expect(all).not.toContain(sends);
      if (body.length > 0) expect(headers["content-length"]).toBe(String(body.length));
    });

    test("a segment of the path", async () => {
      // Of a token nobody knows only a handle or a JWT is one in a path.
      const got = await surface.send(proxy, { host, path: `/bot${sends}/send?x=1` });
      expect(got.status, got.text).toBe(200);
      expect(origins.last.url).toBe(`/bot${encodeURIComponent(attached)}/send?x=1`);
    });
  });

  test.each<[string, Omit<Sent, "host">]>([
    ["a field that is not open", { path: "/x", headers: { "x-other": standIn } }],
    ["a field on another path", { path: "/v1/models", headers: { "x-goog-api-key": standIn } }],
    [
      "a path in another spelling",
      { path: "/v1beta/../v1beta/a", headers: { "x-goog-api-key": standIn } },
    ],
    ["another parameter", { path: `/x?q=${standIn}` }],
    [
      "a form that is not its type",
      { path: "/form", headers: json, body: `client_secret=${standIn}` },
    ],
    [
      "JSON on another path",
      { path: "/other", headers: json, body: `{"auth":[{"api/key":"${standIn}"}]}` },
    ],
  ])("%s is none: 401, and nothing leaves", async (_what, sent) => {
    const before = origins.seen.length;
    const got = await surface.send(proxy, { host: stored, ...sent });
    // Paths with dot segments may be refused before.
    expect([400, 401]).toContain(got.status);
    expect(origins.seen).toHaveLength(before);
  });

  test.each<[string, Omit<Sent, "host">, RegExp, number]>([
    [
      "twice the same member",
      { path: "/json/a", headers: json, body: `{"auth":[{"api/key":"${standIn}"}],"auth":1}` },
      /same key twice/,
      400,
    ],
    [
      "an unknown coding",
      { path: "/json/a", headers: { ...json, "content-encoding": "rot13" }, body: "{}" },
      /Content-Encoding/,
      400,
    ],
    [
      "a digest",
      { path: "/json/a", headers: { ...json, "content-digest": "sha-256=:x:" }, body: "{}" },
      /digest/,
      400,
    ],
    [
      "too much",
      { path: "/json/a", headers: json, body: JSON.stringify("x".repeat(70_000)) },
      /limits\.max_body/,
      413,
    ],
  ])("a body with %s is refused in words", async (_what, sent, words, status) => {
    const before = origins.seen.length;
    const got = await surface.send(proxy, { host: stored, ...sent });
    expect(got.status, got.text).toBe(status);
    expect(got.text).toMatch(words);
    expect(origins.seen).toHaveLength(before);
  });

  const echoes: readonly (readonly [string, (key: string) => string])[] = [
    ["as it is", (key) => key],
    ["percent-encoded", (key) => encodeURIComponent(key)],
    ["twice", (key) => encodeURIComponent(encodeURIComponent(key))],
    ["in JSON", (key) => key.replaceAll("/", "\\/")],
    ["in HTML", (key) => key.replaceAll("/", "&#x2F;")],
    ["as Basic", (key) => basic(`u:${key}`)],
  ];
  test.each(echoes)("what an origin repeats %s does not come back", async (_how, spell) => {
    origins.answer = (_seen, response) => {
      response.writeHead(302, { location: `/x?key=${spell(real)}`, "x-said": spell(real) });
      response.write(`<a href="${spell(real).slice(0, 5)}`);
      setImmediate(() => response.end(`${spell(real).slice(5)}"> - ${spell(real)}`));
    };
    const headers = { authorization: basic(`u:${standIn}`) };
    const got = await surface.send(proxy, { host: stored, path: `/x?key=${standIn}`, headers });
    expect(got.status).toBe(302);
    const all = got.headers + got.text;
    expect(all).not.toContain(spell(real));
    expect(all).not.toContain("Real");
    // What was replaced is what the client had sent.
    const encoded = basic(`u:${standIn}`);
    expect(got.text.endsWith(standIn) || got.text.endsWith(encoded)).toBe(true);
  });

  test("nor as both halves of Basic", async () => {
    origins.answer = (seen, response) => response.end(`you sent ${seen.headers["authorization"]}`);
    const headers = { authorization: basic(`${standIn}:${standIn}`) };
    const got = await surface.send(proxy, { host: stored, path: "/x", headers });
    expect(origins.last.headers["authorization"]).toBe(basic(`${real}:${real}`));
    expect(got.text).toBe(`you sent ${basic(`${standIn}:${standIn}`)}`);
  });

  test("nor compressed, though nobody asked for that", async () => {
    origins.answer = (_seen, response) => {
      response.setHeader("content-encoding", "gzip");
      response.end(gzipSync(`you sent ${issued}`));
    };
    const headers = { "x-api-key": handle, "accept-encoding": "gzip" };
    const got = await surface.send(proxy, { host: exchanged, path: "/x", headers });
    expect(got.text).toBe(`you sent ${handle}`);
    expect(origins.last.headers).not.toHaveProperty("accept-encoding");
  });
});

test("an event-stream comes event by event, and a long body whole", async () => {
  const [surface] = surfaces;
  const body = `${"x".repeat(300_000)}${real}${"y".repeat(300_000)}`;
  origins.answer = (_seen, response) => response.end(body);
  const headers = { "x-api-key": standIn };
  const got = await surface?.send(proxy, { host: stored, path: "/x", headers });
  expect(got?.text).toBe(body.replace(real, standIn));
});

test("different tokens in two places are refused", async () => {
  const [surface] = surfaces;
  const headers = { "x-api-key": "one", authorization: "Bearer two" };
  const got = await surface?.send(proxy, { host: exchanged, path: "/x", headers });
  expect(got?.status).toBe(401);
  expect(got?.text).toContain("different tokens");
});

test("neither records, metrics nor logs have what was attached, and the count of echoes is there", async () => {
  const record = (await proxy.sessions("/v1/sessions/default")).text;
  const metrics = (await proxy.stats("/metrics")).text;
  expect(record).toContain("credential_injected");
  expect(record + metrics + proxy.stderr).not.toMatch(/sk-Real|issued-Token/);
  expect(metrics).toMatch(
    /plugin_events_total\{plugin="static-inject",event="echo_removed"\} [1-9]/,
  );
});

test("a file that opens a place in no or two ways is refused, and so is what has no effect", async () => {
  const refused = async (config: object): Promise<string> => {
    const plugin = {
      name: "static-inject",
      config: { source: "mappings", mappings: { a: "b" }, ...config },
    };
    const { code, stdout, stderr } = await BridgeProxy.run("check", {
      ports: [443],
      plugins: [plugin],
    });
    expect(code).not.toBe(0);
    return stdout + stderr;
  };
  const placeholder = "p";
  expect(await refused({ places: [{ query: "key" }] })).toContain("is required with places");
  expect(await refused({ placeholder, places: [{}] })).toContain("exactly one of header");
  expect(
    await refused({
      placeholder,
      places: [{ query: "a", header: "b" }, { header: "content-length" }],
    }),
  ).toMatch(/exactly one of[^]*frames, routes or describes/);
  expect(await refused({ placeholder, places: [{ query: "key", paths: ["x"] }] })).toContain(
    "must begin with a slash",
  );
  expect(await refused({ placeholder, places: [{ json: "auth" }] })).toContain("JSON Pointer");
  expect(
    await refused({ placeholder, placeholder_in: ["query"], places: [{ query: "key" }] }),
  ).toContain("has no effect with places");
  // Written empty, such as by a variable, they would open the place everywhere.
  const everywhere = { query: "key", hosts: null, paths: null };
  const said = await refused({ placeholder, places: [everywhere] });
  for (const key of ["hosts", "paths"]) expect(said).toContain(`places[0].${key}: must be a list`);
  expect(await refused({ placeholder, places: null })).toContain("places: must be a list");
});
