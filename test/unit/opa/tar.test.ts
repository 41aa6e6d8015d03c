import { gunzipSync } from "node:zlib";
import { array, assert, nat, property, tuple } from "fast-check";
import { describe, expect, test } from "vitest";
import { readTar } from "../../../src/opa/tar.ts";
import { fixture } from "../../support/opa-cases.ts";
import { tarOf } from "../../support/tar.ts";

const sample = gunzipSync(fixture("cases").bytes);

test("reads what opa writes", () => {
  expect(readTar(sample).map(({ name }) => name)).toEqual([
    "data.json",
    "cases/cases.rego",
    "cases/inbound.rego",
    "cases/outbound.rego",
    "policy.wasm",
    ".manifest",
  ]);
});

test("reads pax and GNU long names", () => {
  const name = `${"folder/".repeat(30)}data.json`;
  const pax = `path=${name}\n`;
  const record = `${pax.length + 4} ${pax}`;
  const files = readTar(
    tarOf([
      { name: "pax", type: "x", content: record },
      { name: "short", content: "1" },
      { name: "././@LongLink", type: "L", content: `${name}\0` },
      { name: "short", content: "2" },
      { name: "plain", content: "3" },
    ]),
  );
  expect(files.map((file) => [file.name, file.bytes.toString()])).toEqual([
    [name, "1"],
    [name, "2"],
    ["plain", "3"],
  ]);
});

describe("refuses", () => {
  test.each([
    ["text", Buffer.from("no archive at all".repeat(100)), /bad number|damaged/],
    ["an archive that is cut short", sample.subarray(0, 3_000), /cut short|no end/],
    ["nothing", Buffer.alloc(0), /no end/],
    ["a link", tarOf([{ name: "policy.wasm", type: "2", content: "" }]), /not a file \(type "2"\)/],
    ["a name that climbs", tarOf([{ name: "../x", content: "" }]), /a file name that leaves it/],
    ["a bad pax header", tarOf([{ name: "p", type: "x", content: "999999x" }]), /bad pax header/],
  ])("%s", (_name, archive, problem) => {
    expect(() => readTar(archive)).toThrow(problem);
  });

  test("a header whose sum is wrong", () => {
    const archive = Buffer.from(sample);
    archive[3] = 0x41;
    expect(() => readTar(archive)).toThrow(/damaged/);
  });
});

test("strangers' bytes are an archive or an error, never a hang", () => {
  const mutation = array(tuple(nat({ max: 4_000 }), nat({ max: 255 })), {
    minLength: 1,
    maxLength: 8,
  });
  assert(
    property(mutation, (changes) => {
      const archive = Buffer.from(sample.subarray(0, 8_192));
      for (const [at, value] of changes) archive[at] = value;
      try {
        readTar(archive);
      } catch (error) {
        expect(error).toBeInstanceOf(Error);
      }
    }),
    { numRuns: 200 },
  );
});
