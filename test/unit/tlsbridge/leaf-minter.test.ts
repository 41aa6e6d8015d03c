import { X509Certificate } from "node:crypto";
import type { SecureContext } from "node:tls";
import { connect, TLSSocket } from "node:tls";
import { beforeEach, describe, expect, test } from "vitest";
import { CertificateAuthority } from "../../../src/tlsbridge/certificate-authority.ts";
import type { LeafMinterOptions } from "../../../src/tlsbridge/leaf-minter.ts";
import { LeafMinter } from "../../../src/tlsbridge/leaf-minter.ts";
import { socketPair } from "../../support/socket-pair.ts";

const hourMs = 3_600_000;
let nowMs: number;
let source: { current: CertificateAuthority };

beforeEach(async () => {
  nowMs = Date.now();
  source = { current: await CertificateAuthority.ephemeral(nowMs) };
});

const create = (options: LeafMinterOptions = {}): Promise<LeafMinter> =>
  LeafMinter.create(source, { now: () => nowMs, ...options });

/** The certificate that a client sees. */
async function leafOf(context: SecureContext): Promise<X509Certificate> {
  const pair = await socketPair();
  const server = new TLSSocket(pair.server, { isServer: true, secureContext: context });
  server.on("error", () => undefined);
  const client = connect({ socket: pair.client, rejectUnauthorized: false });
  const certificate = await new Promise<X509Certificate | undefined>((resolve, reject) => {
    client.on("secureConnect", () => {
      resolve(client.getPeerX509Certificate());
    });
    client.on("error", reject);
  });
  client.destroy();
  server.destroy();
  if (certificate === undefined) throw new Error("no certificate");
  return certificate;
}

describe("a context", () => {
  test("holds a leaf of the authority for the name (I15)", async () => {
    const leaf = await leafOf(await (await create()).contextFor("a.test"));
    expect(leaf.checkHost("a.test")).toBe("a.test");
    expect(leaf.checkIssued(new X509Certificate(source.current.caPem))).toBe(true);
  });

  test("for an address holds a leaf for the address (I15)", async () => {
    const leaf = await leafOf(await (await create()).contextFor("2001:db8::1"));
    expect(leaf.checkIP("2001:db8::1")).toBeDefined();
  });

  test("has the key type that was asked for, one key for all names", async () => {
    const minter = await create({ keyType: "rsa-2048" });
    const leaves = [
      await leafOf(await minter.contextFor("a.test")),
      await leafOf(await minter.contextFor("b.test")),
    ];
    expect(leaves[0]?.publicKey.asymmetricKeyType).toBe("rsa");
    expect(leaves[1]?.publicKey.equals(leaves[0]?.publicKey ?? expect.fail())).toBe(true);
  });

  test("is the same for the same name (I16)", async () => {
    const minter = await create();
    const first = await minter.contextFor("a.test");
    expect(await minter.contextFor("a.test")).toBe(first);
    expect(minter.minted).toBe(1);
  });

  test("is minted once for many that ask at once", async () => {
    const minter = await create();
    const contexts = await Promise.all(
      Array.from({ length: 50 }, () => minter.contextFor("a.test")),
    );
    expect(new Set(contexts).size).toBe(1);
    expect(minter.minted).toBe(1);
  });

  test("is minted anew when less than an hour is left (I16)", async () => {
    const minter = await create({ lifetimeMs: 24 * hourMs });
    const first = await minter.contextFor("a.test");
    nowMs += 22.9 * hourMs;
    expect(await minter.contextFor("a.test")).toBe(first);
    nowMs += 0.2 * hourMs;
    expect(await minter.contextFor("a.test")).not.toBe(first);
  });

  test("is minted anew after the machine slept, and after its clock was set back (I16)", async () => {
    const minter = await create();
    const first = await minter.contextFor("a.test");
    nowMs += 72 * hourMs;
    const second = await minter.contextFor("a.test");
    nowMs -= 72 * hourMs;
    expect(second).not.toBe(first);
    expect(await minter.contextFor("a.test")).not.toBe(second);
  });

  test("of the name used longest ago goes first (I16)", async () => {
    const minter = await create({ maxEntries: 2 });
    const a = await minter.contextFor("a.test");
    const b = await minter.contextFor("b.test");
    await minter.contextFor("a.test");
    await minter.contextFor("c.test");
    expect(minter.size).toBe(2);
    expect(await minter.contextFor("a.test")).toBe(a);
    expect(await minter.contextFor("b.test")).not.toBe(b);
  });

  test("comes from the new authority after a rotation", async () => {
    const minter = await create();
    await minter.contextFor("a.test");
    source.current = await CertificateAuthority.ephemeral(nowMs);
    const leaf = await leafOf(await minter.contextFor("a.test"));
    expect(leaf.checkIssued(new X509Certificate(source.current.caPem))).toBe(true);
    expect(leaf.verify(new X509Certificate(source.current.caPem).publicKey)).toBe(true);
    expect(minter.size).toBe(1);
  });

  test("does not outlive the authority", async () => {
    nowMs = source.current.notAfter.getTime() - hourMs;
    const leaf = await leafOf(await (await create()).contextFor("a.test"));
    expect(leaf.validToDate).toEqual(source.current.notAfter);
  });

  test("is refused when the authority has expired", async () => {
    nowMs = source.current.notAfter.getTime();
    const minter = await create();
    await expect(minter.contextFor("a.test")).rejects.toThrow(/the CA expired on/);
  });

  test("is refused for what is no name, and the next name is served", async () => {
    const minter = await create();
    const bad = minter.contextFor("a\0b");
    const good = minter.contextFor("a.test");
    await expect(bad).rejects.toMatchObject({ code: "request.malformed" });
    await expect(good).resolves.toBeDefined();
    expect(minter.size).toBe(1);
  });
});

test("a flood of names is refused beyond a bound, not queued for ever", async () => {
  const minter = await create({ maxEntries: 1 });
  const asked = Array.from({ length: 10_001 }, (_, index) => minter.contextFor(`h${index}.test`));
  await expect(asked.at(-1)).rejects.toMatchObject({ code: "proxy.overloaded" });
  source.current = Object.create(source.current, { notAfter: { value: new Date(0) } });
  await Promise.allSettled(asked);
});

test("5,000 names at once keep within the bound and leave the event loop to others", async () => {
  const minter = await create({ maxEntries: 1_000 });
  let most = 0;
  let before = minter.minted;
  // Counted, not timed: a shared machine may take the processor away at any moment.
  const watch = (): void => {
    most = Math.max(most, minter.minted - before);
    before = minter.minted;
    if (before < 5_000) setImmediate(watch);
  };
  setImmediate(watch);
  const names = Array.from({ length: 5_000 }, (_, index) => `h${index}.test`);
  await Promise.all(names.map((name) => minter.contextFor(name)));
  most = Math.max(most, minter.minted - before);
  expect(minter.size).toBe(1_000);
  expect(minter.minted).toBe(5_000);
  // A leaf with its context takes a tenth of a millisecond or more: this is far below 50 ms.
  expect(most).toBeLessThan(200);
});
