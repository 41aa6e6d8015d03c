/** What somebody with the disk can do to a signed decision log, and what an auditor is told of it. */
import { generateKeyPairSync, hash } from "node:crypto";
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { get, request } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { type Ended, runProgram, type Settings } from "../support/program.ts";
import { merge, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();

let scratch: string;
let origin: HttpOrigin;
let publicFile: string;
let path: string;
/** The log, the checkpoints beside it, and those of another log under the same key. */
let lines: readonly string[];
let notes: readonly string[];
let foreign: { readonly lines: readonly string[]; readonly notes: readonly string[] };

const linesIn = (file: string): string[] => readFileSync(file, "utf8").trimEnd().split("\n");
const textOf = (all: readonly string[]): string => all.map((line) => `${line}\n`).join("");
const recordIn = (note: string): number => Number(/record (\d+)/.exec(note)?.[1]);

function newKey(name: string): { readonly keyFile: string; readonly publicFile: string } {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const files = {
    keyFile: join(scratch, `${name}.pem`),
    publicFile: join(scratch, `${name}.pub`),
  };
  writeFileSync(files.keyFile, privateKey.export({ type: "pkcs8", format: "pem" }));
  writeFileSync(files.publicFile, publicKey.export({ type: "spki", format: "pem" }));
  return files;
}

async function proved(proxy: ProxyProcess, id: number): Promise<void> {
  const target = `/v1/decisions/${id}/proof`;
  const { status } = await request(proxy.address("sessions"), {
    target,
    headers: { Host: "localhost" },
  });
  expect(status).toBe(200);
}

async function record(log: string, count: number, over: Settings): Promise<ProxyProcess> {
  const audit = merge({ path: log, checkpoint_every: 4 }, over);
  const proxy = await own(ProxyProcess.start(settings({ audit })));
  for (let at = 0; at < count; at += 1) {
    expect((await get(proxy.forward, `${origin.url}/${at}`)).status).toBe(200);
    // What is proved has a checkpoint.
    if (at === 3) await proved(proxy, at + 1);
  }
  return proxy;
}

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "authbridge-attacks-"));
  origin = await own(HttpOrigin.launch());
  const key = newKey("key");
  publicFile = key.publicFile;
  path = join(scratch, "audit.jsonl");
  const other = join(scratch, "other.jsonl");
  for (const log of [path, other]) {
    const proxy = await record(log, 10, { signing_key_file: key.keyFile });
    expect((await proxy.stop()).code).toBe(0);
  }
  lines = linesIn(path);
  notes = linesIn(`${path}.checkpoints`);
  foreign = { lines: linesIn(other), notes: linesIn(`${other}.checkpoints`) };
});
afterAll(() => rm(scratch, { recursive: true, force: true }));
beforeEach(() => {
  for (const name of [path, `${path}.1`, `${path}.checkpoints`]) rmSync(name, { force: true });
});

const verify = (...args: string[]): Promise<Ended> =>
  runProgram(["verify-audit", "--key", publicFile, ...args]);

async function told(log: string, checkpoints: string, ...more: string[]): Promise<Ended> {
  writeFileSync(path, log);
  writeFileSync(`${path}.checkpoints`, checkpoints);
  return verify(path, ...more);
}

/** A chain of somebody who has no key. */
function chainOf(facts: readonly string[], sequence = 0, previous = "0".repeat(64)): string[] {
  let [number, before] = [sequence, previous];
  return facts.map((line) => {
    const { sequence: _, previous: __, hash: ___, ...rest } = JSON.parse(line) as Settings;
    number += 1;
    const text = JSON.stringify({ sequence: number, previous: before, ...rest }).slice(0, -1);
    before = hash("sha256", text);
    return `${text},"hash":"${before}"}`;
  });
}

test("the log as it was written is whole, and how far it is signed is said", async () => {
  const { code, stdout } = await told(textOf(lines), textOf(notes));
  expect([code, stdout]).toEqual([0, expect.stringContaining("the chain is whole")]);
  expect(stdout).toMatch(/signed up to record 10\n/);
});

test("a checkpoint that was kept and holds nothing is no evidence", async () => {
  const kept = `${path}.kept`;
  writeFileSync(kept, "\n");
  onTestFinished(() => rmSync(kept));
  const { code, stdout } = await told(textOf(lines), textOf(notes), "--checkpoint", kept);
  expect([code, stdout]).toEqual([1, expect.stringContaining("kept:1: holds no checkpoint")]);
});

