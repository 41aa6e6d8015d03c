/** The Merkle tree against RFC 6962 as it is written: hashes over whole lists, and proofs by recursion. */
import { createHash } from "node:crypto";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import {
  CompactTree,
  consistencySpans,
  inclusionSpans,
  leafHash,
  SpanHashes,
} from "../../src/receipts/merkle.ts";

const limits = { interruptAfterTimeLimit: 1200, numRuns: 2_000 };
const entries = (count: number): string[] =>
  Array.from({ length: count }, (_, at) => `entry ${at}`);
const sizes = fc.integer({ min: 1, max: 130 });

function split(size: number): number {
  let power = 1;
  while (power * 2 < size) power *= 2;
  return power;
}

function treeHash(list: readonly string[]): Buffer {
  const [only = ""] = list;
  if (list.length === 0) return createHash("sha256").digest();
  if (list.length === 1) return createHash("sha256").update(`\0${only}`).digest();
  const at = split(list.length);
  const [left, right] = [treeHash(list.slice(0, at)), treeHash(list.slice(at))];
  return createHash("sha256").update("\u0001").update(left).update(right).digest();
}

function path(index: number, list: readonly string[]): Buffer[] {
  if (list.length === 1) return [];
  const at = split(list.length);
  return index < at
    ? [...path(index, list.slice(0, at)), treeHash(list.slice(at))]
    : [...path(index - at, list.slice(at)), treeHash(list.slice(0, at))];
}

function subproof(older: number, list: readonly string[], isWhole: boolean): Buffer[] {
  if (older === list.length) return isWhole ? [] : [treeHash(list)];
  const at = split(list.length);
  return older <= at
    ? [...subproof(older, list.slice(0, at), isWhole), treeHash(list.slice(at))]
    : [...subproof(older - at, list.slice(at), false), treeHash(list.slice(0, at))];
}

function grown(count: number): CompactTree {
  const tree = new CompactTree();
  for (const entry of entries(count)) tree.add(leafHash(entry));
  return tree;
}

test("the root of a growing tree is that of the whole list", () => {
  expect(new CompactTree().root()).toEqual(treeHash([]));
  fc.assert(
    fc.property(sizes, (size) => {
      const tree = grown(size);
      expect(tree.root()).toEqual(treeHash(entries(size)));
      expect(new CompactTree(size, tree.roots).root()).toEqual(tree.root());
    }),
    limits,
  );
});

test("an inclusion proof from any earlier tree is that of the whole list", () => {
  fc.assert(
    fc.property(sizes, fc.nat(), fc.nat(), (size, some, other) => {
      const index = some % size;
      const known = other % (index + 1);
      const hashes = new SpanHashes(inclusionSpans(index, size), grown(known));
      for (const entry of entries(size).slice(known)) hashes.add(leafHash(entry));
      expect(hashes.result()).toEqual(path(index, entries(size)));
    }),
    limits,
  );
});

test("a consistency proof from the older tree is that of the whole list", () => {
  fc.assert(
    fc.property(sizes, fc.nat(), (size, some) => {
      const older = (some % size) + 1;
      const hashes = new SpanHashes(consistencySpans(older, size), grown(older));
      for (const entry of entries(size).slice(older)) hashes.add(leafHash(entry));
      expect(hashes.result()).toEqual(subproof(older, entries(size), true));
    }),
    limits,
  );
});

test("a tree of other parts than its size has, and entries that do not come, give nothing", () => {
  expect(() => new CompactTree(3, [leafHash("one")])).toThrow("does not consist of 1 parts");
  expect(new SpanHashes(inclusionSpans(0, 2), new CompactTree()).result()).toBeUndefined();
});
