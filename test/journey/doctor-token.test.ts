/** `doctor --token`: which checks one token fails, and never the token itself. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { StubIdp, type TokenShape } from "../support/idp.ts";
import { owner } from "../support/owner.ts";
import { runProgram, toYaml, type Settings } from "../support/program.ts";
import { inbound, merge, settings } from "../support/proxy.ts";

const own = owner();
let idp: StubIdp;
let folder: string;

beforeAll(async () => {
  idp = await own(StubIdp.start());
  folder = await mkdtemp(join(tmpdir(), "authbridge-doctor-token-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

let counter = 0;

/** What the doctor says of this token, and that it prints none of it. */
async function explain(
  token: string,
  config: Settings = {},
  text = `${token}\n`,
): Promise<{ readonly code: number | null; readonly lines: readonly string[] }> {
  const at = `${folder}/${(counter += 1)}`;
  const jwtValidation = {
    name: "jwt-validation",
    config: merge({ issuer: idp.issuer, audience: "agent" }, config),
  };
  const file = merge(
    settings({ listener: { reverse_proxy_backend: "http://127.0.0.1:1", roles: ["reverse"] } }),
    inbound(jwtValidation),
  );
  await writeFile(`${at}.yaml`, toYaml(file));
  await writeFile(`${at}.jwt`, text);
  const { code, stdout, stderr } = await runProgram([
    "doctor",
    "--config",
    `${at}.yaml`,
    "--token",
    `${at}.jwt`,
  ]);
  for (const part of token.split(".").filter((one) => one.length > 8)) {
    expect(stdout + stderr).not.toContain(part);
  }
  const lines = stdout.split("\n").filter((line) => / {2}token /.test(line));
  return { code, lines };
}

const shaped = (shape: TokenShape = {}): Promise<string> => idp.token(shape);

describe("one token", () => {
  test("that holds passes, also as it is copied out of a header", async () => {
    const token = await shaped();
    const good = await explain(token, {}, `Authorization: Bearer ${token}`);
    expect(good).toMatchObject({
      code: 0,
      lines: [expect.stringMatching(/^pass .*every check passes$/)],
    });
  });

  test("is told everything that is wrong with it at once, with what to do", async () => {
    const token = await shaped({
      claims: { iss: `${idp.issuer}/`, aud: "other", exp: 1_700_000_000, tenant: "secret-tenant" },
    });
    const config = { required_claims: { tenant: "a" }, required_scopes: ["admin"] };
    const { code, lines } = await explain(token, config);
    expect(code).toBe(1);
    expect(lines).toEqual([
      expect.stringContaining(
        `issuer_mismatch (iss): expected ${idp.issuer}, found ${idp.issuer}/ — set issuer`,
      ),
      expect.stringMatching(
        /expired \(exp\): expected later than 20\d\d-.*, found 2023-11-14T22:13:20Z — get a fresh/,
      ),
      expect.stringContaining("claim_mismatch (tenant): expected a, found another value"),
      expect.stringContaining("audience_mismatch (aud): expected agent, found other"),
      expect.stringContaining("insufficient_scope (scope): expected admin, found openid profile"),
    ]);
    for (const line of lines) expect(line).toMatch(/^FAIL {2}token .* — /);
  });

  test("by a key that the issuer does not have, and of another issuer", async () => {
    const other = await own(StubIdp.start());
    await other.rotate();
    const { lines } = await explain(await other.token({}));
    expect(lines[0]).toMatch(/(?:unknown_key|bad_signature) \(kid\): .* set jwks_url/);
    expect(lines[1]).toContain(
      `issuer_mismatch (iss): expected ${idp.issuer}, found ${other.issuer}`,
    );
  });

  test("is judged as far as it can be where the keys cannot be had", async () => {
    const config = { jwks_url: "http://127.0.0.1:1/jwks" };
    const { code, lines } = await explain(await shaped({ without: ["exp"] }), config);
    expect(code).toBe(1);
    expect(lines[0]).toContain(
      "the signature was not checked: the issuer's keys are not available",
    );
    expect(lines[1]).toContain("no_expiry (exp)");
  });

  test("per host says that the audience is not compared", async () => {
    const config = { audience_mode: "per-host", audience: undefined, allowed_hosts: ["a.test"] };
    const { code, lines } = await explain(await shaped({ claims: { aud: "x" } }), config);
    expect(code).toBe(0);
    expect(lines.map((line) => line.slice(0, 4))).toEqual(["pass", "skip"]);
  });

  test("that is none, or cannot be read, is said in words", async () => {
    const { lines } = await explain("not a token");
    expect(lines).toEqual([expect.stringMatching(/^FAIL .*malformed: expected a compact JWS/)]);
    const file = `${folder}/plain.yaml`;
    await writeFile(file, toYaml(settings()));
    const missing = await runProgram(["doctor", "--config", file, "--token", `${folder}/none`]);
    expect(missing).toMatchObject({
      code: 1,
      stdout: expect.stringContaining("there is no such file") as string,
    });
    const nobody = await runProgram(["doctor", "--config", file, "--token", file]);
    expect(nobody).toMatchObject({
      code: 1,
      stdout: expect.stringContaining("no plugin judges tokens") as string,
    });
  });
});