type Attack = () => readonly [log: string, checkpoints: string];
const attacks: Readonly<Record<string, readonly [Attack, RegExp]>> = {
  "a forged line": [
    () => [textOf(lines.with(2, '{"sequence":3,"decision":"deny"}')), textOf(notes)],
    /audit\.jsonl:3: is not a whole record/,
  ],
  "a changed line": [
    () => [
      textOf(lines.with(4, (lines[4] ?? "").replace('"decision":"allow"', '"decision":"deny"'))),
      textOf(notes),
    ],
    /audit\.jsonl:5: is not a whole record/,
  ],
  "a changed line with its own digest made anew": [
    () => [
      textOf(lines.with(4, chainOf([lines[4] ?? ""], 4, "a".repeat(64))[0] ?? "")),
      textOf(notes),
    ],
    /audit\.jsonl:5: record 5 does not follow record 4/,
  ],
  "two lines in the other order": [
    () => [textOf(lines.with(5, lines[6] ?? "").with(6, lines[5] ?? "")), textOf(notes)],
    /audit\.jsonl:6: record 7 does not follow record 5/,
  ],
  "a line twice": [
    () => [textOf(lines.toSpliced(3, 0, lines[3] ?? "")), textOf(notes)],
    /audit\.jsonl:5: record 4 does not follow record 4/,
  ],
  "a line dropped in the middle": [
    () => [textOf(lines.toSpliced(4, 1)), textOf(notes)],
    /audit\.jsonl:5: record 6 does not follow record 4/,
  ],
  "a dropped end": [
    () => [textOf(lines.slice(0, 9)), textOf(notes)],
    /audit\.jsonl:9: the log ends with record 9, .* tells of record 10: the end was cut off/,
  ],
  "a log that was emptied": [() => ["", textOf(notes)], /the log has no record/],
  "a log that was emptied, without its checkpoints": [() => ["", ""], /vouches for nothing here/],
  "a chain made anew": [
    () => {
      const changed = (lines[1] ?? "").replace('"decision":"allow"', '"decision":"deny"');
      return [textOf(chainOf(lines.with(1, changed))), textOf(notes)];
    },
    /audit\.jsonl:\d+: record \d+ is not what the checkpoint of .* signed/,
  ],
  "a chain made anew behind all that was signed": [
    () => [textOf(chainOf(lines, 1_000, "b".repeat(64))), textOf(notes)],
    /vouches for nothing here/,
  ],
  "a first record that follows something": [
    () => [textOf(chainOf(lines, 0, "c".repeat(64))), ""],
    /audit\.jsonl:1: record 1 follows cc+: no log begins like this/,
  ],
  "another log under the same key": [
    () => [textOf(foreign.lines), textOf(notes)],
    /record \d+ is not what the checkpoint of .* signed/,
  ],
  "a checkpoint of another log under the same key": [
    () => [textOf(lines), textOf([...notes.slice(0, -1), foreign.notes.at(-1) ?? ""])],
    /record 10 is not what the checkpoint of .* \(.*checkpoints:\d+\) signed/,
  ],
  "checkpoints of two logs": [
    () => [textOf(lines), textOf([...notes, foreign.notes.at(-1) ?? ""])],
    /checkpoints:\d+: tells of another record 10 than the checkpoint of .*: there were two logs/,
  ],
  "a checkpoint that was made by hand": [
    () => [
      textOf(lines),
      textOf(notes.with(0, (notes[0] ?? "").replace(/record \d+/, "record 3"))),
    ],
    /checkpoints:1: has no signature by a key/,
  ],
  "the signature of another checkpoint": [
    () => {
      const signed = /\\n\\n\u2014.*?\\n"/;
      const [one = "", two = ""] = [notes[0], notes.at(-1)];
      return [
        textOf(lines),
        textOf(notes.with(0, one.replace(signed, signed.exec(two)?.[0] ?? ""))),
      ];
    },
    /checkpoints:1: has no signature by a key/,
  ],
  "the ends of lines as another system has them": [
    () => [textOf(lines).replaceAll("\n", "\r\n"), textOf(notes)],
    /audit\.jsonl:1: is not a whole record: .*: it ends with a carriage return/,
  ],
  "the same in the checkpoints": [
    () => [textOf(lines), textOf(notes).replaceAll("\n", "\r\n")],
    /checkpoints:1: is no whole checkpoint/,
  ],
};

describe("BROKEN, with its place", () => {
  test.each(Object.entries(attacks))("%s", async (_, [attack, expected]) => {
    const { code, stdout } = await told(...attack());
    expect(stdout).toMatch(expected);
    expect([code, stdout]).toEqual([1, expect.stringContaining("the chain is BROKEN")]);
  });

  test("bytes that another reader takes for the same", async () => {
    const text = JSON.stringify({ sequence: 1, previous: "0".repeat(64), path: "/\ufffd" });
    const begun = text.slice(0, -1);
    const line = Buffer.from(`${begun},"hash":"${hash("sha256", begun)}"}\n`);
    const at = line.indexOf("\ufffd");
    const bad = Buffer.concat([line.subarray(0, at), Buffer.from([0xff]), line.subarray(at + 3)]);
    writeFileSync(path, line);
    expect((await runProgram(["verify-audit", path])).code).toBe(0);
    writeFileSync(path, bad);
    const { code, stdout } = await runProgram(["verify-audit", path]);
    expect([code, stdout]).toEqual([1, expect.stringContaining("audit.jsonl:1: is not a whole")]);
  });

  test("a key of somebody else, and files that cannot be read", async () => {
    writeFileSync(path, textOf(lines));
    writeFileSync(`${path}.checkpoints`, textOf(notes));
    const { publicFile: other, keyFile } = newKey("stranger");
    const { code, stdout } = await runProgram(["verify-audit", "--key", other, path]);
    expect([code, stdout]).toEqual([1, expect.stringContaining("checkpoints:1: has no signature")]);
    for (const args of [
      [keyFile, path],
      [`${other}.gone`, path],
      [publicFile, `${path}.gone`],
    ]) {
      const ended = await runProgram(["verify-audit", "--key", ...args]);
      expect([ended.code, ended.stdout]).toEqual([1, ""]);
      expect(ended.stderr).toMatch(/private key|no such file|ENOENT|cannot/);
    }
  });
});

