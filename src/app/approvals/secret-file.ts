/** Secrets that stand in files. */
import { credentialText, WatchedFile } from "../../files/watched-file.ts";
import type { Logger } from "../../telemetry/log.ts";

/** A secret of a file that may change. */
export function secretIn(path: string, key: string, log: Logger): { reveal(): string } {
  const file = new WatchedFile({
    path,
    clock: Date,
    parse: credentialText,
    onProblem: (problem) => log.warn({ key }, problem),
  });
  file.current();
  return { reveal: () => file.current() ?? "" };
}
