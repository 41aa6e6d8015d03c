import { expect, test } from "vitest";
import type { RequestContext, SessionReader } from "../../../../src/pipeline/plugin.ts";
import { Conversations } from "../../../../src/plugins/sparc/conversations.ts";
import { message } from "../../../support/plugin-bench.ts";

interface Tie {
  readonly turn?: string;
  readonly session?: string;
}

/** Sessions that know of each message what a test says. */
class Ties implements SessionReader {
  readonly #ties = new Map<RequestContext, Tie>();
  isDoubtful = false;

  of(tie: Tie, caller = "a", size = 10): RequestContext {
    const context = message({ body: "x".repeat(size), client: { caller } });
    this.#ties.set(context, tie);
    return context;
  }

  scopeOf(context: RequestContext): Tie {
    return this.#ties.get(context) ?? {};
  }

  isInDoubt(): boolean {
    return this.isDoubtful;
  }

  intentOf(): undefined {
    return undefined;
  }

  sessionOf(): undefined {
    return undefined;
  }

  subjectOf(): undefined {
    return undefined;
  }
}

const view = (model: string) =>
  ({ api: "openai.chat", model, messages: [{ role: "user", content: model }] }) as const;

function known(...said: readonly (readonly [string, Tie, string?])[]) {
  const ties = new Ties();
  const conversations = new Conversations(ties);
  for (const [name, tie, caller] of said) conversations.remember(ties.of(tie, caller), view(name));
  const find = (tie: Tie, caller?: string) => conversations.find(ties.of(tie, caller))?.model;
  return { ties, conversations, find };
}

test("of the message that is being served, else of the session, the latest counts", () => {
  const { find } = known(
    ["old", { turn: "1", session: "s" }],
    ["new", { turn: "2", session: "s" }],
    ["other", { turn: "3", session: "t" }],
  );
  expect(find({ turn: "1", session: "s" })).toBe("old");
  expect(find({ session: "s" })).toBe("new");
  expect(find({ turn: "9", session: "t" })).toBe("other");
  expect(find({ turn: "9", session: "u" })).toBeUndefined();
});

test("what nothing ties is of the only conversation that its caller has, where nobody is in doubt", () => {
  const { find, ties } = known(["mine", {}, "a"], ["theirs", {}, "b"]);
  expect(find({}, "a")).toBe("mine");
  expect(find({ session: "an MCP session" }, "b")).toBe("theirs");
  expect(find({}, "c")).toBeUndefined();
  ties.isDoubtful = true;
  expect(find({ session: "an MCP session" }, "b")).toBeUndefined();
  const several = known(["one", { session: "s" }], ["two", { session: "t" }]);
  expect(several.find({})).toBeUndefined();
});

test("a newer request takes the place of the one before it", () => {
  const { find } = known(["one", { session: "s" }], ["two", { session: "s" }]);
  expect(find({})).toBe("two");
});

test("the oldest go when there are too many, or too many bytes", () => {
  const many = known(
    ...Array.from({ length: 300 }, (_each, at): [string, Tie] => [`${at}`, { session: `${at}` }]),
  );
  expect(many.find({ session: "0" })).toBeUndefined();
  expect(many.find({ session: "299" })).toBe("299");
  const { conversations, ties, find } = known();
  for (const session of ["first", "second", "third"]) {
    conversations.remember(ties.of({ session }, "a", 15 * 1_024 * 1_024), view(session));
  }
  expect(find({ session: "first" })).toBeUndefined();
  expect(find({ session: "third" })).toBe("third");
});

test("without sessions nothing is known", () => {
  const conversations = new Conversations(undefined);
  conversations.remember(message({ body: {} }), view("one"));
  expect(conversations.find(message())).toBeUndefined();
});
