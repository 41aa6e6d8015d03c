/** A streamed request body: what is kept of it can be given again, within a bound and the budget. */
import { PassThrough } from "node:stream";
import { describe, expect, test } from "vitest";
import { BodyBudget } from "../../../../src/http/body.ts";
import {
  type BodySink,
  type BodySource,
  ReadableSource,
} from "../../../../src/http/body-source.ts";
import { JudgedBody, RequestBody } from "../../../../src/proxy/exchange/request-body.ts";
import { pipelineOf } from "../../../support/pipeline-of.ts";
import { message } from "../../../support/plugin-bench.ts";

/** A source that gives what the test says, at once. */
class Source implements BodySource {
  isComplete = false;
  isPaused = false;
  sink: BodySink | undefined;

  open(sink: BodySink): void {
    this.sink = sink;
    this.isPaused = false;
  }

  resume(): void {
    this.isPaused = false;
  }

  detach(): void {
    this.sink = undefined;
  }

  give(text: string): void {
    expect(this.isPaused).toBe(false);
    this.isPaused = this.sink?.data(Buffer.from(text)) !== true;
  }
}

/** What a sink got; takes `room` chunks before it says that it is full. */
class Sink implements BodySink {
  text = "";
  room: number;

  constructor(room = Number.POSITIVE_INFINITY) {
    this.room = room;
  }

  data(chunk: Buffer): boolean {
    this.text += chunk.toString();
    this.room -= 1;
    return this.room > 0;
  }

  end(): void {
    this.text += ".";
  }

  fail(error: Error): void {
    this.text += `!${error.message}`;
  }
}

test("what was given is given again, and the rest after it; the first sink gets nothing more", () => {
  const source = new Source();
  const budget = new BodyBudget(1_000);
  const body = new RequestBody(source, budget);
  const [first, second] = [new Sink(), new Sink()];
  body.keep();
  body.open(first);
  source.give("one");
  expect(body.isWhole).toBe(true);
  expect(budget.usedBytes).toBe(3);
  body.detach(first);
  body.open(second);
  body.detach(first);
  source.give("two");
  body.end();
  expect(first.text).toBe("one");
  expect(second.text).toBe("onetwo.");
  body.forget();
  expect(body.isWhole).toBe(false);
  expect(budget.usedBytes).toBe(0);
  expect(body.bytes).toBe(6);
});

test("a body whose end was given is given again with its end", () => {
  const source = new Source();
  const body = new RequestBody(source, new BodyBudget(1_000));
  const [first, second] = [new Sink(), new Sink()];
  body.keep();
  body.open(first);
  source.give("all");
  source.sink?.end();
  body.open(second);
  expect(second.text).toBe("all.");
});

test.each([
  ["more than 64 KiB", 65_537, 1_000_000],
  ["more than the budget has", 11, 10],
])("%s is not kept, and nothing stays accounted for", async (_name, bytes, limit) => {
  const source = new PassThrough({ highWaterMark: 100_000 });
  const budget = new BodyBudget(limit);
  const body = new RequestBody(new ReadableSource(source), budget);
  body.keep();
  source.end(Buffer.alloc(bytes, "x"));
  await new Promise<void>((resolve) => {
    const ignore = (): boolean => true;
    body.open({ data: ignore, end: resolve, fail: () => undefined });
  });
  expect(body.isWhole).toBe(false);
  expect(budget.usedBytes).toBe(0);
});

