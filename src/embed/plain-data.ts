/** A copy of what a program gave as options: plain data, as a file could hold it. */
import type { KeyPath } from "../yaml/problem.ts";
import type { Remark } from "../yaml/schema-remarks.ts";

/** Deeper data is none that anybody wrote; a value that contains itself ends here as well. */
const maxDepth = 64;

/**
 * The copy; members that are undefined are left out. What is not plain data becomes a problem, and is left out.
 *
 * Nothing that the program does to its object later changes what is served.
 */
export function plainData(value: unknown, path: KeyPath, problems: Remark[]): unknown {
  if (value === null || typeof value === "string" || typeof value === "boolean") return value;
  if (typeof value === "number" && Number.isFinite(value)) return value;
  if (path.length > maxDepth) {
    problems.push({ path: path.slice(0, 3), message: `is more than ${maxDepth} levels deep` });
    return null;
  }
  if (Array.isArray(value)) return value.map((one, at) => plainData(one, [...path, at], problems));
  if (isPlainObject(value)) {
    const members = Object.entries(value).filter(([, member]) => member !== undefined);
    return Object.fromEntries(
      members.map(([key, member]) => [key, plainData(member, [...path, key], problems)]),
    );
  }
  problems.push({ path, message: "must be plain data: text, number, boolean, list or mapping" });
  return null;
}

function isPlainObject(value: unknown): value is object {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  // That of another realm, as in tests that run in a context of their own, has no prototype either.
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}
