/** Checkpoints and proofs over the decision log, as an auditor meets them. */
import { execFileSync, spawnSync } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { get, request } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { runProgram, type Settings } from "../support/program.ts";
import { merge, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const verifier = fileURLToPath(new URL("../../examples/receipts/verify.go", import.meta.url));
const go = "go";
const hasGo = spawnSync(go, ["version"]).status === 0;

let scratch: string;
let origin: HttpOrigin;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "authbridge-receipts-"));
  origin = await own(HttpOrigin.launch());
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

interface Proof {
  readonly sequence: number;
  readonly leaf: string;
  readonly index: number;
  readonly treeSize: number;
  readonly auditPath: readonly string[];
  readonly checkpoint: string;
}

let logs = 0;
const newLog = (): string => join(scratch, `audit-${(logs += 1)}.jsonl`);

function newKey(): { readonly pem: string; readonly publicPem: string } {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  return {
    pem: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
    publicPem: publicKey.export({ type: "spki", format: "pem" }).toString(),
  };
}

function withLog(path: string, over: Settings = {}): Settings {
  return settings({ audit: merge({ path, checkpoint_every: 4 }, over) });
}

async function visit(proxy: ProxyProcess, count: number): Promise<void> {
  for (let at = 0; at < count; at += 1) {
    expect((await get(proxy.forward, `${origin.url}/${at}`)).status).toBe(200);
  }
}

async function ask(proxy: ProxyProcess, target: string): Promise<Record<string, unknown>> {
  const response = await request(proxy.address("sessions"), {
    target,
    headers: { Host: "localhost" },
  });
  expect(response.status, response.text).toBe(200);
  return JSON.parse(response.text) as Record<string, unknown>;
}

function file(name: string, text: string): string {
  const path = join(scratch, name);
  writeFileSync(path, text);
  return path;
}

const verify = (...args: string[]) => runProgram(["verify-audit", ...args]);

function buildVerifier(): string {
  const program = join(scratch, "verify");
  execFileSync(go, ["build", "-o", program, verifier], {
    env: { ...process.env, GOFLAGS: "-mod=mod", GO111MODULE: "off" },
  });
  return program;
}

describe.each([1, 2])("with workers: %i", (workers) => {
  test(
    "a log over several files and starts is whole, signed, and every decision can be proved",
    { timeout: 60_000 },
    async () => {
      const path = newLog();
      const key = newKey();
      const keyFile = file(`key-${workers}.pem`, key.pem);
      const publicFile = file(`key-${workers}.pub`, key.publicPem);
      const config = { ...withLog(path, { signing_key_file: keyFile, max_file: 65_536 }), workers };
      const first = await own(ProxyProcess.start(config));
      await visit(first, 9);
      expect((await first.stop()).code).toBe(0);
      const second = await own(ProxyProcess.start(config));
      await visit(second, 9);
      await eventually(() => readFileSync(path, "utf8").trimEnd().split("\n").length === 18);
      const keys = await ask(second, "/v1/keys");
      expect(keys).toMatchObject({ keys: [{ kty: "OKP", crv: "Ed25519", alg: "EdDSA" }] });
      expect(JSON.parse((await second.stats("/v1/keys")).text)).toEqual(keys);
      const jwks = file(`jwks-${workers}.json`, JSON.stringify(keys));
      const proofs: Proof[] = [];
      for (const line of readFileSync(path, "utf8").trimEnd().split("\n")) {
        const { request: id } = JSON.parse(line) as { request: string };
        const proof = (await ask(second, `/v1/decisions/${id}/proof`)) as unknown as Proof;
        expect(proof.leaf).toBe(line);
        proofs.push(proof);
      }
      const [one, last] = [proofs[0]?.treeSize, proofs.at(-1)?.treeSize];
      const grown = await ask(second, `/v1/checkpoint/consistency?from=${one}&to=${last}`);
      expect(grown["path"]).not.toHaveLength(0);
      await second.stop();
      for (const with_ of [publicFile, jwks]) {
        const whole = await verify("--key", with_, path);
        expect(whole.stdout).toContain("the chain is whole");
        expect(whole).toMatchObject({ code: 0 });
      }
      const other = file(`other-${workers}.pub`, newKey().publicPem);
      expect(await verify("--key", other, path)).toMatchObject({ code: 1 });
      const offline = await runProgram(["audit", "proof", "3", path]);
      expect(JSON.parse(offline.stdout)).toEqual(proofs[2]);
      const between = await runProgram([
        "audit",
        "consistency",
        path,
        "--from",
        `${one}`,
        "--to",
        `${last}`,
      ]);
      expect(JSON.parse(between.stdout)).toEqual(grown);
      const exported = await runProgram(["audit", "export", path, "--format", "ocsf"]);
      const events = exported.stdout.trimEnd().split("\n");
      expect(events).toHaveLength(18);
      expect(JSON.parse(events[2] ?? "")).toMatchObject({
        class_uid: 4002,
        metadata: { sequence: 3 },
      });
      if (!hasGo) {
        console.warn("SKIPPED: no go, so the proofs are checked by nobody else");
        return;
      }
      const program = buildVerifier();
      for (const proof of proofs) {
        const good = file("proof.json", JSON.stringify(proof));
        const checked = spawnSync(program, [jwks, good], { encoding: "utf8" });
        expect(checked.status, checked.stderr).toBe(0);
        const leaf = proof.leaf.replace('"decision":"allow"', '"decision":"deny"');
        const bad = file("proof.json", JSON.stringify({ ...proof, leaf }));
        expect(spawnSync(program, [jwks, bad]).status).toBe(1);
      }
    },
  );
});

