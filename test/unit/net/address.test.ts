import { describe, expect, test } from "vitest";
import {
  AddressSet,
  classifyAddress,
  embeddedIPv4,
  IpAddress,
  isMetadataName,
  parseAddress,
  parseCidr,
} from "../../../src/net/address.ts";
import { peerAddress } from "../../../src/net/peer-address.ts";

function address(text: string): IpAddress {
  const parsed = parseAddress(text);
  if (parsed === undefined) {
    throw new Error(`${text} did not parse`);
  }
  return parsed;
}

describe("parseAddress", () => {
  test.each([
    ["192.0.2.1", "192.0.2.1"],
    ["::", "::"],
    ["::1", "::1"],
    ["2001:DB8::", "2001:db8::"],
    ["1:0:0:2:0:0:0:3", "1:0:0:2::3"],
    ["1:0:0:2:0:0:3:4", "1::2:0:0:3:4"],
    ["1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7"],
    ["::ffff:192.0.2.1", "::ffff:c000:201"],
    ["64:ff9b::192.0.2.33", "64:ff9b::c000:221"],
  ])("reads %s as %s", (text, expected) => {
    expect(address(text).toString()).toBe(expected);
  });

  test.each(["", "1.2.3", "01.2.3.4", "1.2.3.4.", "0x1.2.3.4", "[::1]", "::1%eth0", "1:2", "a.b"])(
    "does not read %j",
    (text) => {
      expect(parseAddress(text)).toBeUndefined();
    },
  );

  test("an address of another length cannot be made", () => {
    expect(() => new IpAddress(new Uint8Array(5))).toThrow(RangeError);
  });
});

test.each([
  ["::ffff:192.0.2.1", "192.0.2.1"],
  ["192.0.2.1", "192.0.2.1"],
  ["2001:db8::1", "2001:db8::1"],
  ["::ffff:0:1", "::ffff:0:1"],
  ["", ""],
])("a peer at %s is at %s", (given, shown) => {
  expect(peerAddress(given)).toBe(shown);
});

