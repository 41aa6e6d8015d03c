/** A log with checkpoints, whatever happens to its files. */
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type AuditVerdict, checkAuditLog } from "../../../src/receipts/audit-check.ts";
import { Checkpoints } from "../../../src/receipts/checkpoints.ts";
import { checkpointFilesOf, filesOf } from "../../../src/receipts/log-files.ts";
import { proveConsistency, proveInclusion } from "../../../src/receipts/proofs.ts";
import { checkpointsPath, resume } from "../../../src/receipts/resume.ts";
import { SigningKey } from "../../../src/receipts/signing-key.ts";
import { AuditLog } from "../../../src/session/audit-log.ts";
import { LineFile } from "../../../src/session/line-file.ts";

const key = SigningKey.make();
let directory: string;
let path: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "authbridge-checkpoints-"));
  path = join(directory, "audit.jsonl");
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

interface Bounds {
  readonly maxBytes?: number;
  readonly maxFiles?: number;
  readonly every?: number;
}

/** Writes decisions, each in a write of its own, as a process would from its start to its end. */
async function run(facts: readonly object[], bounds: Bounds = {}): Promise<void> {
  const { maxBytes = 1_000_000, maxFiles = 5, every = 3 } = bounds;
  const { last, tree } = await resume(path);
  let told: (() => void) | undefined;
  const file = new LineFile({
    path,
    maxBytes,
    maxFiles,
    syncs: true,
    onFull: () => checkpoints.seal(),
    onLines: (_, count) => {
      checkpoints.written(count);
      told?.();
    },
  });
  const checkpoints: Checkpoints = new Checkpoints({
    tree,
    last,
    origin: "here",
    every,
    intervalMs: 60_000,
    file: new LineFile({ path: checkpointsPath(path), maxBytes: 1_000_000, maxFiles: 5 }),
    key: () => key,
    sync: () => file.sync(),
    onProblem: (error) => {
      throw error;
    },
  });
  const log = new AuditLog(file, last, checkpoints);
  for (const one of facts) {
    const written = new Promise<void>((resolve) => {
      told = resolve;
    });
    log.append(one);
    await written;
  }
  await log.close();
}

const decisions = (count: number): object[] =>
  Array.from({ length: count }, (_, at) => ({ at, request: `r${at}`, decision: "deny" }));

async function checked(): Promise<AuditVerdict> {
  const files = await filesOf(path);
  return checkAuditLog(files, { checkpoints: await checkpointFilesOf(files), keys: [key] });
}

test("every changed byte of the log and of its signed checkpoints is found", async () => {
  await run(decisions(4));
  expect((await checked()).problems).toEqual([]);
  for (const file of [path, checkpointsPath(path)]) {
    const whole = readFileSync(file);
    for (let at = 0; at < whole.length; at += 1) {
      const changed = Buffer.from(whole);
      changed[at] = (changed[at] ?? 0) ^ 1;
      writeFileSync(file, changed);
      const { problems } = await checked();
      expect(problems.length, `${file} at ${at}: ${String(changed)}`).toBeGreaterThan(0);
    }
    writeFileSync(file, whole);
  }
});

test("a log that was cut anywhere by a crash goes on, and no signature becomes untrue", async () => {
  await run(decisions(7));
  const log = readFileSync(path);
  const kept = readFileSync(checkpointsPath(path));
  // A checkpoint is written when its lines are on the disk: only what came after the last whole one can be lost.
  const sealed = kept.subarray(0, kept.indexOf("\n") + 1);
  const last = log.indexOf('{"sequence":7');
  for (let length = last; length <= log.length; length += 1) {
    writeFileSync(path, log.subarray(0, length));
    writeFileSync(checkpointsPath(path), sealed);
    await run(decisions(4));
    const { problems, checkpoints, last: end } = await checked();
    expect(problems.filter(({ message }) => !message.includes("not a whole record"))).toEqual([]);
    expect(problems.length).toBeLessThanOrEqual(1);
    expect(checkpoints.fit).toBe(checkpoints.read);
    expect(end?.sequence).toBeGreaterThanOrEqual(10);
  }
});

