/** A streamed request body: what is kept of it can be given again, within a bound and the budget. */
import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { BodyBudget } from "../../../../src/http/body.ts";
import { RequestBody } from "../../../../src/proxy/exchange/request-body.ts";

async function take(body: RequestBody, chunks: number): Promise<string> {
  let text = "";
  const source = body[Symbol.asyncIterator]();
  for (let taken = 0; taken < chunks; taken += 1) {
    const { value } = await source.next();
    text += value?.toString() ?? "";
  }
  return text;
}

test("what was given is given again, and the rest after it; the first reader gets nothing more", async () => {
  const source = new PassThrough();
  const budget = new BodyBudget(1_000);
  const body = new RequestBody(source, budget);
  body.keep();
  source.write("one");
  const first = body[Symbol.asyncIterator]();
  expect((await first.next()).value?.toString()).toBe("one");
  const waiting = first.next();
  expect(body.isWhole).toBe(true);
  expect(budget.usedBytes).toBe(3);
  const second = take(body, 2);
  source.end("two");
  expect(await second).toBe("onetwo");
  expect((await waiting).done).toBe(true);
  body.forget();
  expect(body.isWhole).toBe(false);
  expect(budget.usedBytes).toBe(0);
});

test.each([
  ["more than 64 KiB", 65_537, 1_000_000],
  ["more than the budget has", 11, 10],
])("%s is not kept, and nothing stays accounted for", async (_name, bytes, limit) => {
  const source = new PassThrough({ highWaterMark: 100_000 });
  const budget = new BodyBudget(limit);
  const body = new RequestBody(source, budget);
  body.keep();
  source.end(Buffer.alloc(bytes, "x"));
  await take(body, 1);
  expect(body.isWhole).toBe(false);
  expect(budget.usedBytes).toBe(0);
});
