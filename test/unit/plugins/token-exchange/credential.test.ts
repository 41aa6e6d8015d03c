/** What of an origin's challenge asks for a nonce. */
import { expect, test } from "vitest";
import { DpopKeys } from "../../../../src/oauth/dpop-client.ts";
import { attachToken } from "../../../../src/plugins/token-exchange/credential.ts";
import { Secret } from "../../../../src/secret.ts";
import { message } from "../../../support/plugin-bench.ts";

const keys = new DpopKeys({ clock: { now: () => 1_800_000_000_000 }, seed: Buffer.alloc(32, 7) });
let counter = 0;

async function isAskedBy(challenge: string): Promise<boolean> {
  const context = message({ to: "api.example.com:443" });
  await attachToken(context, new Secret("token"), keys.shared());
  const nonce = `nonce-${(counter += 1)}`;
  const fields: Record<string, string> = { "dpop-nonce": nonce, "www-authenticate": challenge };
  return context.credential?.answered(401, (name) => fields[name]) !== undefined;
}

test.each([
  'DPoP error="use_dpop_nonce"',
  "dpop\tERROR = use_dpop_nonce",
  'Bearer realm="x", DPoP realm="x", error="use_dpop_nonce", algs="ES256"',
  'Bearer,DPoP algs="ES256",error="use_dpop_nonce"',
  'DPoP error="invalid_token", DPoP error="use_dpop_nonce"',
])("%s", async (challenge) => {
  expect(await isAskedBy(challenge)).toBe(true);
});

test.each([
  "",
  "DPoP",
  'DPoP error="invalid_dpop_proof"',
  'DPoP error="use_dpop_nonces"',
  'DPoP my_error="use_dpop_nonce"',
  'Bearer error="use_dpop_nonce", DPoP realm="x"',
  'XDPoP error="use_dpop_nonce"',
  'DPoPX error="use_dpop_nonce"',
])("not %s", async (challenge) => {
  expect(await isAskedBy(challenge)).toBe(false);
});

test.each([" dpop", "dpop ,", "dpop , error ", "dpop error= "])(
  "64 KiB of %j are read in time that grows with their length",
  async (part) => {
    const challenge = part.repeat(65_536 / part.length);
    const begun = performance.now();
    expect(await isAskedBy(challenge)).toBe(false);
    expect(performance.now() - begun).toBeLessThan(500);
  },
);