test.each([1, 2])(
  "with workers: %i, no decision waits longer than checkpoint_interval",
  async (workers) => {
    const path = newLog();
    const over = { checkpoint_every: 1_000, checkpoint_interval: "100ms" };
    const proxy = await own(ProxyProcess.start({ ...withLog(path, over), workers }));
    for (const count of [1, 2]) {
      await visit(proxy, 1);
      await eventually(() => {
        const lines = readFileSync(`${path}.checkpoints`, "utf8").trimEnd().split("\n");
        expect(lines).toHaveLength(count);
      });
    }
  },
);

test("an auditor reads the program that checks a proof at a glance", () => {
  const lines = readFileSync(verifier, "utf8").split("\n");
  expect(lines.filter((line) => !/^\s*(?:\/\/.*)?$/.test(line)).length).toBeLessThanOrEqual(40);
});

test.skipIf(!hasGo)("a proof of anything but the decision is no proof", async () => {
  const program = buildVerifier();
  const [key, other] = [newKey(), newKey()];
  const launch = (pem: string): Promise<ProxyProcess> => {
    const signing = { signing_key_file: file("proved.pem", pem), checkpoint_every: 1_000 };
    return own(ProxyProcess.start(withLog(newLog(), signing)));
  };
  const proxy = await launch(key.pem);
  const keys = await ask(proxy, "/v1/keys");
  const jwks = file("proved.json", JSON.stringify(keys));
  const isProof = (proof: object): boolean =>
    spawnSync(program, [jwks, file("claimed.json", JSON.stringify(proof))]).status === 0;
  const proofOf = (from: ProxyProcess, id: number): Promise<Record<string, unknown>> =>
    ask(from, `/v1/decisions/${id}/proof`);
  await visit(proxy, 1);
  const only = await proofOf(proxy, 1);
  expect([only["treeSize"], only["auditPath"], isProof(only)]).toEqual([1, [], true]);
  await visit(proxy, 10);
  await proofOf(proxy, 11);
  const stranger = await launch(other.pem);
  await visit(stranger, 11);
  await proofOf(stranger, 11);
  const strangersKeys = await ask(stranger, "/v1/keys");
  for (const id of [1, 3, 8, 9, 11]) {
    const proof = await ask(proxy, `/v1/decisions/${id}/proof?size=11`);
    const path = proof["auditPath"] as string[];
    expect(isProof(proof), `record ${id}`).toBe(true);
    const foreign = await ask(stranger, `/v1/decisions/${id}/proof?size=11`);
    const { checkpoint, leaf } = foreign;
    const claims = [
      ...Array.from({ length: 24 }, (_, index) => ({ index })).filter(
        ({ index }) => index !== proof["index"],
      ),
      ...[-1, 0.5, 1e30, 2 ** 53, "1"].map((index) => ({ index })),
      ...[0, 1, 8, 10, 12, 16, 2 ** 53, -11].map((treeSize) => ({ treeSize })),
      ...path.map((_, at) => ({ auditPath: path.with(at, path[at - 1] ?? path[at + 1] ?? "") })),
      { auditPath: path.slice(1) },
      { auditPath: [...path, path[0]] },
      { auditPath: path.toReversed() },
      { auditPath: [] },
      { leaf },
      { checkpoint },
      { checkpoint, leaf },
      { checkpoint: only["checkpoint"] },
      { checkpoint: String(proof["checkpoint"]).replace("record 11", "record 12") },
      { ...foreign, ...strangersKeys },
    ];
    const taken = claims.filter((claim) => isProof({ ...proof, ...claim }));
    expect(taken, `record ${id}`).toEqual([]);
  }
  for (const size of ["0", "-1", "1e9", "12", "999999999999999", "9999999999999999999"]) {
    const { status } = await request(proxy.address("sessions"), {
      target: `/v1/decisions/3/proof?size=${size}`,
      headers: { Host: "localhost" },
    });
    expect([size, status === 400 || status === 404]).toEqual([size, true]);
  }
});

