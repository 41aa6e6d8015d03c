import { gunzipSync, gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { readBundle, unpackBundle } from "../../../src/opa/bundle.ts";
import { preparePolicy } from "../../../src/opa/policy-source.ts";
import { readTar } from "../../../src/opa/tar.ts";
import { compilePolicy } from "../../../src/opa/wasm-policy.ts";
import { fixture } from "../../support/opa-cases.ts";
import { tarOf } from "../../support/tar.ts";

const wasm = readTar(gunzipSync(fixture("allow").bytes)).find(
  ({ name }) => name === "policy.wasm",
)?.bytes;
const filesOf = (files: Readonly<Record<string, string | Buffer>>) =>
  new Map(Object.entries(files).map(([name, content]) => [name, Buffer.from(content)]));
const module = { "policy.wasm": wasm ?? "" };

describe("data", () => {
  test("of every folder is put in its place", () => {
    const { data } = readBundle(
      filesOf({
        ...module,
        "data.json": '{"a":{"one":1}}',
        "a/b/data.yaml": "two: 2",
        "c/data.json": "[3]",
        "c/other.json": "{}",
      }),
    );
    expect(JSON.parse(data)).toEqual({ a: { one: 1, b: { two: 2 } }, c: [3] });
  });

  test("named like a member of every object stays data", () => {
    const { data } = readBundle(filesOf({ ...module, "__proto__/data.json": '{"polluted":1}' }));
    expect(data).toBe('{"__proto__":{"polluted":1}}');
    expect(Reflect.get({}, "polluted")).toBeUndefined();
  });

  test.each([
    [
      "in two files",
      { "data.json": '{"a":1}', "a/data.json": "2" },
      /another file of the bundle sets \(a\)/,
    ],
    ["that is no JSON", { "data.json": "{" }, /^data\.json cannot be read: /],
    ["that is no object", { "data.json": "[]" }, /^data\.json does not hold an object/],
  ])("%s is refused", (_name, files, problem) => {
    expect(() => readBundle(filesOf({ ...module, ...files }))).toThrow(problem);
  });
});

describe("a bundle is refused", () => {
  test.each([
    ["that is empty", {}, /^the bundle has no policy\.wasm$/],
    ["with Rego only", { "p.rego": "" }, /`opa build -t wasm -e .* -o bundle\.tar\.gz POLICY_DIR`/],
    [
      "that is signed by nobody knows whom",
      { ...module, ".signatures.json": "{}" },
      /set verification/,
    ],
    ["that is a delta", { "patch.json": "{}" }, /delta bundle/],
    ["with a bad manifest", { ...module, ".manifest": "{" }, /^\.manifest cannot be read/],
    [
      "with two modules",
      { ...module, ".manifest": '{"wasm":[{"module":"/a.wasm"},{"module":"/b.wasm"}]}' },
      /has 2 WebAssembly modules/,
    ],
  ])("%s", (_name, files, problem) => {
    const rules = { verification: undefined, compiler: undefined };
    const prepare = () => preparePolicy(filesOf(files), rules, new AbortController().signal);
    expect(prepare).toThrow(problem);
  });

  test("that is no gzip", () => {
    expect(() => unpackBundle(Buffer.from("x"))).toThrow("the bundle is not a gzip archive");
  });

  test("that unpacks to too much", () => {
    const bomb = gzipSync(Buffer.alloc(65 * 1024 * 1024));
    expect(bomb.length).toBeLessThan(100_000);
    expect(() => unpackBundle(bomb)).toThrow(/unpacks to more than/);
  });
});

describe("a module is refused", () => {
  const compile = (bytes: Buffer) => compilePolicy({ wasm: bytes, data: "{}", revision: "" });

  test("that is not WebAssembly", () => {
    expect(() => compile(Buffer.from("text"))).toThrow(/^policy\.wasm is not WebAssembly/);
  });

  test("that is no policy", () => {
    const empty = Buffer.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]);
    expect(() => compile(empty)).toThrow(/^policy\.wasm is not a policy of OPA/);
  });

  test("whose data fills its memory", () => {
    const data = JSON.stringify({ a: "x".repeat(40 * 1024 * 1024) });
    const bundle = { wasm: wasm ?? Buffer.alloc(0), data, revision: "" };
    expect(() => compilePolicy(bundle)).toThrow(/need more than 134217728 bytes/);
  });
});

test("an archive is read as its files are", () => {
  const archive = gzipSync(
    tarOf([
      { name: "./data.json", content: '{"a":1}' },
      { name: "/policy.wasm", content: wasm ?? "" },
    ]),
  );
  expect(readBundle(unpackBundle(archive))).toMatchObject({ data: '{"a":1}', revision: "" });
});
