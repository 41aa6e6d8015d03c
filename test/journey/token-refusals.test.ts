/** Why an inbound token was refused: the same word in the log, the event, the metric, the trace and `tail`. */
import { generateKeyPair, SignJWT } from "jose";
import { beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { get, request, type RawResponse } from "../support/http-client.ts";
import { StubIdp, type TokenShape } from "../support/idp.ts";
import { HttpOrigin } from "../support/origin.ts";
import { type CollectedSpan, OtlpCollector } from "../support/otlp.ts";
import { owner } from "../support/owner.ts";
import { type Settings } from "../support/program.ts";
import { inbound, merge, ProxyProcess, settings } from "../support/proxy.ts";
import { startTail, type Tail } from "../support/tail.ts";

const own = owner();
let agent: HttpOrigin;
let idp: StubIdp;
let collector: OtlpCollector;
let proxy: ProxyProcess;
let tail: Tail;

const soon = (seconds: number): number => Math.floor(Date.now() / 1_000) + seconds;

beforeAll(async () => {
  agent = await own(HttpOrigin.launch());
  idp = await own(StubIdp.start());
  collector = await own(OtlpCollector.start());
  proxy = await own(
    guarded({
      audience: "agent",
      token_type: "JWT",
      required_claims: { tenant: "a" },
      required_scopes: ["openid"],
    }),
  );
  const { host, port } = proxy.address("sessions");
  tail = await own(startTail("--url", `http://${host}:${port}`));
});

function guarded(config: Settings): Promise<ProxyProcess> {
  return ProxyProcess.start(
    merge(
      settings({
        listener: { reverse_proxy_backend: agent.url, roles: ["reverse"] },
        telemetry: { otlp: { endpoint: collector.url } },
      }),
      inbound({ name: "jwt-validation", config: { issuer: idp.issuer, ...config } }),
    ),
  );
}

let counter = 0;
/** What was told of which request. */
const told = new Map<string, string>();

async function ask(
  authorization: string | undefined,
  at = proxy,
): Promise<{ readonly path: string; readonly answer: RawResponse }> {
  const path = `/refused-${(counter += 1)}`;
  const headers = authorization === undefined ? {} : { Authorization: authorization };
  return { path, answer: await get(at.reverse, path, headers) };
}

interface Step {
  readonly reason: string;
  readonly cause?: string;
  readonly details?: Readonly<Record<string, string>>;
}

async function stepFor(path: string): Promise<Step> {
  const { events } = (await proxy.sessions("/v1/sessions/default")).json() as {
    events: { httpPath?: string; invocations?: { inbound?: Step[] } }[];
  };
  const found = events.find(({ httpPath }) => httpPath === path)?.invocations?.inbound?.[0];
  if (found === undefined) throw new Error(`no event for ${path}`);
  return found;
}

const usual = { header: { typ: "JWT" }, claims: { tenant: "a" } };
const shaped = async ({ claims, header, ...rest }: TokenShape): Promise<string> =>
  idp.token({
    ...rest,
    claims: { ...usual.claims, ...claims },
    header: { ...usual.header, ...header },
  });

async function byAnotherKey(kid: string): Promise<string> {
  const { privateKey } = await generateKeyPair("ES256");
  return new SignJWT({ iss: "https://other.example/", aud: "agent", ...usual.claims })
    .setProtectedHeader({ alg: "ES256", kid, typ: "JWT" })
    .setExpirationTime("5m")
    .sign(privateKey);
}

describe("a token that is refused", () => {
  const cases: readonly (readonly [
    cause: string,
    claim: string | undefined,
    token: () => Promise<string>,
    expected: () => string | RegExp,
    found: () => string | RegExp,
  ])[] = [
    [
      "issuer_mismatch",
      "iss",
      () => shaped({ claims: { iss: `${idp.issuer}/` } }),
      () => idp.issuer,
      () => `${idp.issuer}/`,
    ],
    [
      "audience_mismatch",
      "aud",
      () => shaped({ claims: { aud: ["x", "other"] } }),
      () => "agent",
      () => "x, other",
    ],
    ["audience_mismatch", "aud", () => shaped({ without: ["aud"] }), () => "agent", () => "none"],
    [
      "expired",
      "exp",
      () => shaped({ claims: { exp: 1_700_000_000 } }),
      () => /^later than 20/,
      () => "2023-11-14T22:13:20Z",
    ],
    [
      "not_yet_valid",
      "nbf",
      () => shaped({ claims: { nbf: soon(600) } }),
      () => /^not later than 20/,
      () => /^20.*Z$/,
    ],
    [
      "issued_in_future",
      "iat",
      () => shaped({ claims: { iat: soon(600), exp: soon(900) } }),
      () => /^not later than 20/,
      () => /^20.*Z$/,
    ],
    ["no_expiry", "exp", () => shaped({ without: ["exp"] }), () => /require_exp/, () => "none"],
    [
      "unknown_key",
      "kid",
      () => byAnotherKey("stranger"),
      () => /key set/,
      () => "stranger in a token whose iss is https://other.example/",
    ],
    [
      "bad_signature",
      "kid",
      () => byAnotherKey("key-1"),
      () => /signature/,
      () => /^key-1 in a token whose iss is /,
    ],
    ["malformed", undefined, () => Promise.resolve("opaque"), () => /JWS/, () => /./],
    [
      "malformed",
      "exp",
      () => shaped({ claims: { exp: "soon" as unknown as number } }),
      () => /./,
      () => /./,
    ],
    [
      "algorithm_not_allowed",
      "alg",
      () => Promise.resolve(`${encoded({ alg: "HS256", typ: "JWT" })}.${encoded({})}.c2ln`),
      () => /RS256/,
      () => "HS256",
    ],
    [
      "type_mismatch",
      "typ",
      () => shaped({ header: { typ: "at+jwt" } }),
      () => "JWT",
      () => "at+jwt",
    ],
    [
      "not_access_token",
      "typ",
      () => shaped({ claims: { typ: "ID" } }),
      () => /access token/,
      () => "ID",
    ],
    [
      "bound_to_key",
      "cnf",
      () => shaped({ claims: { cnf: { jkt: "k".repeat(43), "x5t#S256": "x" } } }),
      () => /bound_tokens/,
      () => "jkt, x5t#S256",
    ],
    [
      "too_many_actors",
      "act",
      () => shaped({ claims: { act: actors(9) } }),
      () => /max_actors/,
      () => "9",
    ],
    [
      "malformed",
      "act",
      () => shaped({ claims: { act: { act: { sub: "a" } } } }),
      () => "actors",
      () => /./,
    ],
    [
      "claim_mismatch",
      "tenant",
      () => shaped({ claims: { tenant: "nobody-s business" } }),
      () => "a",
      () => "another value",
    ],
    [
      "claim_mismatch",
      "tenant",
      () => idp.token({ header: usual.header }),
      () => "a",
      () => "none",
    ],
  ];

  test.each(cases)(
    "%s (%s) is told with what was expected and found",
    async (cause, claim, token, expected, found) => {
      const text = await token();
      const { path, answer } = await ask(`Bearer ${text}`);
      expect(answer.status).toBe(401);
      expect(answer.json()).toEqual({
        error: "auth.unauthorized",
        message: "token validation failed",
        plugin: "jwt-validation",
      });
      expect(answer.header("www-authenticate")).toBe(
        'Bearer realm="authbridge", error="invalid_token"',
      );
      const facts = {
        ...(claim === undefined ? {} : { claim }),
        expected: matching(expected()),
        found: matching(found()),
      };
      const line = await proxy.log((one) => one["path"] === path);
      expect(line).toMatchObject({ status: 401, plugin: "jwt-validation", cause, ...facts });
      expect(await stepFor(path)).toMatchObject({ reason: "jwt_failed", cause, details: facts });
      await eventually(() => tail.out().includes(path));
      const shownLine = tail
        .out()
        .split("\n")
        .find((one) => one.includes(path));
      expect(shownLine).toContain(`jwt-validation: ${cause} (`);
      expect(shownLine).toContain("token validation failed");
      told.set(path, cause);
      const labels = { direction: "inbound", plugin: "jwt-validation", reason: cause };
      expect(await proxy.metric("authbridge_denials_total", labels)).toBeGreaterThan(0);
      // Neither a token nor a claim's value that is somebody's business is anywhere.
      for (const shown of [proxy.stderr, tail.out()]) {
        if (text.length > 20) expect(shown).not.toContain(text);
        expect(shown).not.toContain("business");
      }
    },
  );

  test("is told in its trace", async () => {
    const spanOf = (path: string): CollectedSpan | undefined =>
      collector.spans.find(({ attributes }) => attributes["url.path"] === path);
    await eventually(() => [...told.keys()].every((path) => spanOf(path) !== undefined));
    for (const [path, cause] of told) {
      const span = spanOf(path);
      expect(span?.attributes).toMatchObject({ "authbridge.reason": cause });
      const step = collector.spans.find(({ parentSpanId }) => parentSpanId === span?.spanId);
      expect(step?.attributes).toMatchObject({
        "authbridge.reason": "jwt_failed",
        "authbridge.cause": cause,
      });
    }
  });

  test("insufficient_scope is 403, with the scopes that it has", async () => {
    const { path, answer } = await ask(`Bearer ${await shaped({ claims: { scope: "profile" } })}`);
    expect(answer.status).toBe(403);
    expect(await proxy.log((one) => one["path"] === path)).toMatchObject({
      cause: "insufficient_scope",
      claim: "scope",
      expected: "openid",
      found: "profile",
    });
  });

  test.each([
    ["no_header", undefined],
    ["malformed_header", "Basic abc"],
  ])("%s is told for requests without one", async (cause, authorization) => {
    const { path, answer } = await ask(authorization);
    expect(answer.status).toBe(401);
    expect(await proxy.log((one) => one["path"] === path)).toMatchObject({ cause });
    const labels = { plugin: "jwt-validation", reason: cause };
    expect(await proxy.metric("authbridge_denials_total", labels)).toBe(1);
  });

  test("keeps the one word of /stats that the Go program has", async () => {
    const { jwt_failed: failed } = (
      (await proxy.stats("/stats")).json() as {
        inbound_denials: Record<string, number>;
      }
    ).inbound_denials;
    expect(failed).toBe(cases.length);
  });

  test("is told under observe, too, and let pass", async () => {
    const observing = await own(
      ProxyProcess.start(
        merge(
          settings({ listener: { reverse_proxy_backend: agent.url, roles: ["reverse"] } }),
          inbound({
            name: "jwt-validation",
            on_error: "observe",
            allow_weakened_auth: true,
            config: { issuer: idp.issuer, audience: "agent" },
          }),
        ),
      ),
    );
    const headers = { Authorization: `Bearer ${await shaped({ claims: { aud: "other" } })}` };
    expect((await request(observing.reverse, { target: "/", headers })).status).toBe(200);
    const labels = { reason: "audience_mismatch", shadow: "true" };
    expect(await observing.metric("authbridge_denials_total", labels)).toBe(1);
  });
});

/** The `act` claim of a token that was passed on so often. */
function actors(count: number): object | undefined {
  return count === 0 ? undefined : { sub: `agent-${count}`, act: actors(count - 1) };
}

function matching(wanted: string | RegExp): unknown {
  return typeof wanted === "string" ? wanted : expect.stringMatching(wanted);
}

function encoded(part: object): string {
  return Buffer.from(JSON.stringify(part)).toString("base64url");
}
