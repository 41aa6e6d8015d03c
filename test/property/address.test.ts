import { BlockList, isIP } from "node:net";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { classifyAddress, IpAddress, parseAddress, parseCidr } from "../../src/net/address.ts";

const limits = { interruptAfterTimeLimit: 1200, numRuns: 10_000 };
/** Nearly an address. */
const near = fc
  .array(fc.constantFrom("0", "1", "9", "25", "255", "256", ".", ".", ".", ":", " "), {
    maxLength: 9,
  })
  .map((parts) => parts.join(""));
const ipText = fc.oneof(fc.ipV4(), fc.ipV6(), near, fc.string({ maxLength: 20 }));
const v4 = fc.uint8Array({ minLength: 4, maxLength: 4 });

test("reads exactly what node:net calls an address, less zone ids", () => {
  fc.assert(
    fc.property(ipText, (text) => {
      const expected = text.includes("%") ? 0 : isIP(text);
      expect(parseAddress(text)?.version ?? 0).toBe(expected);
    }),
    limits,
  );
});

test("spells IPv6 as WHATWG URL does, and reads its own spelling back", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), fc.nat(255), (bytes, mask) => {
      // Whole groups of zeros are what the shortening is about.
      const some = bytes.map((byte, at) => ((mask >> (at >> 1)) & 1) * byte);
      const ip = new IpAddress(some);
      const text = ip.toString();
      expect(`[${text}]`).toBe(new URL(`http://[${text}]/`).hostname);
      expect(parseAddress(text)?.equals(ip)).toBe(true);
    }),
    limits,
  );
});

test("a range holds what node:net says it holds", () => {
  fc.assert(
    fc.property(v4, v4, fc.nat(32), (network, candidate, prefix) => {
      const range = `${network.join(".")}/${prefix}`;
      const list = new BlockList();
      list.addSubnet(network.join("."), prefix);
      for (const bytes of [candidate, network]) {
        expect(parseCidr(range).contains(new IpAddress(bytes))).toBe(list.check(bytes.join(".")));
      }
    }),
    { ...limits, numRuns: 3000 },
  );
});

test("no IPv6 form that embeds an address is more open than that address", () => {
  const wraps = [
    (a: string) => `::ffff:${a}`,
    (a: string) => `64:ff9b::${a}`,
    (a: string) => `::ffff:0:${a}`,
    (a: string) => `fe80::5efe:${a}`,
  ];
  fc.assert(
    fc.property(v4, fc.constantFrom(...wraps), (bytes, wrap) => {
      const plain = classifyAddress(new IpAddress(bytes));
      const wrapped = parseAddress(wrap(bytes.join(".")));
      expect(wrapped).toBeDefined();
      if (wrapped !== undefined && plain !== "public") {
        expect(classifyAddress(wrapped)).not.toBe("public");
      }
    }),
    limits,
  );
});

test("a range is parsed or refused with an Error that says what is wrong", () => {
  const text = fc.tuple(ipText, fc.string({ maxLength: 5 })).map(([ip, rest]) => `${ip}/${rest}`);
  fc.assert(
    fc.property(fc.oneof(text, fc.string()), (range) => {
      try {
        parseCidr(range);
      } catch (error) {
        expect(String(error)).toContain("is not an address range");
      }
    }),
    limits,
  );
});
