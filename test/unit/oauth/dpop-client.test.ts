/** Keys that tokens are bound to: whoever has the seed has the same ones. */
import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { DpopKeys, type LearnedNonce } from "../../../src/oauth/dpop-client.ts";
import { readProof } from "../../support/dpop.ts";

const clock = { now: () => 1_800_000_000_000 };
const request = { method: "GET", url: "https://api.test/path?q=1", accessToken: "t" };

test("one seed makes one key for all, and one for each caller, wherever it is", async () => {
  const seed = randomBytes(32);
  const [here, there] = [new DpopKeys({ clock, seed }), new DpopKeys({ clock, seed })];
  const other = new DpopKeys({ clock, seed: randomBytes(32) });
  const all = [here.shared(), here.of("a"), here.of("b"), other.shared(), other.of("a")];
  expect(new Set(all.map(({ thumbprint }) => thumbprint)).size).toBe(all.length);
  expect(there.shared().thumbprint).toBe(here.shared().thumbprint);
  expect(there.of("a").thumbprint).toBe(here.of("a").thumbprint);
  // The proof is signed with the key that its thumbprint names.
  const { thumbprint, claims } = await readProof(await there.of("a").proof(request));
  expect(thumbprint).toBe(here.of("a").thumbprint);
  expect(claims).toMatchObject({ htm: "GET", htu: "https://api.test/path" });
});

test("a seed of any bytes makes a key", async () => {
  for (const byte of [0, 255]) {
    const keys = new DpopKeys({ clock, seed: Buffer.alloc(32, byte) });
    const { thumbprint } = await readProof(await keys.shared().proof(request));
    expect(thumbprint).toBe(keys.shared().thumbprint);
  }
});

test("a nonce is told once to those with the same keys, who use it for the same key", async () => {
  const seed = randomBytes(32);
  const told: LearnedNonce[] = [];
  let hear: (learned: LearnedNonce) => void = () => undefined;
  const share = (heard: typeof hear) => {
    hear = heard;
    return { tell: (learned: LearnedNonce) => void told.push(learned), close: () => undefined };
  };
  const keys = new DpopKeys({ clock, seed, share });
  expect(keys.of("a").learn(request.url, "n-1")).toBe(true);
  expect(keys.of("a").learn(request.url, "n-1")).toBe(true);
  expect(keys.of("a").learn(request.url, "no nonce")).toBe(false);
  expect(told).toEqual([{ caller: "a", origin: "https://api.test", nonce: "n-1" }]);
  hear({ origin: "https://api.test", nonce: "n-2" });
  const nonceOf = async (key: ReturnType<DpopKeys["shared"]>): Promise<unknown> =>
    (await readProof(await key.proof(request))).claims["nonce"];
  expect(await nonceOf(keys.shared())).toBe("n-2");
  expect(await nonceOf(keys.of("a"))).toBe("n-1");
  expect(told).toHaveLength(1);
});
