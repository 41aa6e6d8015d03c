/** Events over a restart. */
import { appendFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import type { SessionEvent } from "../../../src/session/event.ts";
import { Journal, restoreJournal } from "../../../src/session/journal.ts";
import { LineFile } from "../../../src/session/line-file.ts";
import { SessionStore } from "../../../src/session/store.ts";

const at = new Date().toISOString();

function event(
  sessionId: string,
  requestId: string,
  fields: Partial<SessionEvent> = {},
): SessionEvent {
  return { sessionId, requestId, at, direction: "inbound", phase: "request", host: "h", ...fields };
}

function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), "authbridge-journal-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return join(directory, "events.jsonl");
}

test("sessions, intents, moved events and numbers are what they were", async () => {
  const path = scratch();
  const journal = new Journal(new LineFile({ path, maxBytes: 1_000_000, maxFiles: 2 }));
  const store = new SessionStore({ journal });
  store.record(
    event("default", "f1", {
      a2a: { method: "message/send", parts: [{ kind: "text", content: "book" }] },
    }),
  );
  store.record(event("default", "f2"));
  store.rekey("default", "ctx", new Set(["f1"]));
  store.record(event("ctx", "f1", { phase: "response" }));
  await journal.close();
  appendFileSync(path, '{"sequence":9,"event":{"sess');

  const restored = new SessionStore();
  onTestFinished(() => [store, restored].forEach((one) => one.close()));
  const found = await restoreJournal(path, 2, {
    restore: (sequence, one) => restored.restore(sequence, one),
    rekey: (...given) => restored.restoreRekey(...given),
  });
  expect(found).toEqual({ restored: 4, skipped: 1 });
  expect(restored.get("ctx")?.events).toEqual(store.get("ctx")?.events);
  expect(restored.get("default")?.events).toEqual(store.get("default")?.events);
  expect(restored.intentOf("ctx")?.text).toBe("book");
  restored.record(event("ctx", "f3"));
  expect(restored.after(3).events.map(({ sequence }) => sequence)).toEqual([4]);
});

test("no file is no event", async () => {
  const into = { restore: () => expect.unreachable(), rekey: () => expect.unreachable() };
  expect(await restoreJournal(scratch(), 4, into)).toEqual({ restored: 0, skipped: 0 });
});