test(
  "a log cut at any length behind its first checkpoints is cut, and a kept checkpoint says so",
  { timeout: 60_000 },
  async () => {
    const { checkAuditLog } = await import("../../src/receipts/audit-check.ts");
    const { readCheckingKeys } = await import("../../src/receipts/signing-key.ts");
    const keys = readCheckingKeys(readFileSync(publicFile, "utf8"));
    const whole = textOf(lines);
    const checkpoints = [`${path}.checkpoints`];
    writeFileSync(`${path}.checkpoints`, textOf(notes));
    for (let length = textOf(lines.slice(0, 8)).length; length < whole.length - 1; length += 1) {
      writeFileSync(path, whole.slice(0, length));
      const { problems } = await checkAuditLog([path], { checkpoints, keys });
      expect(problems.length, `cut at ${length}`).toBeGreaterThan(0);
    }
  },
);

test("an end cut off with its checkpoints cannot be told, unless one was kept: how far it is signed is said", async () => {
  const kept = notes.slice(0, 1);
  const signed = recordIn(kept[0] ?? "");
  const { code, stdout } = await told(textOf(lines.slice(0, signed + 1)), textOf(kept));
  expect(stdout).toContain(
    `signed up to record ${signed}, the 1 after it are vouched for by the chain alone`,
  );
  expect(code).toBe(0);
  const note = join(scratch, "kept.txt");
  for (const [last, expected] of [
    [notes.at(-1), /the end was cut off/],
    [foreign.notes[0], /is not what the checkpoint of .* \(.*kept\.txt:/],
  ] as const) {
    writeFileSync(note, (JSON.parse(last ?? "") as { note: string }).note);
    const shown = await verify(path, "--checkpoint", note);
    expect([shown.code, shown.stdout]).toEqual([1, expect.stringMatching(expected)]);
  }
});

test("a file that was set aside has an end, which the one after it knows", async () => {
  const first = textOf(lines.slice(0, 6));
  writeFileSync(`${path}.checkpoints`, textOf(notes));
  writeFileSync(path, textOf(lines.slice(6)));
  writeFileSync(`${path}.1`, first);
  for (const files of [[`${path}.1`], [`${path}.1`, path]]) {
    const { code, stdout } = await verify(...files);
    expect([code, stdout]).toEqual([0, expect.stringContaining("the chain is whole")]);
  }
  expect((await verify(path, `${path}.1`)).stdout).toContain("does not follow record 10");
  writeFileSync(`${path}.1`, textOf(lines.slice(0, 5)));
  for (const files of [[`${path}.1`], [`${path}.1`, path]]) {
    const { code, stdout } = await verify(...files);
    expect(stdout).toMatch(/jsonl\.1:5: .*goes on with record 7|jsonl:1: record 7 does not follow/);
    expect(code).toBe(1);
  }
  // Without the newest file, as if it had never been there.
  renameSync(`${path}.1`, path);
  expect((await verify(path)).stdout).toContain("the end was cut off");
});

test.each([1, 2])(
  "a proxy of %i threads that is killed leaves nothing untrue",
  { timeout: 60_000 },
  async (workers) => {
    const log = join(scratch, `killed-${workers}.jsonl`);
    const key = newKey(`killed-${workers}`);
    const over = { path: log, signing_key_file: key.keyFile, checkpoint_every: 3 };
    for (let turn = 0; turn < 2; turn += 1) {
      const proxy = await own(ProxyProcess.start({ ...settings({ audit: over }), workers }));
      for (let at = 0; at < 7; at += 1) await get(proxy.forward, `${origin.url}/${at}`);
      await eventually(() => linesIn(log).length === 7 * (turn + 1));
      await eventually(() => recordIn(linesIn(`${log}.checkpoints`).at(-1) ?? "") > 7 * turn);
      await proxy.kill();
    }
    const { code, stdout } = await runProgram(["verify-audit", "--key", key.publicFile, log]);
    expect([code, stdout]).toEqual([0, expect.stringContaining("the chain is whole")]);
    expect(stdout).toMatch(/records: 14\n/);
  },
);
