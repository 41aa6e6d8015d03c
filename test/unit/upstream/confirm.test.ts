/** The pin: the address that a captured client dialled against the name that it asks for. */
import { describe, expect, test } from "vitest";
import { AddressSet, type IpAddress, parseAddress } from "../../../src/net/address.ts";
import { parseAuthority } from "../../../src/net/destination.ts";
import { Cancellation } from "../../../src/pipeline/cancellation.ts";
import { AddressGuard } from "../../../src/upstream/address-guard.ts";
import { OwnListeners } from "../../../src/upstream/own-listeners.ts";

function guardOf(...answers: readonly (readonly string[])[]): {
  readonly guard: AddressGuard;
  readonly asked: string[];
} {
  const asked: string[] = [];
  const guard = new AddressGuard({
    resolver: {
      resolve: (host) => {
        asked.push(host);
        return Promise.resolve(answers[Math.min(asked.length, answers.length) - 1] ?? []);
      },
    },
    ownListeners: new OwnListeners(),
    allowIps: new AddressSet([]),
    privateNetworks: "allow",
  });
  return { guard, asked };
}

function address(text: string): IpAddress {
  const parsed = parseAddress(text);
  if (parsed === undefined) throw new Error(`${text} is no address`);
  return parsed;
}

const confirm = (guard: AddressGuard, name: string, captured: string): Promise<void> =>
  guard.confirm(parseAuthority(name, "tcp"), address(captured), new Cancellation());
const misdirected = { code: "request.misdirected" };

describe("a captured address", () => {
  test("is one of the name's", async () => {
    const { guard } = guardOf(["9.9.9.9", "8.8.8.8"]);
    await expect(confirm(guard, "api.test:443", "8.8.8.8")).resolves.toBeUndefined();
    await expect(confirm(guard, "api.test:443", "1.1.1.1")).rejects.toMatchObject(misdirected);
  });

  test("may be one that the name had before, without asking again", async () => {
    const { guard, asked } = guardOf(["9.9.9.9"], ["8.8.8.8"]);
    await confirm(guard, "api.test:443", "9.9.9.9");
    await confirm(guard, "api.test:443", "9.9.9.9");
    expect(asked).toEqual(["api.test"]);
    await confirm(guard, "api.test:443", "8.8.8.8");
    await confirm(guard, "api.test:443", "9.9.9.9");
    expect(asked).toHaveLength(2);
  });

  test("is remembered for its name only", async () => {
    const { guard } = guardOf(["9.9.9.9"], ["8.8.8.8"]);
    await confirm(guard, "api.test:443", "9.9.9.9");
    await expect(confirm(guard, "other.test:443", "9.9.9.9")).rejects.toMatchObject(misdirected);
  });

  test("must be the address itself where the client names an address", async () => {
    const { guard, asked } = guardOf(["9.9.9.9"]);
    await confirm(guard, "9.9.9.9:443", "9.9.9.9");
    await expect(confirm(guard, "9.9.9.9:443", "8.8.8.8")).rejects.toMatchObject(misdirected);
    expect(asked).toEqual([]);
  });

  test("is never looked up for a metadata service", async () => {
    const { guard, asked } = guardOf(["9.9.9.9"]);
    const name = "metadata.google.internal:80";
    await expect(confirm(guard, name, "9.9.9.9")).rejects.toMatchObject(misdirected);
    expect(asked).toEqual([]);
  });
});
