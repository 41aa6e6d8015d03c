/** Temporary keys: one call for all, renewed ahead of their end, held back after failures. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { OperatorRequest, OperatorResponse } from "../../../../src/pipeline/plugin.ts";
import {
  awsSigv4Config,
  type CredentialsConfig,
} from "../../../../src/plugins/aws-sigv4/config.ts";
import { awsSigv4 } from "../../../../src/plugins/aws-sigv4/plugin.ts";
import { keySourceOf } from "../../../../src/plugins/aws-sigv4/real-keys.ts";
import { PluginBench } from "../../../support/plugin-bench.ts";
import { verified } from "../../../support/aws-verifier.ts";

let folder: string;
let bench: PluginBench;
let calls: { readonly url: string; readonly request: OperatorRequest }[];
let isDown: boolean;
let release: Promise<void>;
let count: number;

const role = "arn:aws:iam::123456789012:role/agent";

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "aws-keys-"));
  writeFileSync(join(folder, "token"), "oidc-token\n");
  calls = [];
  isDown = false;
  count = 0;
  release = Promise.resolve();
  bench = new PluginBench(async (url, request = {}) => {
    calls.push({ url, request });
    await release;
    count += 1;
    if (isDown) return said(403, "<E><Code>AccessDenied</Code><Message>oidc-token</Message></E>");
    const end = new Date(bench.clock.now() + 3_600_000).toISOString();
    return url.includes("169.254")
      ? said(
          200,
          JSON.stringify({
            AccessKeyId: `ASIA${count}`,
            SecretAccessKey: "s",
            Token: "t",
            Expiration: end,
          }),
        )
      : said(
          200,
          `<R><Credentials><AccessKeyId>ASIA${count}</AccessKeyId><SecretAccessKey>s&amp;s</SecretAccessKey><SessionToken>t==</SessionToken><Expiration>${end}</Expiration></Credentials></R>`,
        );
  });
});
afterEach(() => rmSync(folder, { recursive: true }));

const said = (status: number, text: string): OperatorResponse => ({
  status,
  headers: {},
  body: Buffer.from(text),
});

function source(config: CredentialsConfig) {
  return keySourceOf(config, bench.deps, 1_000);
}

const web = () =>
  source({
    source: "web_identity",
    role_arn: role,
    region: "eu-central-1",
    web_identity_token_file: join(folder, "token"),
  });

describe("a web identity", () => {
  test("a hundred at once make one call", async () => {
    const keys = web();
    const all = await Promise.all(Array.from({ length: 100 }, async () => keys.current()));
    expect(new Set(all.map((one) => one.keys.accessKeyId))).toEqual(new Set(["ASIA1"]));
    expect(calls).toHaveLength(1);
    expect(calls[0]?.url).toBe("https://sts.eu-central-1.amazonaws.com/");
    const form = new URLSearchParams(String(calls[0]?.request.body));
    expect(Object.fromEntries(form)).toMatchObject({
      Action: "AssumeRoleWithWebIdentity",
      RoleArn: role,
      RoleSessionName: "authbridge",
      DurationSeconds: "3600",
      WebIdentityToken: "oidc-token",
    });
  });

  test("is renewed ahead of its end while the present keys serve", async () => {
    const keys = web();
    await keys.current();
    bench.clock.advance(3_600_000 - 200_000);
    const held = Promise.withResolvers<void>();
    release = held.promise;
    const during = Array.from({ length: 100 }, () => keys.current());
    expect(during.every((one) => !(one instanceof Promise))).toBe(true);
    expect(calls).toHaveLength(2);
    held.resolve();
    await expect.poll(async () => (await keys.current()).keys.accessKeyId).toBe("ASIA2");
    expect(calls).toHaveLength(2);
  });

  test("is not asked again at once after a failure, and says why without the token", async () => {
    const keys = web();
    isDown = true;
    await expect(async () => keys.current()).rejects.toThrow("403 AccessDenied");
    await expect(async () => keys.current()).rejects.toThrow("403 AccessDenied");
    expect(calls).toHaveLength(1);
    expect(keys.problem()).toContain("AccessDenied");
    expect(bench.logged.join("")).not.toContain("oidc-token");
    isDown = false;
    // A clock that is set back makes the wait no longer.
    bench.clock.advance(-3_600_000);
    await expect(async () => keys.current()).rejects.toThrow("403 AccessDenied");
    bench.clock.advance(1_001);
    expect((await keys.current()).keys.accessKeyId).toBe("ASIA2");
    expect(keys.problem()).toBeUndefined();
  });

  test("keys outlive a reload", async () => {
    await web().current();
    await web().current();
    expect(calls).toHaveLength(1);
  });
});

test("a container's endpoint gets the token of its file", async () => {
  const keys = source({
    source: "container",
    url: "http://169.254.170.23/v1/credentials",
    authorization_token_file: join(folder, "token"),
  });
  expect((await keys.current()).sessionToken?.reveal()).toBe("t");
  expect(calls[0]?.request.headers).toMatchObject({ Authorization: "oidc-token" });
});

test("a role is assumed with a signature of the keys below it", async () => {
  const keys = source({
    source: "static",
    access_key_id: "AKIABELOW",
    secret_access_key: "below",
    assume_role: {
      role_arn: role,
      role_session_name: "n",
      region: "eu-central-1",
      duration_seconds: 900,
      external_id: "x y",
    },
  });
  bench.clock.advance(Date.now() - bench.clock.now());
  expect((await keys.current()).keys.accessKeyId).toBe("ASIA1");
  const { request, url } = calls[0] ?? { request: {}, url: "http://none" };
  const verdict = verified(
    {
      method: "POST",
      target: "/",
      fields: [["Host", new URL(url).host], ...Object.entries(request.headers ?? {})],
      body: Buffer.from(String(request.body)),
    },
    { accessKeyId: "AKIABELOW", secret: "below" },
  );
  expect(verdict).toMatchObject({ kind: "right", service: "sts", region: "eu-central-1" });
  expect(Object.fromEntries(new URLSearchParams(String(request.body)))).toMatchObject({
    Action: "AssumeRole",
    RoleSessionName: "n",
    DurationSeconds: "900",
    ExternalId: "x y",
  });
});

test("what belongs to another source is refused, with its key", () => {
  const own = { source: "static", access_key_id: "A", secret_access_key: "b" };
  const others = {
    profile: "prod",
    role_session_name: "ci",
    duration_seconds: 900,
    url: "http://a",
  };
  const { error } = awsSigv4Config.safeParse({
    keys: [{ access_key_id: "AKIASTANDIN0EXAMPLE1", credentials: { ...own, ...others } }],
    routes: { rules: [{ host: "**" }] },
  });
  const told = Object.fromEntries(
    (error?.issues ?? []).map(({ path, message }) => [path.at(-1), message]),
  );
  expect(told).toEqual(
    Object.fromEntries(
      Object.keys(others).map((key) => [key, "has no effect with source: static"]),
    ),
  );
});

test("is not ready without the secret of a stand-in, which every request needs", () => {
  const id = "STANDINSTANDIN01";
  const path = join(folder, "stand-in");
  const credentials = { source: "static", access_key_id: "AKIA", secret_access_key: "real" };
  const plugin = bench.create(awsSigv4, {
    keys: [{ access_key_id: id, secret_access_key_file: path, credentials }],
    routes: { rules: [{ host: "**.amazonaws.com" }] },
  });
  expect(plugin.ready?.()).toBe(
    `no secret of the stand-in ${id}: ${path}: the file does not exist`,
  );
  writeFileSync(path, "secret\n");
  bench.clock.advance(2_000);
  expect(plugin.ready?.()).toBe(true);
});
