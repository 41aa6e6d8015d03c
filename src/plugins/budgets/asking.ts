/** A question to something that may respond at once. */
import type { Answer, Soon } from "../../pipeline/plugin.ts";

/** Goes on at once where the response is there, and with `away` where it fails. */
export function asking<T>(
  ask: () => Soon<T>,
  next: (response: T) => Answer | Promise<Answer>,
  away: (error: unknown) => Answer,
): Answer | Promise<Answer> {
  let response: Soon<T>;
  try {
    response = ask();
  } catch (error) {
    return away(error);
  }
  return response instanceof Promise ? response.then(next, away) : next(response);
}
