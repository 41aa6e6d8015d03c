import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { ClientAuthentication } from "../../../src/oauth/client-authentication.ts";
import { type Grant, TokenEndpoint } from "../../../src/oauth/token-endpoint.ts";
import { Secret } from "../../../src/secret.ts";
import { type IdpReply, loopbackFetch, StubIdp } from "../../support/idp.ts";

const client: ClientAuthentication = {
  method: "client_secret_post",
  clientId: "my-client",
  clientSecret: new Secret("my-secret"),
};
const exchange: Grant = {
  type: "token-exchange",
  subjectToken: new Secret("original-token"),
  audience: "target-aud",
  scopes: [],
};
const urn = "urn:ietf:params:oauth";

let idp: StubIdp;
let waits: number[];

beforeEach(async () => {
  idp = await StubIdp.start();
  waits = [];
});
afterEach(() => idp.close());

function endpoint(deadlineMs?: number): TokenEndpoint {
  return new TokenEndpoint({
    call: loopbackFetch,
    clock: Date,
    random: () => 0,
    sleep: (milliseconds) => {
      waits.push(milliseconds);
      return Promise.resolve();
    },
    ...(deadlineMs === undefined ? {} : { deadlineMs }),
  });
}

function formOf(call = idp.tokenCalls[0]): Record<string, string> {
  return Object.fromEntries(call?.form ?? []);
}

describe("the request", () => {
  test("E1 is the form of RFC 8693 with the client's secret in it", async () => {
    const answer = await endpoint().request(idp.tokenUrl, client, exchange);
    expect(formOf()).toEqual({
      grant_type: `${urn}:grant-type:token-exchange`,
      subject_token: "original-token",
      subject_token_type: `${urn}:token-type:access_token`,
      requested_token_type: `${urn}:token-type:access_token`,
      audience: "target-aud",
      client_id: "my-client",
      client_secret: "my-secret",
    });
    expect(answer.kind === "issued" && answer.token.reveal()).toBe("exchanged-target-aud");
  });

  test("E15 carries scopes, resource and actor token when there are some", async () => {
    const { audience: _none, ...grant } = exchange;
    await endpoint().request(idp.tokenUrl, client, {
      ...grant,
      type: "token-exchange",
      subjectToken: new Secret("s"),
      actorToken: new Secret("actor"),
      scopes: ["read", "write"],
      resource: "https://api.example.com/v1",
    });
    expect(formOf()).toMatchObject({
      actor_token: "actor",
      actor_token_type: `${urn}:token-type:access_token`,
      scope: "read write",
      resource: "https://api.example.com/v1",
    });
    expect(formOf()).not.toHaveProperty("audience");
  });

  test.each(["jwt-spiffe", "jwt-bearer"] as const)(
    "E16 announces a %s assertion and sends no secret",
    async (assertionType) => {
      const assertion = new Secret("svid");
      await endpoint().request(
        idp.tokenUrl,
        { method: "client_assertion", clientId: "c", assertion, assertionType },
        exchange,
      );
      expect(formOf()).toMatchObject({
        client_id: "c",
        client_assertion: "svid",
        client_assertion_type: `${urn}:client-assertion-type:${assertionType}`,
      });
      expect(formOf()).not.toHaveProperty("client_secret");
    },
  );

  test("form-encodes both parts of a Basic credential and keeps them out of the form", async () => {
    const clientSecret = new Secret("p:w d%");
    await endpoint().request(
      idp.tokenUrl,
      { method: "client_secret_basic", clientId: "a b", clientSecret },
      exchange,
    );
    const [scheme, text = ""] = (idp.tokenCalls[0]?.authorization ?? "").split(" ");
    expect(scheme).toBe("Basic");
    expect(Buffer.from(text, "base64").toString()).toBe("a+b:p%3Aw+d%25");
    expect(formOf()).not.toHaveProperty("client_id");
  });

  test("E11 asks with the client-credentials grant without any subject", async () => {
    const grant: Grant = { type: "client-credentials", audience: "api", scopes: ["read"] };
    await endpoint().request(idp.tokenUrl, client, grant);
    expect(formOf()).toEqual({
      grant_type: "client_credentials",
      audience: "api",
      scope: "read",
      client_id: "my-client",
      client_secret: "my-secret",
    });
  });
});

