/** Whether the state store of a file can be used from here: opened, written, read and counted in. */
import { randomUUID } from "node:crypto";
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { dirname } from "node:path";
import { storeOf } from "../../app/state-parts.ts";
import type { Config } from "../../config/presets.ts";
import { messageOf } from "../../errors.ts";
import { createLogger } from "../../telemetry/log.ts";
import { Metrics } from "../../telemetry/metrics.ts";
import { packageVersion } from "../version.ts";
import { fail, type Finding, pass, skip } from "./report.ts";

const entryMs = 10_000;

/** One finding. The file of a running proxy is not opened: it has it. */
export async function examineState({ state }: Config): Promise<Finding> {
  if (state.store === "memory") return skip("kept in memory: of one process, and lost with it");
  if (state.store === "file") {
    const directory = dirname(state.path ?? "");
    try {
      await access(directory, constants.W_OK);
      return pass(`${state.path ?? ""} can be written`);
    } catch (error) {
      return fail(messageOf(error), `create ${directory}, writable for the proxy`);
    }
  }
  const metrics = new Metrics({ version: packageVersion(), generation: () => 0 });
  try {
    const store = storeOf(state, { log: createLogger("silent"), metrics });
    try {
      await store.open();
      const key = `doctor:${randomUUID()}`;
      await store.set(key, "doctor", entryMs);
      const isRead = (await store.get(key)) === "doctor";
      await store.add([{ key: `${key}:count`, by: 1, below: 1, ttlMs: entryMs }]);
      await store.delete(key);
      return isRead
        ? pass(`${state.url ?? ""} answers`)
        : fail("a value that was set is not there", "see to the server's memory and policy");
    } finally {
      await store.close();
    }
  } catch (error) {
    return fail(
      messageOf(error),
      "see that the server runs, and that the user of state.url may use keys and scripts there",
    );
  } finally {
    metrics.close();
  }
}
