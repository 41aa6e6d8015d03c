/** What a chain says of an answer or of a frame of one. */
import type { Denial, Reply } from "./decision.ts";

/** What a pipeline says of a response or of a frame; `frame` is what a frame was replaced by. */
export type ResponseVerdict =
  | { readonly pass: true; readonly frame?: ReplacedFrame }
  | { readonly denial: Denial }
  | { readonly reply: Reply };

/** What is forwarded in place of a frame's data; without data the frame is not forwarded. */
export interface ReplacedFrame {
  readonly data: Buffer | undefined;
}
