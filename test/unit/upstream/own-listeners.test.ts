import { networkInterfaces } from "node:os";
import { describe, expect, test } from "vitest";
import { parseAddress } from "../../../src/net/address.ts";
import { OwnListeners } from "../../../src/upstream/own-listeners.ts";

function owning(...bound: readonly (readonly [address: string, port: number])[]) {
  const own = new OwnListeners();
  for (const [address, port] of bound) own.add(address, port);
  return (address: string, port: number): boolean => {
    const parsed = parseAddress(address);
    if (parsed === undefined) throw new Error(`${address} is no address`);
    return own.owns(parsed, port);
  };
}

describe("a listener on one address", () => {
  const owns = owning(["127.0.0.1", 9090], ["::1", 9191]);

  test.each([
    ["127.0.0.1", 9090, true],
    ["::ffff:127.0.0.1", 9090, true],
    ["::ffff:7f00:1", 9090, true],
    ["::1", 9191, true],
    // The kernel reads it as loopback.
    ["0.0.0.0", 9090, true],
    ["::", 9191, true],
    ["127.0.0.2", 9090, false],
    ["127.0.0.1", 9091, false],
    ["192.0.2.1", 9090, false],
  ])("%s port %i: %s", (address, port, isOurs) => {
    expect(owns(address, port)).toBe(isOurs);
  });
});

test("an address that is mapped into IPv6 is the IPv4 address", () => {
  expect(owning(["::ffff:127.0.0.1", 9090])("127.0.0.1", 9090)).toBe(true);
});

describe.each(["0.0.0.0", "::"])("a listener on %s", (every) => {
  const owns = owning([every, 9090]);
  const interfaces = Object.values(networkInterfaces()).flatMap((all) => all ?? []);

  test.each(["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::"])("has %s", (address) => {
    expect(owns(address, 9090)).toBe(true);
    expect(owns(address, 9091)).toBe(false);
  });

  test("has every address of this machine", () => {
    const own = interfaces.filter(({ scopeid = 0 }) => scopeid === 0);
    expect(own.filter(({ address }) => !owns(address, 9090))).toEqual([]);
  });

  // RFC 5737 and RFC 3849: for documentation.
  test.each(["192.0.2.1", "2001:db8::1"])("does not have %s", (address) => {
    expect(owns(address, 9090)).toBe(false);
  });
});

test("only ports that are bound to every address are asked of the routes", async () => {
  const own = new OwnListeners();
  own.add("127.0.0.1", 9090);
  const loopback = parseAddress("127.0.0.1");
  if (loopback === undefined) throw new Error("no address");
  expect(await own.ownsByRoute(loopback, 9090)).toBe(false);
  expect(await own.ownsByRoute(loopback, 9091)).toBe(false);
});
