/** The decision log: a chain that shows whether somebody changed the past. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { checkAuditLog } from "../../../src/receipts/audit-check.ts";
import { AuditLog, Decisions, lastLink } from "../../../src/session/audit-log.ts";
import { eventOf } from "../../../src/session/event.ts";
import { LineFile } from "../../../src/session/line-file.ts";
import { eventually } from "../../support/eventually.ts";
import { message } from "../../support/plugin-bench.ts";

let directory: string;
let path: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "authbridge-audit-"));
  path = join(directory, "audit.jsonl");
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

async function decide(count: number, options: { maxBytes?: number } = {}): Promise<void> {
  let written = 0;
  const file = new LineFile({
    path,
    maxBytes: options.maxBytes ?? 1_000_000,
    maxFiles: 9,
    onLines: (_, lines) => {
      written += lines;
    },
  });
  const log = new AuditLog(file, await lastLink(path));
  const decisions = new Decisions((facts) => log.append(facts));
  for (let index = 0; index < count; index += 1) {
    const context = message({});
    context.invocations.push({
      plugin: "p",
      action: "deny",
      phase: "request",
      reason: `r${index}`,
    });
    const error = { kind: "policy", code: "policy.forbidden", message: "no" } as const;
    decisions.decided(
      eventOf(context, { phase: "denied", at: index, statusCode: 403, error }),
      context,
    );
    // The answer to a permitted message decides nothing.
    decisions.decided(eventOf(context, { phase: "response", at: index }), context);
    await eventually(() => written === index + 1);
  }
  await log.close();
}

const lines = (): string[] => readFileSync(path, "utf8").trimEnd().split("\n");

test("a response that a step refuses is a decision, and one that a step under observe would refuse is none", () => {
  const written: object[] = [];
  const decisions = new Decisions((facts) => written.push(facts));
  for (const shadow of [undefined, true] as const) {
    const context = message({});
    const step = { plugin: "p", action: "deny", phase: "response", reason: "said" } as const;
    context.invocations.push(shadow === undefined ? step : { ...step, shadow });
    decisions.decided(eventOf(context, { phase: "response", at: 0, statusCode: 403 }), context);
  }
  expect(written).toMatchObject([{ decision: "deny", status: 403, steps: [{ reason: "said" }] }]);
});

test("every decision is a line that names what was decided, by whom and why", async () => {
  await decide(1);
  const [line = ""] = lines();
  expect(JSON.parse(line)).toMatchObject({
    sequence: 1,
    previous: "0".repeat(64),
    decision: "deny",
    direction: "outbound",
    code: "policy.forbidden",
    status: 403,
    steps: [{ plugin: "p", action: "deny", reason: "r0" }],
  });
});

test("the chain goes on over restarts and over files", async () => {
  await decide(3);
  await decide(3);
  expect(await checkAuditLog([path])).toMatchObject({
    records: 6,
    problems: [],
    last: { sequence: 6 },
  });
  rmSync(path);
  await decide(4, { maxBytes: 10 });
  const files = [3, 2, 1].map((number) => `${path}.${number}`);
  expect(await checkAuditLog([...files, path])).toMatchObject({ records: 4, problems: [] });
});

describe("verification shows", () => {
  const tampering: [string, (kept: string[]) => string[], number][] = [
    ["a changed decision", (kept) => kept.with(2, (kept[2] ?? "").replace("deny", "allow")), 3],
    ["a removed line", (kept) => kept.toSpliced(2, 1), 3],
    [
      "an exchanged order",
      (kept) => [...kept.slice(0, 2), kept[3] ?? "", kept[2] ?? "", ...kept.slice(4)],
      3,
    ],
    ["a torn line", (kept) => kept.with(1, (kept[1] ?? "").slice(0, 40)), 2],
  ];
  for (const [what, tamper, line] of tampering) {
    test(what, async () => {
      await decide(6);
      writeFileSync(path, `${tamper(lines()).join("\n")}\n`);
      const { problems } = await checkAuditLog([path]);
      expect(problems[0]).toMatchObject({ file: path, line });
    });
  }
});

test("a torn end is stepped over: the chain goes on from the last whole record", async () => {
  await decide(2);
  writeFileSync(path, `${readFileSync(path, "utf8")}{"sequence":3,"prev`);
  await decide(1);
  const verdict = await checkAuditLog([path]);
  expect(verdict).toMatchObject({ records: 3, last: { sequence: 3 } });
  expect(verdict.problems).toMatchObject([{ line: 3 }]);
});

test("decisions that found no room are counted in the next line", () => {
  const written: string[] = [];
  let room = true;
  const file = { write: (line: string) => (room && written.push(line), room) };
  const log = new AuditLog(file as unknown as LineFile);
  const decisions = new Decisions((facts) => log.append(facts));
  const context = message({});
  for (const hasRoom of [true, false, false, true]) {
    room = hasRoom;
    decisions.exempted(context, 0);
  }
  expect(written.map((line) => JSON.parse(line) as object)).toMatchObject([
    { sequence: 1, decision: "exempt" },
    { sequence: 2, lost: 2 },
  ]);
});
