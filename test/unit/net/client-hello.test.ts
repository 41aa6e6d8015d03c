import { describe, expect, test } from "vitest";
import {
  isHostName,
  isServerNameOf,
  looksLikeTls,
  parseClientHello,
} from "../../../src/net/client-hello.ts";
import { alpn, clientHello, records, serverName } from "../../support/client-hello.ts";

const parse = (bytes: Buffer) => parseClientHello(bytes);

describe("parseClientHello", () => {
  test("reads name, protocols and version (I1)", () => {
    const bytes = records(clientHello({ sni: "api.openai.com", alpn: ["h2", "http/1.1"] }));
    expect(parse(bytes)).toEqual({
      kind: "hello",
      hello: {
        sni: "api.openai.com",
        alpn: ["h2", "http/1.1"],
        hasEch: false,
        maxVersion: 0x0304,
      },
    });
  });

  test("ignores what follows the hello", () => {
    const bytes = Buffer.concat([records(clientHello({ sni: "a.test" })), Buffer.from("junk")]);
    expect(parse(bytes).kind).toBe("hello");
  });

  test("joins a hello that is split over many records", () => {
    const result = parse(records(clientHello({ sni: "a.test" }), 1));
    expect(result).toMatchObject({ kind: "hello", hello: { sni: "a.test" } });
  });

  test("takes a hello without extensions, as old clients send it", () => {
    expect(parse(records(clientHello({ extensions: "none" })))).toMatchObject({
      kind: "hello",
      hello: { sni: undefined, alpn: [], maxVersion: 0x0303 },
    });
  });

  test.each([
    ["empty", ""],
    ["300 bytes", "a".repeat(300)],
    ["with NUL", "good.test\0evil.test"],
    ["with a trailing dot", "a.test."],
    ["an address", "10.0.0.1"],
  ])("reports a name that is %s as it was sent", (_case, sni) => {
    expect(parse(records(clientHello({ sni })))).toMatchObject({ kind: "hello", hello: { sni } });
  });

  test("an empty server name extension is the empty name, not no name", () => {
    const bytes = records(clientHello({ raw: [[0, Buffer.alloc(0)]] }));
    expect(parse(bytes)).toMatchObject({ kind: "hello", hello: { sni: "" } });
  });

  test("sees an encrypted hello", () => {
    const bytes = records(clientHello({ sni: "public.test", raw: [[0xfe0d, Buffer.alloc(60)]] }));
    expect(parse(bytes)).toMatchObject({ kind: "hello", hello: { hasEch: true } });
  });

  test.each([
    ["two host names", [[0, serverName("a.test", "b.test")]]],
    [
      "an extension sent twice",
      [
        [0, serverName("a.test")],
        [0, serverName("b.test")],
      ],
    ],
    ["a name list cut short", [[0, serverName("a.test").subarray(0, 6)]]],
    ["bytes after the name list", [[0, Buffer.concat([serverName("a.test"), Buffer.of(0)])]]],
    ["an empty protocol name", [[16, alpn("")]]],
    ["a protocol list cut short", [[16, alpn("h2").subarray(0, 4)]]],
  ] as const)("refuses %s", (_case, raw) => {
    const bytes = records(clientHello({ raw: raw.map(([type, body]) => [type, body]) }));
    expect(parse(bytes).kind).toBe("malformed");
  });

  test.each([
    ["another handshake message", Buffer.of(22, 3, 1, 0, 4, 2, 0, 0, 0)],
    ["another record type", Buffer.of(23, 3, 1, 0, 1, 0)],
    ["an empty record", Buffer.of(22, 3, 1, 0, 0)],
    ["a record longer than the standard allows", Buffer.of(22, 3, 1, 0x40, 0x01)],
    ["a message longer than the limit", Buffer.of(22, 3, 1, 0, 4, 1, 1, 0, 0)],
    ["a hello shorter than its fields", Buffer.of(22, 3, 1, 0, 4, 1, 0, 0, 0)],
    ["SSL 2", Buffer.of(0x80, 0x2e, 1, 0, 2)],
  ])("refuses %s", (_case, bytes) => {
    expect(parse(bytes).kind).toBe("malformed");
  });
});

test.each([
  [Buffer.of(), true],
  [Buffer.of(22), true],
  [Buffer.of(22, 3, 1), true],
  [Buffer.of(22, 3, 4), true],
  [Buffer.of(22, 3, 5), false],
  [Buffer.of(22, 2), false],
  [Buffer.from("GET"), false],
])("looksLikeTls of %o is %s", (bytes, expected) => {
  expect(looksLikeTls(bytes)).toBe(expected);
});

test.each([
  ["api.test", "api.test", true],
  ["API.Test", "api.test", true],
  ["api.test.", "api.test", true],
  ["api.test..", "api.test", false],
  ["evil.test", "api.test", false],
  ["", "api.test", false],
  [".", "", false],
  ["api.test\0", "api.test", false],
  ["\u212Aelvin.test", "kelvin.test", false],
  ["10.0.0.1", "10.0.0.1", true],
])("the server name %o is that of %o: %s", (sni, host, expected) => {
  expect(isServerNameOf(sni, host)).toBe(expected);
});

test.each([
  ["api.test", true],
  ["localhost", true],
  ["_dmarc.api.test", true],
  ["xn--bcher-kva.test", true],
  ["", false],
  ["a..b", false],
  [".a", false],
  ["a.", false],
  ["-a.test", false],
  ["a b", false],
  ["a\0b", false],
  ["bücher.test", false],
  ["10.0.0.1", false],
  ["0x7f.1", false],
  ["a.0x7f", false],
  ["*.test", false],
  ["::1", false],
  [`${"a".repeat(64)}.test`, false],
  [`${"a.".repeat(126)}bc`, false],
])("isHostName(%o) is %s", (name, expected) => {
  expect(isHostName(name)).toBe(expected);
});
