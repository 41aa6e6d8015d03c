/**
 * Values inside nested plain data, by their path.
 */
import type { KeyPath } from "./problem.ts";

/** A mapping of YAML or JSON. */
export function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The value at a path, or undefined where the path leads nowhere. */
export function valueAt(root: unknown, path: KeyPath): unknown {
  return path.reduce<unknown>((value, step) => {
    if (Array.isArray(value)) return typeof step === "number" ? value[step] : undefined;
    return isMapping(value) && Object.hasOwn(value, step) ? value[step] : undefined;
  }, root);
}

/** Puts a value in the place of a key that is there; a path that leads nowhere, or to a list element, is left. */
export function replaceAt(root: unknown, path: KeyPath, value: unknown): void {
  const key = path.at(-1);
  const parent = valueAt(root, path.slice(0, -1));
  if (key !== undefined && isMapping(parent) && Object.hasOwn(parent, key)) parent[key] = value;
}

/** Takes a key out; a path that leads nowhere, or to a list element, is left. */
export function removeAt(root: unknown, path: KeyPath): void {
  const key = path.at(-1);
  const parent = valueAt(root, path.slice(0, -1));
  if (key !== undefined && isMapping(parent)) delete parent[key];
}
