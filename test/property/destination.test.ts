import * as fc from "fast-check";
import { expect, test } from "vitest";
import { ProxyError } from "../../src/errors.ts";
import { parseAbsoluteTarget, parseAuthority } from "../../src/net/destination.ts";

const limits = { interruptAfterTimeLimit: 1500, numRuns: 20_000 };

/** The result, or undefined for the one fault that a parser may throw. */
function tryParse<T>(parse: () => T): T | undefined {
  try {
    return parse();
  } catch (error) {
    if (error instanceof ProxyError && error.code === "request.malformed") {
      return undefined;
    }
    throw error;
  }
}

function urlHost(text: string): string | undefined {
  try {
    return new URL(text).hostname.replace(/^\[|\]$/g, "").replace(/\.$/, "");
  } catch {
    return undefined;
  }
}

const part = fc.oneof(
  fc.nat(300).map(String),
  fc.nat().map((n) => `0x${n.toString(16)}`),
  fc.nat(300).map((n) => `0${n.toString(8)}`),
  fc.nat(0xff_ff_ff_ff).map(String),
  fc.constantFrom("", "a", "0x", "08", "xn--", "xn--a", "xn--bcher-kva", "-", "_", "A1", "0xg"),
);
const host = fc.oneof(
  fc.array(part, { minLength: 1, maxLength: 5 }).map((parts) => parts.join(".")),
  fc.ipV6().map((text) => `[${text}]`),
  fc.domain(),
  fc.string({ unit: "grapheme", maxLength: 20 }),
  fc.string({ unit: fc.constantFrom(..."aA0.:[]%@\\/x-f".split("")), maxLength: 20 }),
);

test("an accepted host is the one that WHATWG URL sees, so there is no split view", () => {
  fc.assert(
    fc.property(host, (text) => {
      const destination = tryParse(() => parseAuthority(`${text}:8080`, "tcp"));
      if (destination === undefined) {
        return;
      }
      const mapped = /^::ffff:([0-9a-f]+):([0-9a-f]+)$/.exec(urlHost(`http://${text}:8080/`) ?? "");
      const seen =
        mapped === null
          ? urlHost(`http://${text}:8080/`)
          : [mapped[1], mapped[2]]
              .map((group) => Number.parseInt(group ?? "", 16))
              .flatMap((value) => [value >> 8, value & 255])
              .join(".");
      expect(destination.host).toBe(seen);
      expect(parseAuthority(destination.authority, "tcp").equals(destination)).toBe(true);
    }),
    limits,
  );
});

test("any text is a destination or request.malformed, and the path comes out as it went in", () => {
  const target = fc.tuple(
    fc.constantFrom("http://", "https://", "HTTP://", "", "ftp://"),
    host,
    fc.oneof(
      fc.string(),
      fc.webPath(),
      fc.webQueryParameters().map((query) => `?${query}`),
    ),
  );
  fc.assert(
    fc.property(target, ([scheme, authority, rest]) => {
      const text = scheme + authority + rest;
      const parsed = tryParse(() => parseAbsoluteTarget(text));
      if (parsed !== undefined) {
        expect(text.endsWith(parsed.path) || text.endsWith(parsed.path.slice(1))).toBe(true);
        expect(parsed.path.startsWith("/")).toBe(true);
      }
    }),
    limits,
  );
});
