/** `callers` of an entry or item: which agents it is for, by authenticated name. */
import type { Node } from "./node.ts";

/** Names of agents, an extension of the file format. */
export function readCallers(node: Node | undefined): ReadonlySet<string> | undefined {
  if (node === undefined) return undefined;
  const names = node.items().flatMap((item) => item.string() ?? []);
  if (names.length === 0) node.error("'callers' must not be empty; leave it out to mean every one");
  return new Set(names);
}