describe("parseCidr", () => {
  test.each([
    ["10.1.2.3/8", "10.0.0.0/8", ["10.255.0.1", "::ffff:10.0.0.1"], ["11.0.0.1", "::a00:1"]],
    ["192.0.2.1", "192.0.2.1/32", ["192.0.2.1"], ["192.0.2.2"]],
    ["0.0.0.0/0", "0.0.0.0/0", ["255.1.2.3"], ["::1"]],
    ["172.16.0.0/12", "172.16.0.0/12", ["172.31.255.255"], ["172.32.0.0", "172.15.255.255"]],
    ["fd00::1/7", "fc00::/7", ["fdff::1"], ["fe00::"]],
    ["::/0", "::/0", ["2001:db8::1"], ["1.2.3.4", "::ffff:1.2.3.4"]],
    ["::ffff:10.0.0.0/104", "10.0.0.0/8", ["10.9.9.9"], ["11.0.0.0"]],
  ])("%s is %s", (text, canonical, inside, outside) => {
    const cidr = parseCidr(text);
    expect(cidr.toString()).toBe(canonical);
    expect(inside.map((ip) => cidr.contains(address(ip)))).toEqual(inside.map(() => true));
    expect(outside.map((ip) => cidr.contains(address(ip)))).toEqual(outside.map(() => false));
  });

  test.each(["", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/08", "::/129", "10.0.0/8", "a/8"])(
    "refuses %j and says so",
    (text) => {
      expect(() => parseCidr(text)).toThrow(/not an address range/);
    },
  );

  test("a set holds what any of its ranges holds", () => {
    const set = AddressSet.parse(["10.0.0.0/8", "::1"]);
    expect(["10.1.1.1", "::1", "11.0.0.1"].map((ip) => set.contains(address(ip)))).toEqual([
      true,
      true,
      false,
    ]);
  });
});

describe("embeddedIPv4", () => {
  test.each([
    ["192.0.2.1", []],
    ["2606:4700::1111", []],
    ["::1", []],
    ["::ffff:1.2.3.4", ["1.2.3.4"]],
    ["::1.2.3.4", ["1.2.3.4"]],
    ["::ffff:0:1.2.3.4", ["1.2.3.4"]],
    ["64:ff9b::1.2.3.4", ["1.2.3.4"]],
    ["2002:102:304::1", ["1.2.3.4"]],
    ["2001:0:4136:e378:8000:63bf:3fff:fdd2", ["65.54.227.120", "192.0.2.45"]],
    ["fe80::5efe:1.2.3.4", ["1.2.3.4"]],
    ["2606:4700::200:5efe:1.2.3.4", ["1.2.3.4"]],
  ])("of %s is %j", (text, expected) => {
    expect(embeddedIPv4(address(text)).map(String)).toEqual(expected);
  });

  test("finds every layout of a local NAT64 prefix (RFC 6052 section 2.2)", () => {
    const layouts = [
      "64:ff9b:1:a9fe:a9:fe00::",
      "64:ff9b:1:a9:fe:a9fe::",
      "64:ff9b:1:0:a9:fea9:fe00:0",
      "64:ff9b:1::a9fe:a9fe",
    ];
    expect(layouts.map((text) => classifyAddress(address(text)))).toEqual(
      layouts.map(() => "metadata"),
    );
  });
});

describe("classifyAddress", () => {
  test.each([
    ["8.8.8.8", "public"],
    ["172.32.0.1", "public"],
    ["100.128.0.0", "public"],
    ["::ffff:8.8.8.8", "public"],
    ["64:ff9b::8.8.8.8", "public"],
    ["2606:4700:4700::1111", "public"],
    ["10.0.0.1", "private"],
    ["172.16.0.1", "private"],
    ["192.168.1.1", "private"],
    ["100.64.0.1", "private"],
    ["100.127.255.255", "private"],
    ["fd00::1", "private"],
    ["fec0::1", "private"],
    ["64:ff9b::10.0.0.1", "private"],
    ["127.0.0.1", "loopback"],
    ["127.255.255.255", "loopback"],
    ["::1", "loopback"],
    ["::ffff:127.0.0.1", "loopback"],
    ["::127.0.0.1", "loopback"],
    ["2002:7f00:1::", "loopback"],
    ["169.254.1.1", "link-local"],
    ["fe80::1", "link-local"],
    ["169.254.169.254", "metadata"],
    ["169.254.170.2", "metadata"],
    ["169.254.170.23", "metadata"],
    ["168.63.129.16", "metadata"],
    ["100.100.100.200", "metadata"],
    ["192.0.0.192", "metadata"],
    ["fd00:ec2::254", "metadata"],
    ["fd20:ce::254", "metadata"],
    ["::ffff:169.254.169.254", "metadata"],
    ["64:ff9b::a9fe:a9fe", "metadata"],
    ["2002:a9fe:a9fe::1", "metadata"],
    ["2001:0:a9fe:a9fe::", "metadata"],
    ["2001:0:102:304::5601:5601", "metadata"],
    ["fe80::5efe:169.254.169.254", "metadata"],
    ["0.0.0.0", "unspecified"],
    ["0.1.2.3", "unspecified"],
    ["::", "unspecified"],
    ["224.0.0.1", "multicast"],
    ["ff02::1", "multicast"],
    ["255.255.255.255", "broadcast"],
    ["192.0.0.1", "reserved"],
    ["192.0.2.1", "reserved"],
    ["192.88.99.1", "reserved"],
    ["198.18.0.1", "reserved"],
    ["198.51.100.1", "reserved"],
    ["203.0.113.1", "reserved"],
    ["240.0.0.1", "reserved"],
    ["2001:db8::1", "reserved"],
    ["3fff::1", "reserved"],
    ["100::1", "reserved"],
    ["5f00::1", "reserved"],
    ["2002:808:808::1", "reserved"],
    ["::8.8.8.8", "reserved"],
    ["4000::1", "reserved"],
  ] as const)("%s is %s", (text, expected) => {
    expect(classifyAddress(address(text))).toBe(expected);
  });

  test("metadata services are known by name", () => {
    expect(["metadata.google.internal", "metadata", "example.com"].map(isMetadataName)).toEqual([
      true,
      true,
      false,
    ]);
  });
});
