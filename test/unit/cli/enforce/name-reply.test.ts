import { describe, expect, test } from "vitest";
import { noSuchName } from "../../../../src/cli/enforce/name-reply.ts";
import { profileFor, seatbelted } from "../../../../src/cli/enforce/seatbelt.ts";

/** A query for a.test, type A, with an EDNS record behind it. */
const question = "016104746573740000010001";
const query = Buffer.from(`beef01000001000000000001${question}0000291000000000000000`, "hex");

describe("the resolver that knows no name", () => {
  test("says so of the question, and repeats nothing else", () => {
    expect(noSuchName(query)?.toString("hex")).toBe(`beef81830001000000000000${question}`);
  });

  test.each([
    ["nothing", ""],
    ["a header alone", "beef01000001000000000000"],
    ["a response", `beef81000001000000000000${question}`],
    ["two questions", `beef01000002000000000000${question}${question}`],
    ["a name that does not end", "beef01000001000000000000" + "0161".repeat(200)],
    ["a compressed name", "beef01000001000000000000c00c00010001"],
    ["a question that is cut off", `beef01000001000000000000${question.slice(0, -4)}`],
  ])("does not answer %s", (_title, hex) => {
    expect(noSuchName(Buffer.from(hex, "hex"))).toBeUndefined();
  });
});

test("the profile of macOS leaves the port of the proxy and nothing else outside", () => {
  const profile = profileFor(8081);
  expect(profile.indexOf("(deny network*)")).toBeGreaterThan(profile.indexOf("(allow default)"));
  expect(profile.match(/network-outbound/g)).toHaveLength(1);
  expect(profile).toContain('(allow network-outbound (remote ip "localhost:8081"))');
  expect(seatbelted(["a", "b"], 8081).slice(-2)).toEqual(["a", "b"]);
});
