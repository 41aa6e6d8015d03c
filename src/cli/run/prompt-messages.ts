/** What `run` and the process that has the terminal tell each other over their channel. */

/** To the terminal: once, before everything else; then texts, until the last. */
export type ToPrompt =
  /** The processes that go on by themselves where `run` is gone, the first one first. */
  | { readonly kind: "begin"; readonly stopped: readonly number[] }
  /** What was typed before is forgotten. */
  | { readonly kind: "show"; readonly text: string }
  | { readonly kind: "end"; readonly text: string };

/** From the terminal. */
export type FromPrompt =
  { readonly kind: "ready" } | { readonly kind: "typed"; readonly line: string };
