/** What a name stands under. */
import { expect, test } from "vitest";
import { Domains } from "../../../../src/plugins/budgets/domains.ts";

test.each([
  [[], "a.b.example.com", "example.com"],
  [[], "example.com", "example.com"],
  [[], "localhost", "localhost"],
  [[], "shop.example.co.uk", "example.co.uk"],
  [[], "example.co.uk", "example.co.uk"],
  [[], "x.com.au", "x.com.au"],
  [[], "a.b.com", "b.com"],
  [["*.s3.example.com"], "bucket.s3.example.com", "s3.example.com"],
  [["**.example.com", "*.s3.example.com"], "a.b.s3.example.com", "s3.example.com"],
  [["**.example.com", "*.s3.example.com"], "a.b.example.com", "example.com"],
  [["*.EXAMPLE.com."], "a.example.com", "example.com"],
  [["*.evil-example.com"], "a.not-evil-example.com", "not-evil-example.com"],
  [["api-*.example.com"], "api-1.eu.example.com", "example.com"],
])("with %j %s stands under %s", (patterns, host, domain) => {
  expect(new Domains(patterns).of(host, false)).toBe(domain);
});

test("an address stands under nothing", () => {
  expect(new Domains([]).of("192.0.2.1", true)).toBe("192.0.2.1");
});