describe("the answer", () => {
  const good = { access_token: "t", token_type: "bearer", expires_in: 60 };
  const noMore = { token_type: null, issued_token_type: null, scope: null, refresh_token: null };

  test("gives the lifetime from the moment of asking", async () => {
    idp.issue = () => good;
    const before = Date.now();
    const answer = await endpoint().request(idp.tokenUrl, client, exchange);
    if (answer.kind !== "issued" || answer.expiresAt === undefined) throw new Error(answer.kind);
    expect(answer.expiresAt).toBeGreaterThanOrEqual(before + 60_000);
    expect(answer.expiresAt).toBeLessThanOrEqual(Date.now() + 60_000);
  });

  test.each<[string, Record<string, unknown>, number | undefined]>([
    ["a number", { expires_in: 3599 }, 3_599_000],
    ["a numeric string", { expires_in: "3599" }, 3_599_000],
    ["a numeric string with a fraction", { expires_in: "59.5" }, 59_500],
    ["null", { expires_in: null }, undefined],
    ["null beside other nulls", { ...noMore, expires_in: null }, undefined],
  ])("has a lifetime that is %s", async (_what, fields, lifetime) => {
    idp.issue = () => ({ ...good, ...fields });
    const frozen = new TokenEndpoint({ call: loopbackFetch, clock: { now: () => 1_000 } });
    expect(await frozen.request(idp.tokenUrl, client, exchange)).toEqual({
      kind: "issued",
      token: expect.anything(),
      ...(lifetime === undefined ? {} : { expiresAt: 1_000 + lifetime }),
    });
  });

  test.each<[string, IdpReply]>([
    ["HTML", { body: "<html>login</html>" }],
    ["text that is no JSON (E14)", { body: "not-json" }],
    ["an array", { body: [good] }],
    ["no token", { body: { token_type: "Bearer" } }],
    ["an empty token", { body: { ...good, access_token: "" } }],
    ["a token with CR LF", { body: { ...good, access_token: "a\r\nX-Evil: 1" } }],
    ["a token with a space", { body: { ...good, access_token: "a b" } }],
    ["a token that is an object", { body: { ...good, access_token: { a: 1 } } }],
    ["expires_in -1", { body: { ...good, expires_in: -1 } }],
    ["expires_in 0", { body: { ...good, expires_in: 0 } }],
    ["expires_in 0 as text", { body: { ...good, expires_in: "0" } }],
    ["expires_in as a word", { body: { ...good, expires_in: "soon" } }],
    ["expires_in as hexadecimal text", { body: { ...good, expires_in: "0x10" } }],
    ["expires_in as blank text", { body: { ...good, expires_in: " " } }],
    ["expires_in as a list", { body: { ...good, expires_in: [60] } }],
    ["a DPoP token", { body: { ...good, token_type: "DPoP" } }],
    ["a redirect", { status: 302, body: "", headers: { location: "http://127.0.0.1:9/" } }],
    ["204", { status: 204, body: "" }],
    ["10 MB", { body: "x".repeat(10_000_000) }],
  ])("TX-03 that is %s is no token", async (_what, reply) => {
    idp.tokenReplies.push(reply);
    const answer = await endpoint().request(idp.tokenUrl, client, exchange);
    expect(answer.kind).toBe("unavailable");
    expect(idp.tokenCalls).toHaveLength(1);
  });

  test("TX-04 that is 4xx is a rejection, asked for once, with its code", async () => {
    const body = { error: "invalid_target", error_description: "no such\r\nservice" };
    idp.tokenReplies.push({ status: 400, body });
    const answer = await endpoint().request(idp.tokenUrl, client, exchange);
    expect(answer).toEqual({
      kind: "rejected",
      status: 400,
      error: "invalid_target",
      description: "no such??service",
    });
    expect(idp.tokenCalls).toHaveLength(1);
  });

  test("CRED-06 that quotes a token loses it before anybody can log it", async () => {
    const token = `eyJhbGciOiJub25lIn0.${"a".repeat(40)}.sig`;
    idp.tokenReplies.push({
      status: 400,
      body: { error: "invalid_grant", error_description: `token ${token} is bad` },
    });
    const answer = await endpoint().request(idp.tokenUrl, client, exchange);
    expect(JSON.stringify(answer)).not.toContain("aaaa");
  });
});

describe("another attempt", () => {
  test.each<[string, IdpReply]>([
    ["500", { status: 500, body: "oops" }],
    ["503", { status: 503, body: "" }],
    ["a broken connection", "reset"],
  ])("follows %s, with a growing wait, until it succeeds", async (_what, failure) => {
    idp.tokenReplies.push(failure, failure);
    const answer = await endpoint().request(idp.tokenUrl, client, exchange);
    expect(answer.kind).toBe("issued");
    expect(waits).toEqual([50, 100]);
  });

  test("is made twice at most", async () => {
    idp.tokenReplies.push(...Array.from({ length: 9 }, () => ({ status: 502, body: "" })));
    const answer = await endpoint().request(idp.tokenUrl, client, exchange);
    expect(answer).toEqual({ kind: "unavailable", reason: "answered 502" });
    expect(idp.tokenCalls).toHaveLength(3);
  });

  test("is made no more often where the endpoint wanted another secret in between", async () => {
    const fault = { status: 502, body: "" };
    const refusal = { status: 401, body: { error: "invalid_client" } };
    idp.tokenReplies.push(fault, fault, refusal, ...Array.from({ length: 9 }, () => fault));
    const current = async (): Promise<Secret> => new Secret("my-secret");
    const renewed = { ...client, clientSecret: { current, another: async () => true } };
    const answer = await endpoint().request(idp.tokenUrl, renewed, exchange);
    expect(answer).toEqual({ kind: "unavailable", reason: "answered 502" });
    expect(idp.tokenCalls).toHaveLength(4);
  });

  test("TX-03 is not made when the deadline has passed with an endpoint that hangs", async () => {
    idp.tokenReplies.push("hang");
    const answer = await endpoint(50).request(idp.tokenUrl, client, exchange);
    expect(answer).toEqual({ kind: "unavailable", reason: "upstream.timeout" });
    expect(idp.tokenCalls).toHaveLength(1);
  });

  test("E14 is not made for callers that have gone", async () => {
    idp.tokenReplies.push("hang");
    const gone = new AbortController();
    const asked = endpoint().request(idp.tokenUrl, client, exchange, gone.signal);
    gone.abort();
    expect(await asked).toEqual({ kind: "unavailable", reason: "cancelled" });
  });
});
