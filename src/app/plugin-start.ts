/** Starts the plugins of a generation in order. */
import { messageOf, ProxyError } from "../errors.ts";
import type { Pipeline } from "../pipeline/pipeline.ts";
import type { Logger } from "../telemetry/log.ts";

/** Rejects with `config.invalid` naming the plugin; whoever made the pipelines closes them, this plugin with the others. */
export async function startPlugins(
  pipelines: readonly Pipeline[],
  timeoutMs: number,
): Promise<void> {
  const deadline = AbortSignal.timeout(timeoutMs);
  const expired = new Promise<never>((_, reject) => {
    const refuse = (): void =>
      reject(new Error(`not started within ${timeoutMs} ms (limits.plugin_start_timeout)`));
    deadline.addEventListener("abort", refuse, { once: true });
  });
  // The deadline may pass when nobody waits for it any more.
  expired.catch(() => undefined);
  for (const { name, plugin } of pipelines.flatMap((pipeline) => pipeline.steps)) {
    try {
      await Promise.race([plugin.start?.(deadline), expired]);
    } catch (error) {
      throw new ProxyError(
        "config.invalid",
        `plugin "${name}" failed to start: ${messageOf(error)}`,
        { cause: error },
      );
    }
  }
}

/** Closes plugins in reverse order, started or not; one that fails does not keep the others from closing. */
export async function closePlugins(pipelines: readonly Pipeline[], log: Logger): Promise<void> {
  for (const { name, plugin } of pipelines.flatMap((pipeline) => pipeline.steps).reverse()) {
    try {
      await plugin.close?.();
    } catch (error) {
      log.warn({ plugin: name, error: messageOf(error) }, "plugin close failed");
    }
  }
}
