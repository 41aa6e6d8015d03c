import { endianness } from "node:os";
import { describe, expect, test } from "vitest";
import { parseSockaddr } from "../../../../src/net/kernel/original-destination.ts";

/** A sockaddr as this machine's kernel writes it: family in its own byte order, the rest in the network's. */
function sockaddr(family: number, rest: string): Buffer {
  const bytes = Buffer.concat([Buffer.alloc(2), Buffer.from(rest.replaceAll(" ", ""), "hex")]);
  if (endianness() === "LE") bytes.writeUInt16LE(family);
  else bytes.writeUInt16BE(family);
  return Buffer.concat([bytes, Buffer.alloc(Math.max(0, 28 - bytes.length))]);
}

describe("I6: original destinations", () => {
  test.each([
    ["IPv4", sockaddr(2, "01bb c6336402"), { address: "198.51.100.2", port: 443 }],
    [
      "IPv6",
      sockaddr(10, "0050 00000000 20010db8005100000000000000000002 00000000"),
      { address: "2001:db8:51::2", port: 80 },
    ],
    [
      "IPv4 in IPv6",
      sockaddr(10, "0050 00000000 00000000000000000000ffffc6336402 00000000"),
      { address: "198.51.100.2", port: 80 },
    ],
  ])("%s", (_what, bytes, expected) => {
    expect(parseSockaddr(bytes)).toEqual(expected);
  });

  test.each([
    ["another family", sockaddr(1, "01bb c6336402")],
    ["no port", sockaddr(2, "0000 c6336402")],
    ["too short", sockaddr(2, "01bb c6336402").subarray(0, 8)],
    ["too short for IPv6", sockaddr(10, "0050 00000000 20010db800510000").subarray(0, 16)],
    ["nothing", Buffer.alloc(0)],
  ])("%s is none", (_what, bytes) => {
    expect(parseSockaddr(bytes)).toBeUndefined();
  });
});
