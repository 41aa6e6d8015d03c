/** A second attempt where the first one met a connection that its service was about to close. */
import { ProxyError } from "../errors.ts";

/** Only for questions that change nothing. Both attempts have `timeoutMs` together; `ask` is given what is left of it. */
export async function askAgain<T>(
  timeoutMs: number,
  ask: (leftMs: number) => Promise<T>,
): Promise<T> {
  const startedAt = performance.now();
  try {
    return await ask(timeoutMs);
  } catch (error) {
    if (!(error instanceof ProxyError) || error.code !== "upstream.reset") throw error;
    const leftMs = Math.floor(timeoutMs - (performance.now() - startedAt));
    if (leftMs < 1) throw error;
    return ask(leftMs);
  }
}
