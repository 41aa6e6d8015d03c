import { inspect } from "node:util";
import { expect, test } from "vitest";
import { Secret } from "../../src/secret.ts";

test.each<[string, (secret: Secret) => string]>([
  ["a template", (secret) => `${String(secret)}.`],
  ["JSON", (secret) => JSON.stringify({ secret })],
  ["inspect, as console.log and assertions use it", (secret) => inspect({ secret }, { depth: 5 })],
  ["a list of fields", (secret) => JSON.stringify(Object.entries(secret))],
])("CRED-06 a secret does not show in %s", (_what, print) => {
  expect(print(new Secret("hunter2"))).not.toContain("hunter2");
});

test("a secret gives its value to who asks for it by name", () => {
  expect(new Secret("hunter2").reveal()).toBe("hunter2");
});
