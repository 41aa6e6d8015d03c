/** What may be given up while it is waited for. */
import { ProxyError } from "../errors.ts";

/** The part of an AbortSignal that dialling and splicing use: a real one costs more than the rest of a short tunnel. */
export interface AbortSource {
  readonly aborted: boolean;
  addEventListener(
    type: "abort",
    listener: () => void,
    options?: { readonly once?: boolean },
  ): void;
  removeEventListener(type: "abort", listener: () => void): void;
}

/** The fault of what was given up. */
export function cancelled(): ProxyError {
  return new ProxyError("pipeline.cancelled", "the client went away");
}
