/** What `workers` demands of other keys. */
import type { KeyPath } from "../yaml/problem.ts";
import type { Remark } from "../yaml/schema-remarks.ts";
import type { FileConfig } from "./schema.ts";

/** Limits of what is waited for are divided among threads; none of them can have less than one place. */
const divided = [
  "max_upstream_connections",
  "max_upstream_connections_per_destination",
  "max_upstream_connections_per_caller",
  "max_name_lookups",
  "max_name_lookups_per_caller",
] as const;

/** What several threads cannot do; what `auto` comes to is another machine's business. */
export function workerProblems({
  workers,
  limits,
}: FileConfig): readonly (Remark & { readonly because: readonly KeyPath[] })[] {
  const because: readonly KeyPath[] = [["workers"]];
  const threads = workers === "auto" ? 1 : workers;
  return divided
    .filter((key) => limits[key] < threads)
    .map((key) => ({
      path: ["limits", key] as KeyPath,
      message: `is less than workers (${threads}), among which it is divided`,
      because,
    }));
}