describe("a sink that is full", () => {
  test("makes the source wait, and gets its end only when it goes on", () => {
    const source = new Source();
    const body = new RequestBody(source, new BodyBudget(1_000));
    const sink = new Sink(1);
    body.open(sink);
    source.give("a");
    expect(source.isPaused).toBe(true);
    source.sink?.end();
    expect(sink.text).toBe("a");
    body.resume();
    expect(sink.text).toBe("a.");
  });

  test("gets what was held before the source, one by one", () => {
    let released = 0;
    const chunks = [Buffer.from("a"), Buffer.from("b")];
    const source = new Source();
    const body = new RequestBody(source, new BodyBudget(1_000), {
      chunks,
      release: () => (released += 1),
    });
    expect(body.bytes).toBe(2);
    const sink = new Sink(1);
    body.open(sink);
    expect(sink.text).toBe("a");
    expect(source.sink).toBe(undefined);
    body.resume();
    expect(sink.text).toBe("ab");
    expect(released).toBe(0);
    body.resume();
    expect(released).toBe(1);
    sink.room = 2;
    source.give("c");
    expect(sink.text).toBe("abc");
  });

  test("that is being given the body again gets all of it when nothing is kept any more", () => {
    const source = new Source();
    const body = new RequestBody(source, new BodyBudget(1_000));
    body.keep();
    body.open(new Sink());
    for (const text of ["a", "b", "c"]) source.give(text);
    const second = new Sink(1);
    body.open(second);
    body.forget();
    body.resume();
    body.resume();
    expect(second.text).toBe("abc");
    expect(body.isWhole).toBe(false);
  });
});

test("what comes between two sinks waits for the second one", () => {
  const source = new Source();
  const body = new RequestBody(source, new BodyBudget(1_000));
  const [first, second] = [new Sink(), new Sink()];
  body.keep();
  body.open(first);
  source.give("a");
  body.detach(first);
  source.give("b");
  expect(source.isPaused).toBe(true);
  body.open(second);
  expect(source.isPaused).toBe(false);
  source.give("c");
  expect(second.text).toBe("abc");
});

test.each(["before", "after"])("an exchange that is over ends its sink, %s it opens", (when) => {
  const source = new Source();
  const budget = new BodyBudget(1_000);
  const body = new RequestBody(source, budget);
  const sink = new Sink();
  body.keep();
  if (when === "after") body.open(sink);
  body.close();
  if (when === "before") body.open(sink);
  expect(sink.text).toBe("!the exchange is over");
  expect(budget.usedBytes).toBe(0);
});

test("the memory of a chunk may go when the sink is done with it and it is kept for nobody", () => {
  const drained = Object.assign(new Sink(), { isDrained: true });
  const [plain, kept, held] = [1, 2, 3].map(() => {
    const source = new Source();
    return { source, body: new RequestBody(source, new BodyBudget(1_000)) };
  });
  plain?.body.open(drained);
  plain?.source.give("a");
  kept?.body.keep();
  kept?.body.open(drained);
  kept?.source.give("a");
  held?.body.open(Object.assign(new Sink(1), { isDrained: true }));
  held?.source.give("a");
  held?.source.sink?.data(Buffer.from("b"));
  expect([plain, kept, held].map((one) => one?.body.isDrained)).toEqual([true, false, false]);
  kept?.body.forget();
  kept?.source.give("b");
  expect(kept?.body.isDrained).toBe(true);
});

test("a judge that fails refuses the body, of which nothing more goes on", () => {
  const pipeline = pipelineOf([{}]);
  const [step] = pipeline.steps;
  const push = (piece: Buffer): { passed: Buffer[] } => {
    if (piece.toString() === "bad") throw new Error("the judge fails");
    return { passed: [piece] };
  };
  const source = new Source();
  const sink = new Sink();
  const refused: unknown[] = [];
  const context = message();
  const body = new JudgedBody({
    source,
    judges: step === undefined ? [] : [{ step, judge: { keepsLength: true, keptBytes: 0, push } }],
    pipeline,
    context,
    budget: new BodyBudget(100),
    onRefused: (denial) => refused.push(denial),
  });
  body.open(sink);
  source.give("good");
  source.give("bad");
  source.sink?.end();
  expect(sink.text).toBe("good");
  expect(refused).toMatchObject([{ code: "plugin.fault", plugin: "step-0" }]);
  expect(context.invocations).toMatchObject([{ action: "deny", reason: "plugin_fault" }]);
});
