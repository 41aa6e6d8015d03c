/** The token of a Vault server: shared by sources, renewed after half of its life, had anew where that is not granted. */
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, beforeEach, expect, test } from "vitest";
import { type VaultAuth, VaultLogin } from "../../../src/secrets/vault-login.ts";
import { loopbackFetch } from "../../support/idp.ts";
import { owner } from "../../support/owner.ts";
import { ManualClock } from "../../support/plugin-bench.ts";
import { StubProvider } from "../../support/stub-provider.ts";

const own = owner();
const { signal } = new AbortController();
let folder: string;
let provider: StubProvider;
/** Seconds that renewals grant. */
let granted: number;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "vault-login-"));
  await writeFile(join(folder, "secret-id"), "s\n");
  await writeFile(join(folder, "token"), "hvs.file\n");
});
beforeEach(async () => {
  provider = await own(StubProvider.start());
  granted = 100;
  let logins = 0;
  provider.on("POST /v1/auth/approle/login", (call) => {
    if (JSON.stringify(call.json()) !== '{"role_id":"r","secret_id":"s"}')
      return [400, { errors: ["invalid role or secret ID"] }];
    logins += 1;
    return [200, { auth: { client_token: `hvs.${logins}`, lease_duration: 100, renewable: true } }];
  });
  provider.on("POST /v1/auth/token/renew-self", () => [
    200,
    { auth: { client_token: "hvs.1", lease_duration: granted, renewable: true } },
  ]);
  provider.on("GET /v1/auth/token/lookup-self", ({ headers }) =>
    headers["x-vault-token"] === "hvs.file"
      ? [200, { data: { ttl: 0, renewable: false } }]
      : [403, { errors: ["permission denied"] }],
  );
  provider.on("GET /v1/kv/x", ({ headers }) => [200, { data: { by: headers["x-vault-token"] } }]);
});

function bench(auth: VaultAuth) {
  const clock = new ManualClock();
  const login = new VaultLogin({ address: provider.url, namespace: undefined, auth, clock });
  const read = async (): Promise<unknown> => {
    const { fields } = await login.ask({ call: loopbackFetch, signal }, { path: "kv/x" });
    return (fields["data"] as { readonly by: unknown }).by;
  };
  return { clock, read };
}

const approle = (): VaultAuth => ({
  method: "approle",
  mount: "approle",
  roleId: "r",
  secretIdFile: join(folder, "secret-id"),
});

test("a hundred reads share one login", async () => {
  const { read } = bench(approle());
  const readers = await Promise.all(Array.from({ length: 100 }, read));
  expect(new Set(readers)).toEqual(new Set(["hvs.1"]));
  expect(provider.count("POST /v1/auth/approle/login")).toBe(1);
});

test("after half of its life the token is renewed; where little is granted, another is had", async () => {
  const { clock, read } = bench(approle());
  await read();
  clock.advance(49_000);
  await read();
  expect(provider.count("POST /v1/auth/token/renew-self")).toBe(0);
  clock.advance(2_000);
  expect(await read()).toBe("hvs.1");
  expect(provider.count("POST /v1/auth/token/renew-self")).toBe(1);
  granted = 10;
  clock.advance(51_000);
  expect(await read()).toBe("hvs.2");
  clock.advance(200_000);
  expect(await read()).toBe("hvs.3");
  expect(provider.count("POST /v1/auth/token/renew-self")).toBe(2);
});

test("a token of a file is looked up, and one without an end is used for ever", async () => {
  const { clock, read } = bench({ method: "token", tokenFile: join(folder, "token") });
  expect(await read()).toBe("hvs.file");
  clock.advance(10 * 365 * 86_400_000);
  expect(await read()).toBe("hvs.file");
  expect(provider.count("GET /v1/auth/token/lookup-self")).toBe(1);
});

test("what cannot be read, or is refused, is said without the credential", async () => {
  const absent = bench({ method: "token", tokenFile: join(folder, "absent") });
  await expect(absent.read()).rejects.toThrow("absent: the file does not exist");
  const wrong = bench({ ...approle(), roleId: "other" } as VaultAuth);
  await expect(wrong.read()).rejects.toThrow("400: invalid role or secret ID");
});
