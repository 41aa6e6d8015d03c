import { describe, expect, test } from "vitest";
import { readGraphqlDocument } from "../../../src/policy/graphql-document.ts";

describe("the operation of a GraphQL document", () => {
  test.each([
    ["{ viewer { login } }", "query", ["viewer"]],
    [
      'query Q($id: ID = "}") @x(a: {b: [1]}) { a: viewer(first: 3) @skip(if: true), repository }',
      "query",
      ["viewer", "repository"],
    ],
    ['mutation M { deleteRepository(input: {id: "x"}) { id } }', "mutation", ["deleteRepository"]],
    ["subscription { messageAdded }", "subscription", ["messageAdded"]],
    [
      "{ ...F ... on Query { b } ... @include(if: true) { c } } fragment F on Query { a ...G } fragment G on Query { d }",
      "query",
      ["a", "d", "b", "c"],
    ],
    ["{ ...F } fragment F on Query { a ...F }", "query", ["a"]],
    ['# mutation { x }\n{ a(s: """ } mutation { \\""" """) }', "query", ["a"]],
    ["{ a(constructor: toString) }", "query", ["a"]],
    ["\uFEFF{ query: mutation fragment on }", "query", ["mutation", "fragment", "on"]],
  ])("%s", (text, operationType, fields) => {
    expect(readGraphqlDocument(text).operation).toMatchObject({ operationType, fields });
  });

  test("is chosen by name among several", () => {
    const text = "query A { a } mutation B { b }";
    expect(readGraphqlDocument(text, "B").operation).toEqual({
      operationType: "mutation",
      operationName: "B",
      fields: ["b"],
    });
    expect(readGraphqlDocument(text).error).toContain("operationName");
    expect(readGraphqlDocument(text, "").error).toContain("operationName");
    expect(readGraphqlDocument(text, "C").error).toContain("names no operation");
  });

  test.each([
    "",
    "{",
    "{}",
    "{ a } }",
    "{ a(b: 1 }",
    "{ ...Missing }",
    "query { a } { b }",
    "query A { a } query A { b }",
    "{ a } fragment F on T { b } fragment F on T { c }",
    "type Query { a: Int }",
    "{ a(b: [1)] }",
    "{ a \\ }",
    "fragment F on T { a }",
    `${"{ a ".repeat(200)}${"}".repeat(200)}`,
    `{ ${"a ".repeat(20_001)} }`,
  ])("cannot be told of a document that is wrong or too large: %.30s", (text) => {
    expect(readGraphqlDocument(text).error).toBeDefined();
  });
});
