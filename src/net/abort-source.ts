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
