import { describe, expect, test } from "vitest";
import { HeaderList } from "../../../src/http/headers.ts";
import { isSignedField } from "../../../src/http/signed-fields.ts";

const amz = "AWS4-HMAC-SHA256 Credential=A/20260101/eu/s3/aws4_request";
const covered: readonly (readonly [string, Record<string, string>, string])[] = [
  ["AWS SigV4", { authorization: `${amz}, SignedHeaders=accept-encoding;host, Signature=0a` }, "/"],
  [
    "AWS SigV4 without spaces",
    { authorization: `${amz},SignedHeaders=Accept-Encoding,Signature=0` },
    "/",
  ],
  [
    "a presigned URL",
    {},
    "/k?X-Amz-Date=1&X-Amz-SignedHeaders=accept-encoding%3Bhost&X-Amz-Signature=0",
  ],
  ["a presigned URL of another cloud", {}, "/k?X-Goog-SignedHeaders=host%3baccept-encoding"],
  [
    "an HMAC of another cloud",
    { authorization: "HMAC-SHA256 SignedHeaders=host;accept-encoding&Signature=0=" },
    "/",
  ],
  [
    "RFC 9421",
    { "signature-input": 'sig1=("@method" "accept-encoding" "@path");created=1;keyid="k"' },
    "/",
  ],
  [
    "RFC 9421 with parameters, second",
    { "signature-input": 'a=("@path"), b=("x" "accept-encoding";bs)' },
    "/",
  ],
  [
    "an older HTTP Signature",
    {
      authorization: 'Signature keyId="k",headers="(request-target) accept-encoding",signature="0"',
    },
    "/",
  ],
  [
    "an older Signature field",
    { signature: 'keyId="k", headers="host accept-encoding", signature="0"' },
    "/",
  ],
];

describe("a field that a signature covers", () => {
  test.each(covered)("is known from %s", (_what, record, target) => {
    const headers = HeaderList.fromRecord(record);
    expect(isSignedField(headers, target, "Accept-Encoding")).toBe(true);
    expect(isSignedField(headers, target, "Accept")).toBe(false);
    expect(isSignedField(headers, target, "encoding")).toBe(false);
  });

  test.each<readonly [string, Record<string, string>, string]>([
    ["no signature", { "accept-encoding": "gzip" }, "/accept-encoding?accept-encoding"],
    ["a bearer token", { authorization: "Bearer accept-encoding" }, "/"],
    [
      "another signature",
      { authorization: `${amz}, SignedHeaders=host, Signature=accept-encoding` },
      "/",
    ],
    ["a key id", { "signature-input": 'a=("@path");keyid="accept-encoding"' }, "/"],
  ])("is none with %s", (_what, record, target) => {
    expect(isSignedField(HeaderList.fromRecord(record), target, "accept-encoding")).toBe(false);
  });

  test("is found in linear time", () => {
    const long = `${"SignedHeaders=(".repeat(4_000)}${'"('.repeat(4_000)}`;
    const record = { authorization: long, signature: long, "signature-input": long };
    expect(isSignedField(HeaderList.fromRecord(record), `/?${long}`, "x")).toBe(false);
  });
});
