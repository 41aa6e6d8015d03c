import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { WatchedFile } from "../../../src/files/watched-file.ts";

test("a file that comes back as it was has no problem any more, and its next one is told", async () => {
  const root = await mkdtemp(join(tmpdir(), "authbridge-test-"));
  onTestFinished(() => rm(root, { recursive: true }));
  const away = join(root, "away");
  const folder = await mkdtemp(join(root, "here-"));
  const path = join(folder, "file");
  await writeFile(path, "value");
  let now = 0;
  const told: boolean[] = [];
  const file = new WatchedFile({
    path,
    clock: { now: () => (now += 2_000) },
    parse: (text) => text,
    onProblem: (_message, isMissing) => told.push(isMissing),
  });
  const seen = [file.current()];
  for (let round = 0; round < 2; round += 1) {
    // The stamp of the file stays what it was.
    await rename(folder, away);
    seen.push(file.current());
    expect(file.problem).toContain("does not exist");
    await rename(away, folder);
    seen.push(file.current());
    expect(file.problem).toBeUndefined();
  }
  expect(seen).toEqual(Array.from({ length: 5 }, () => "value"));
  expect(told).toEqual([true, true]);
});
