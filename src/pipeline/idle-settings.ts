/** Settings of plugins that have no effect as the others stand. */
import type { z } from "zod";
import type { Logger } from "../telemetry/log.ts";
import { withoutEmpty } from "../yaml/empty-values.ts";
import { idleKeys } from "../yaml/idle-keys.ts";
import { formatKeyPath, type KeyPath } from "../yaml/problem.ts";

/** Warns of what an entry writes for nothing; `path` is the place of its settings in the file. */
export function warnOfIdle(
  schema: z.ZodType,
  { written, checked, path }: { written: unknown; checked: unknown; path: KeyPath },
  log: Logger,
): void {
  for (const { path: below, message } of idleKeys(schema, withoutEmpty(schema, written), checked))
    log.warn(
      { warning: `${formatKeyPath([...path, ...below])}: ${message}` },
      "a setting has no effect",
    );
}
