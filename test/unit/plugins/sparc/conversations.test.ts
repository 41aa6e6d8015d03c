import { expect, test } from "vitest";
import { type Conversation, Conversations } from "../../../../src/plugins/sparc/conversations.ts";

interface Tie {
  readonly turn?: string;
  readonly session?: string;
}

const saying = (content: string): Conversation => ({
  messages: [{ role: "user", content }],
  tools: [],
});

function known(...said: readonly (readonly [string, Tie, string?])[]) {
  const conversations = new Conversations();
  for (const [name, tie, caller = "a"] of said)
    conversations.remember({ ...tie, caller }, saying(name), 10);
  const find = (tie: Tie, caller = "a", isInDoubt = false) =>
    conversations.find({ ...tie, caller }, isInDoubt)?.messages[0]?.content;
  return { conversations, find };
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
  const { find } = known(["mine", {}, "a"], ["theirs", {}, "b"]);
  expect(find({}, "a")).toBe("mine");
  expect(find({ session: "an MCP session" }, "b")).toBe("theirs");
  expect(find({}, "c")).toBeUndefined();
  expect(find({ session: "an MCP session" }, "b", true)).toBeUndefined();
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
  const { conversations, find } = known();
  for (const session of ["first", "second", "third"]) {
    conversations.remember({ session, caller: "a" }, saying(session), 15 * 1_024 * 1_024);
  }
  expect(find({ session: "first" })).toBeUndefined();
  expect(find({ session: "third" })).toBe("third");
});
