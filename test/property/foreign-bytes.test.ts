/** The parsers of tokens, answers, keys and bodies that others send: they answer for every input and never throw. */
import { gzipSync } from "node:zlib";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { ReadableSource } from "../../src/http/body-source.ts";
import { BodyBudget, decodeBody, readBounded } from "../../src/http/body.ts";
import { HeaderList } from "../../src/http/headers.ts";
import { classifyRpc } from "../../src/http/json-rpc.ts";
import { parseStrictJson } from "../../src/http/strict-json.ts";
import { readKeyDocument } from "../../src/oauth/jwks-document.ts";
import { readTokenResponse } from "../../src/oauth/token-response.ts";
import { unverifiedClaims } from "../../src/oauth/unverified-claims.ts";
import { readBearer } from "../../src/plugins/credentials/bearer.ts";
import { Readable } from "node:stream";

const limits = { interruptAfterTimeLimit: 1_500, numRuns: 5_000 };
const bytes = fc.uint8Array({ maxLength: 200 }).map((list) => Buffer.from(list));
/** JSON of any shape, and bytes that are none. */
const documents = fc.oneof(
  fc.json().map((text) => Buffer.from(text)),
  bytes,
);
const fieldValue = fc.string({
  unit: fc.integer({ min: 0x20, max: 0x7e }).map((code) => String.fromCharCode(code)),
  maxLength: 60,
});

test("an Authorization field is absent, malformed, or a bearer token without blanks", () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.oneof(
          fieldValue,
          fieldValue.map((text) => `Bearer ${text}`),
        ),
        { maxLength: 3 },
      ),
      (values) => {
        const bearer = readBearer(
          new HeaderList(values.flatMap((value) => ["Authorization", value])),
        );
        if (values.length === 0) expect(bearer.kind).toBe("absent");
        if (values.length > 1) expect(bearer.kind).toBe("malformed");
        if (bearer.kind === "bearer") expect(bearer.token).toMatch(/^[^\s,]+$/);
      },
    ),
    limits,
  );
});

test("an answer of a token endpoint yields a token only when it is a 200 with a clean one", () => {
  const answer = fc.record(
    {
      access_token: fc.oneof(fc.string({ maxLength: 20 }), fc.jsonValue()),
      token_type: fc.oneof(fc.constantFrom("Bearer", "bearer", "N_A", "mac"), fc.jsonValue()),
      expires_in: fc.oneof(fc.integer(), fc.jsonValue()),
    },
    { requiredKeys: [] },
  );
  const body = fc.oneof(
    answer.map((fields) => Buffer.from(JSON.stringify(fields))),
    documents,
  );
  fc.assert(
    fc.property(fc.integer({ min: 100, max: 599 }), body, (status, content) => {
      const read = readTokenResponse({ status, headers: {}, body: content }, 0);
      if (read.kind !== "issued") return;
      expect(status).toBe(200);
      // eslint-disable-next-line no-control-regex
      expect(read.token.reveal()).toMatch(/^[^\x00-\x20\x7f]+$/);
    }),
    limits,
  );
});

test("a key set is a list of keys or the reason why it is none", () => {
  const keySet = fc
    .array(fc.jsonValue(), { maxLength: 5 })
    .map((keys) => Buffer.from(JSON.stringify({ keys })));
  fc.assert(
    fc.property(fc.oneof(keySet, documents), (body) => {
      const read = readKeyDocument(body);
      expect(typeof read === "string" ? read : Object.keys(read)).not.toHaveLength(0);
    }),
    limits,
  );
});

test("claims that nobody verified are an object or nothing", () => {
  const token = fc
    .tuple(documents, documents)
    .map(([head, payload]) => `${head.toString("base64url")}.${payload.toString("base64url")}.x`);
  fc.assert(
    fc.property(fc.oneof(token, fc.string()), (text) => {
      const claims = unverifiedClaims(text);
      expect(claims === undefined || typeof claims === "object").toBe(true);
    }),
    limits,
  );
});

test("strict JSON accepts nothing that JSON.parse refuses, and every message has a class", () => {
  fc.assert(
    fc.property(documents, (body) => {
      const read = parseStrictJson(body);
      if (read.kind === "invalid") return;
      expect(read.value).toEqual(JSON.parse(body.toString("utf8")));
      expect(classifyRpc(read.value)).toHaveProperty("kind");
    }),
    limits,
  );
});

test("a coded body decodes to what it was, within the limit, or says why not", async () => {
  await fc.assert(
    fc.asyncProperty(
      bytes,
      fc.constantFrom("gzip", "br", "deflate", "zstd", "gzip, gzip, gzip", "rot13"),
      async (body, coding) => {
        const junk = await decodeBody(body, coding, 100);
        if (junk.kind === "body") expect(junk.bytes.length).toBeLessThanOrEqual(100);
        const whole = await decodeBody(gzipSync(body), "gzip", 200);
        expect(whole).toEqual({ kind: "body", bytes: body });
      },
    ),
    { ...limits, numRuns: 500 },
  );
});

test("a body is read whole within its limit, and the budget is whole again afterwards", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(bytes, { maxLength: 5 }),
      fc.integer({ min: 1, max: 600 }),
      async (chunks, limitBytes) => {
        const budget = new BodyBudget(1_000);
        const read = await readBounded(
          new ReadableSource(Readable.from(chunks, { objectMode: false })),
          {
            limitBytes,
            budget,
            signal: new AbortController().signal,
          },
        );
        const whole = Buffer.concat(chunks);
        expect(read.kind).toBe(whole.length > limitBytes ? "too-large" : "body");
        if (read.kind === "body") expect(read.bytes).toEqual(whole);
        if ("release" in read) read.release();
        expect(budget.acquire(1_000)).toBe(true);
      },
    ),
    { ...limits, numRuns: 500 },
  );
});
