import { expect, test } from "vitest";
import { JoinedReading } from "../../../../src/net/kernel/joined-reading.ts";

/** Readings that end when the test says so. */
function held() {
  const begun: PromiseWithResolvers<string>[] = [];
  const joined = new JoinedReading<string, string>(() => {
    const reading = Promise.withResolvers<string>();
    begun.push(reading);
    return reading.promise;
  });
  return { begun, joined };
}

test("who asks while a reading runs gets the next one, and shares it with all who wait", async () => {
  const { begun, joined } = held();
  const early = joined.ask("a");
  const late = [joined.ask("a"), joined.ask("a")];
  expect(begun).toHaveLength(1);
  begun[0]?.resolve("first");
  expect(await early).toBe("first");
  await expect.poll(() => begun.length).toBe(2);
  const later = joined.ask("a");
  begun[1]?.resolve("second");
  expect(await Promise.all(late)).toEqual(["second", "second"]);
  await expect.poll(() => begun.length).toBe(3);
  begun[2]?.resolve("third");
  expect(await later).toBe("third");
});

test("a reading that hangs or fails holds up nobody who asks for something else, and none after it", async () => {
  const { begun, joined } = held();
  const hanging = joined.ask("a");
  const waiting = joined.ask("a");
  const other = joined.ask("b");
  begun[1]?.resolve("b");
  expect(await other).toBe("b");
  begun[0]?.reject(new Error("unreadable"));
  await expect(hanging).rejects.toThrow("unreadable");
  await expect.poll(() => begun.length).toBe(3);
  begun[2]?.resolve("a");
  expect(await waiting).toBe("a");
});
