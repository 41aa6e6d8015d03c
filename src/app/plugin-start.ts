/** Starts the plugins of a generation in order, and undoes it in reverse when one fails. */
import { messageOf, ProxyError } from "../errors.ts";
import type { Pipeline } from "../pipeline/pipeline.ts";
import type { Step } from "../pipeline/step-runner.ts";
import type { Logger } from "../telemetry/log.ts";

/** Rejects with `config.invalid` naming the plugin; the plugins started before it are closed again. */
export async function startPlugins(
  pipelines: readonly Pipeline[],
  timeoutMs: number,
  log: Logger,
): Promise<void> {
  const steps = pipelines.flatMap((pipeline) => pipeline.steps);
  const deadline = AbortSignal.timeout(timeoutMs);
  const expired = new Promise<never>((_, reject) => {
    const refuse = (): void =>
      reject(new Error(`not started within ${timeoutMs} ms (limits.plugin_start_timeout)`));
    deadline.addEventListener("abort", refuse, { once: true });
  });
  // The deadline may pass when nobody waits for it any more.
  expired.catch(() => undefined);
  const started: Step[] = [];
  for (const step of steps) {
    try {
      await Promise.race([step.plugin.start?.(deadline), expired]);
      started.push(step);
    } catch (error) {
      await closeSteps(started, log);
      throw new ProxyError(
        "config.invalid",
        `plugin "${step.name}" failed to start: ${messageOf(error)}`,
        { cause: error },
      );
    }
  }
}

/** Closes plugins in reverse order; one that fails does not keep the others from closing. */
export async function closePlugins(pipelines: readonly Pipeline[], log: Logger): Promise<void> {
  await closeSteps(
    pipelines.flatMap((pipeline) => pipeline.steps),
    log,
  );
}

async function closeSteps(steps: readonly Step[], log: Logger): Promise<void> {
  for (const step of [...steps].reverse()) {
    try {
      await step.plugin.close?.();
    } catch (error) {
      log.warn({ plugin: step.name, error: messageOf(error) }, "plugin close failed");
    }
  }
}