test("a key that changes names the one after it, and the file need not be read anew", async () => {
  const path = newLog();
  const [before, after] = [newKey(), newKey()];
  const keyFile = file("turning.pem", before.pem);
  const proxy = await own(ProxyProcess.start(withLog(path, { signing_key_file: keyFile })));
  await visit(proxy, 2);
  await ask(proxy, "/v1/decisions/2/proof");
  writeFileSync(keyFile, after.pem);
  await eventually(async () => ((await ask(proxy, "/v1/keys"))["keys"] as object[]).length === 2);
  await visit(proxy, 2);
  await proxy.stop();
  // The older key is enough: it says who comes next.
  const old = await verify("--key", file("before.pub", before.publicPem), path);
  expect(old).toMatchObject({ code: 0, stdout: expect.stringContaining("the chain is whole") });
  const onlyNew = await verify("--key", file("after.pub", after.publicPem), path);
  expect(onlyNew).toMatchObject({ code: 1 });
  expect(onlyNew.stdout).toMatch(/checkpoints:1: has no signature by a key that was given/);
});

describe("a log that was tampered with", () => {
  let path: string;
  let publicFile: string;
  let text: string;
  let kept: string;
  beforeAll(async () => {
    path = newLog();
    const key = newKey();
    const keyFile = file("tamper.pem", key.pem);
    publicFile = file("tamper.pub", key.publicPem);
    const config = withLog(path, { signing_key_file: keyFile });
    const proxy = await own(ProxyProcess.start(config));
    await visit(proxy, 4);
    // What is proved has a checkpoint.
    await ask(proxy, "/v1/decisions/4/proof");
    await visit(proxy, 6);
    await proxy.stop();
    text = readFileSync(path, "utf8");
    kept = readFileSync(`${path}.checkpoints`, "utf8");
  });

  async function verdict(log: string, checkpoints = kept): Promise<string> {
    writeFileSync(path, log);
    writeFileSync(`${path}.checkpoints`, checkpoints);
    const { code, stdout } = await verify("--key", publicFile, path);
    expect(stdout).toContain(code === 0 ? "the chain is whole" : "BROKEN");
    return stdout;
  }

  test("a cut end shows by a checkpoint, in the file or given by hand", async () => {
    const lines = text.trimEnd().split("\n");
    const shorter = `${lines.slice(0, 7).join("\n")}\n`;
    expect(await verdict(shorter)).toMatch(
      /jsonl:7: the log ends with record 7, but the checkpoint of .* tells of record \d+: the end was cut off/,
    );
    const first = `${kept.split("\n")[0] ?? ""}\n`;
    expect(await verdict(shorter, first)).toContain("the chain is whole");
    const last = JSON.parse(kept.trimEnd().split("\n").at(-1) ?? "") as { note: string };
    const note = file("kept.txt", last.note);
    const told = await verify("--key", publicFile, path, "--checkpoint", note);
    expect(told.stdout).toContain("the end was cut off");
  });

  test("a log whose chain was made anew is not what was signed", async () => {
    const { chained, firstLink } = await import("../../src/session/audit-record.ts");
    let link = { sequence: 0, hash: firstLink };
    const forged = text
      .trimEnd()
      .split("\n")
      .map((line, at) => {
        const { sequence: _, previous: __, hash: ___, ...facts } = JSON.parse(line) as Settings;
        const next = chained(link, at === 2 ? { ...facts, decision: "deny" } : facts);
        link = next.link;
        return next.line;
      });
    expect(await verdict(`${forged.join("\n")}\n`)).toMatch(
      /jsonl:\d+: record \d+ is not what the checkpoint of .* signed: a line after record 0 was changed/,
    );
  });

  test("a checkpoint is not what it was", async () => {
    const changed = kept.replace(/record \d+/, "record 9");
    expect(await verdict(text, changed)).toContain("has no signature by a key");
    expect(await verdict(text, kept.replace('"note"', '"nothing"'))).toContain(
      "checkpoints:1: is no whole checkpoint: it has no note",
    );
    expect(await verdict(text, "")).toContain("vouches for nothing here");
  });
});

test("a key that cannot sign is refused at the start, with its place", async () => {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const wrong = file("ec.pem", privateKey.export({ type: "pkcs8", format: "pem" }).toString());
  const config = file(
    "wrong.yaml",
    `audit:\n  path: ${newLog()}\n  signing_key_file: ${wrong}\nlistener: { roles: [forward] }\n`,
  );
  const { code, stderr } = await runProgram(["check", "--config", config]);
  expect(code).not.toBe(0);
  expect(stderr).toContain("it is no Ed25519 key");
  expect(stderr).toContain("wrong.yaml:3:");
});
