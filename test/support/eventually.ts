/** Waiting for a condition, with a deadline: the only way in which a test over real sockets waits. */

/** By how much everything is waited for longer where nothing has a time-out of its own, as in a soak of a busy machine. */
export const patience = Number(process.env["AUTHBRIDGE_TEST_PATIENCE"] ?? 1);
/** Less than the time-out of a test, so that the complaint is what is seen. */
const usualWaitMs = 15_000 * patience;

/** Calls `check` until it neither throws nor answers false; its last complaint is the failure. */
export async function eventually<T>(
  check: () => T | Promise<T>,
  withinMs = usualWaitMs,
): Promise<Exclude<T, false>> {
  const deadline = Date.now() + withinMs;
  for (;;) {
    let complaint: unknown = new Error("the condition stayed false");
    try {
      const value = await check();
      if (value !== false) return value as Exclude<T, false>;
    } catch (error) {
      complaint = error;
    }
    if (Date.now() > deadline) {
      throw new Error(`not within ${withinMs} ms: ${String(complaint)}`, { cause: complaint });
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Rejects when the promise takes longer than the limit. */
export async function within<T>(
  what: string,
  promise: Promise<T>,
  limitMs = usualWaitMs,
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${limitMs} ms`)), limitMs);
  });
  try {
    return await Promise.race([promise, limit]);
  } finally {
    clearTimeout(timer);
  }
}