test("a checkpoint that was cut anywhere by a crash is stepped over", async () => {
  await run(decisions(5));
  const kept = readFileSync(checkpointsPath(path));
  const log = readFileSync(path);
  for (let length = 0; length <= kept.length; length += 7) {
    writeFileSync(path, log);
    writeFileSync(checkpointsPath(path), kept);
    truncateSync(checkpointsPath(path), length);
    await run(decisions(2));
    const { problems, checkpoints } = await checked();
    expect(problems.filter(({ message }) => !message.includes("no whole checkpoint"))).toEqual([]);
    expect(checkpoints.fit).toBe(checkpoints.read);
  }
});

test("files that are gone do not take the tree with them: proofs go on from what checkpoints know", async () => {
  for (let turn = 0; turn < 6; turn += 1) {
    await run(decisions(20), { maxBytes: 2_000, maxFiles: 3 });
  }
  const files = await filesOf(path);
  expect(files).toHaveLength(3);
  const { problems, records, first, checkpoints } = await checked();
  expect(problems).toEqual([]);
  expect(first?.sequence).toBeGreaterThan(60);
  expect(checkpoints.fit).toBeGreaterThan(records / 4);
  const sources = { files, checkpointFiles: await checkpointFilesOf(files) };
  const from = first?.sequence ?? 0;
  for (let sequence = from; sequence <= 120; sequence += 1) {
    const proof = await proveInclusion(sources, String(sequence));
    expect(proof).toMatchObject({ sequence, index: sequence - 1 });
    expect(await proveInclusion(sources, String(sequence), 120)).toMatchObject({ treeSize: 120 });
  }
  expect(await proveConsistency(sources, 120, 120)).toMatchObject({ path: [] });
  expect(await proveInclusion(sources, "1")).toMatchObject({ missing: "decision" });
  expect(await proveConsistency(sources, 1, 121)).toMatchObject({ missing: "checkpoint" });
});

test("a log without checkpoints that goes on elsewhere begins a tree of its own", async () => {
  await run(decisions(5));
  rmSync(checkpointsPath(path));
  const lines = readFileSync(path, "utf8").split("\n");
  writeFileSync(path, lines.slice(2).join("\n"));
  await run(decisions(4));
  const { problems, checkpoints } = await checked();
  expect(problems).toEqual([]);
  expect(checkpoints).toEqual({ read: 2, fit: 2, signed: 2 });
});

test("what other readers take for the end of a line is in the middle of one", async () => {
  const request = "a\u2028b\u2029c";
  await run([{ request }, { request: "other" }]);
  expect(await checked()).toMatchObject({ records: 2, problems: [] });
  const sources = { files: [path], checkpointFiles: [checkpointsPath(path)] };
  expect(await proveInclusion(sources, request)).toMatchObject({ sequence: 1 });
});

test("no proof is made from lines that are not those of the checkpoint", async () => {
  await run(decisions(5));
  const sources = { files: [path], checkpointFiles: [checkpointsPath(path)] };
  expect(await proveInclusion(sources, "2")).toMatchObject({ index: 1 });
  const kept = readFileSync(checkpointsPath(path));
  rmSync(path);
  rmSync(checkpointsPath(path));
  await run(decisions(5).with(2, { request: "r2", decision: "allow" }));
  writeFileSync(checkpointsPath(path), kept);
  for (const id of ["1", "2", "3", "4", "5"]) {
    const proof = await proveInclusion(sources, id, 5);
    expect(proof).toMatchObject({
      missing: "lines",
      message: expect.stringContaining("not those of the checkpoint"),
    });
  }
});

test("a cut end is told at the next start", async () => {
  await run(decisions(6));
  const lines = readFileSync(path, "utf8").split("\n");
  writeFileSync(path, `${lines.slice(0, 4).join("\n")}\n`);
  expect(await resume(path)).toMatchObject({ last: { sequence: 4 }, missing: { sequence: 6 } });
});
