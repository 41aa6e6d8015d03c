import { readFileSync } from "node:fs";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseAddress } from "../../../src/net/address.ts";
import { parseAuthority } from "../../../src/net/destination.ts";
import { NoProxy, splitNoProxy } from "../../../src/net/no-proxy.ts";

const file = new URL("../../golden/no-proxy.txt", import.meta.url);
const rows = readFileSync(file, "utf8")
  .split("\n")
  .filter((line) => line.includes("|") && !line.startsWith("#"))
  .map((line) => line.split("|").map((cell) => cell.replace(/^ | $/g, "")))
  .map(([list = "", target = "", addresses = "", outcome = "", why = ""]) => ({
    list,
    target: target.trim(),
    addresses: addresses.split(" ").flatMap((text) => parseAddress(text) ?? []),
    outcome: outcome.trim(),
    why,
  }));

function wayOf({ list, target, addresses }: (typeof rows)[number]): string {
  const noProxy = NoProxy.parse(list);
  const { host, port } = parseAuthority(target, "tcp");
  const isDirect =
    noProxy.find(host, port) !== undefined || noProxy.among(addresses, port).length > 0;
  return isDirect ? "direct" : "parent";
}

describe("no_proxy", () => {
  test("has a table that is worth its name", () => {
    expect(rows.filter(({ outcome }) => outcome !== "invalid").length).toBeGreaterThanOrEqual(120);
    const known = new Set(["direct", "parent", "invalid"]);
    expect(rows.filter(({ outcome }) => !known.has(outcome))).toEqual([]);
  });

  test.each(rows)("$list: $target is $outcome ($why)", (row) => {
    if (row.outcome === "invalid") expect(() => NoProxy.parse(row.list)).toThrow(/no_proxy entry/);
    else expect(wayOf(row)).toBe(row.outcome);
  });

  test("of several addresses only those that are listed are dialled directly", () => {
    const noProxy = NoProxy.parse("10.0.0.0/8");
    const answers = ["192.0.2.1", "10.1.2.3"].flatMap((text) => parseAddress(text) ?? []);
    expect(noProxy.among(answers, 443).map(String)).toEqual(["10.1.2.3"]);
  });

  test("repeats no credentials in its complaint", () => {
    expect(() => NoProxy.parse("user:secret@host")).toThrow(/…@host/);
    expect(() => NoProxy.parse("user:secret@host")).not.toThrow(/secret/);
  });

  test("names the entry that matched, as it was written", () => {
    expect(NoProxy.parse("a.test, .B.test:81").find("x.b.test", 81)).toBe(".B.test:81");
    expect(splitNoProxy(["a b", "b,c"])).toEqual(["a", "b", "c"]);
  });

  test("says the same for a host in any case and with a root dot, and never fails on a host", () => {
    const label = fc.stringMatching(/^[a-z][a-z0-9]{0,6}$/);
    const name = fc.array(label, { minLength: 1, maxLength: 4 }).map((labels) => labels.join("."));
    fc.assert(
      fc.property(name, name, fc.boolean(), (entry, host, dotted) => {
        const noProxy = NoProxy.parse(`${dotted ? "." : ""}${entry}`);
        const below = host.endsWith(`.${entry}`);
        const expected = below || (!dotted && host === entry);
        for (const text of [host, host.toUpperCase(), `${host}.`]) {
          const { host: canonical } = parseAuthority(`${text}:443`, "tcp");
          expect(noProxy.find(canonical, 443) !== undefined).toBe(expected);
        }
      }),
      { numRuns: 200 },
    );
  });
});
