import { expect, test } from "vitest";
import { type IpAddress, parseAddress } from "../../../src/net/address.ts";
import { RecentAddresses } from "../../../src/upstream/recent-addresses.ts";

function address(text: string): IpAddress {
  const parsed = parseAddress(text);
  if (parsed === undefined) throw new Error(`${text} is no address`);
  return parsed;
}

test("a name keeps the addresses of earlier answers for ten minutes", () => {
  let now = 0;
  const recent = new RecentAddresses(() => now);
  recent.add("api.test", [address("192.0.2.1")]);
  now = 300_000;
  recent.add("api.test", [address("192.0.2.2")]);
  expect(recent.has("api.test", address("192.0.2.1"))).toBe(true);
  expect(recent.has("other.test", address("192.0.2.1"))).toBe(false);
  now = 600_000;
  expect(recent.has("api.test", address("192.0.2.1"))).toBe(false);
  expect(recent.has("api.test", address("192.0.2.2"))).toBe(true);
});

test("names and addresses that strangers can make up are bounded", () => {
  const recent = new RecentAddresses(() => 0);
  recent.add("first.test", [address("192.0.2.1")]);
  for (let number = 0; number < 1_024; number += 1)
    recent.add(`name-${number}.test`, [address("192.0.2.1")]);
  expect(recent.has("first.test", address("192.0.2.1"))).toBe(false);
  const many = Array.from({ length: 200 }, (_unused, number) => address(`10.0.0.${number}`));
  recent.add("many.test", many);
  expect(recent.has("many.test", address("10.0.0.0"))).toBe(false);
  expect(recent.has("many.test", address("10.0.0.199"))).toBe(true);
});
