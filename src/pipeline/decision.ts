/**
 * The verdict of a plugin on a message: an action with a reason, and for a refusal the denial for the client.
 *
 * The record of a step is its Decision; nothing is written down twice.
 */
import { isErrorCode, statusOfCode } from "../errors.ts";

/** Fields of a response; one with several values, such as Set-Cookie, has a line for each. */
export type ReplyFields = Readonly<Record<string, string | readonly string[]>>;

/** What the client of a refused message gets. Everything here may leave the process. */
export interface Denial {
  /** Dotted lower-case code, e.g. `policy.forbidden`; clients match on it. */
  readonly code: string;
  readonly message: string;
  /** HTTP status; when absent the table of errors.ts decides (500 for an unknown code). */
  readonly status?: number;
  /**
   * True where the message is refused because the check could not be made: what it depends on failed. When absent, a
   * status of 5xx, or a code that has one, says so.
   */
  readonly unavailable?: boolean;
  readonly description?: string;
  readonly details?: Readonly<Record<string, unknown>>;
  /** Extra fields of the response, e.g. `WWW-Authenticate`. */
  readonly headers?: ReplyFields | undefined;
  /** The whole response, where a service that refused has written it; nothing else is then shown to the client. */
  readonly reply?: Reply;
  /** The plugin that refused; set by the pipeline. */
  readonly plugin?: string;
  /** The rule of the file that refused. */
  readonly rule?: string | undefined;
  /** The question to a person on which the message depends, and where its state can be asked for. */
  readonly approval?: { readonly id: string; readonly poll?: string | undefined };
  /** Present when the refused message is JSON-RPC: its sender gets an error of JSON-RPC, in both directions. */
  readonly rpc?: RpcRefusal;
}

/** The form of a refusal for a client that speaks JSON-RPC. */
export interface RpcRefusal {
  /** The ids of the refused calls, with their types: one, or those of a batch. Without any the plain form is used. */
  readonly ids: readonly (string | number | null)[];
  readonly isBatch?: boolean;
  /** Code of the error object; -32000 when absent. */
  readonly code?: number;
  /** HTTP status; 200 when absent, because that is what clients show to the model. */
  readonly status?: number;
}

/** A whole response made by a plugin instead of the upstream. */
export interface Reply {
  readonly status: number;
  /** The reason phrase of HTTP/1, where it is not the standard one. */
  readonly reason?: string;
  readonly headers: ReplyFields;
  readonly body: Buffer;
}

/** Facts for the record of a step; they are shown to operators and never to the client. */
export type DecisionDetails = Readonly<Record<string, string | number | boolean>>;

interface Said {
  /** Snake-case word that names why, e.g. `path_bypass`. */
  readonly reason: string;
  /** Snake-case word that is finer than the reason, e.g. `issuer_mismatch`; one of a closed set, as the reason is. */
  readonly cause?: string;
  readonly details?: DecisionDetails;
}

/** An event of a stream that a plugin writes. */
export interface WrittenFrame {
  readonly event?: string | undefined;
  readonly data: Buffer;
}

/** What becomes of a frame that was judged, where it is not forwarded as it came. */
export type FrameChange =
  /** It is forwarded with this data; without data, not at all. */
  | ReplacedFrame
  /** It is kept back until a later frame is forwarded, and goes in front of that. */
  | { readonly isHeld: true }
  /** These are forwarded in place of it and of every frame that is kept back. */
  | { readonly instead: readonly WrittenFrame[] };

/** What one step decided. */
export type Decision =
  | (Said & { readonly action: "allow" | "observe" })
  | (Said & {
      readonly action: "modify";
      readonly frame?: FrameChange;
      /** What is forwarded in place of a message's data. */
      readonly message?: Buffer;
    })
  /** `exempt` is a skip that the operator wrote in the file, which counts as consent where the default is deny. */
  | (Said & { readonly action: "skip"; readonly exempt?: true })
  | (Said & { readonly action: "deny"; readonly denial: Denial })
  | (Said & { readonly action: "respond"; readonly reply: Reply });

/** The phases in which a plugin can be asked. */
export type Phase = "request" | "response";

/** The record of one step of one message, in the shape of the session API. */
export interface Invocation {
  readonly plugin: string;
  readonly action: "allow" | "deny" | "skip" | "modify" | "observe";
  readonly phase: Phase;
  readonly reason: string;
  readonly cause?: string | undefined;
  readonly path?: string | undefined;
  readonly details?: DecisionDetails | undefined;
  /** True when the step is under `on_error: observe` and would have refused. */
  readonly shadow?: true | undefined;
}

/** A reason, with a finer word where there is one. */
type Why = string | { readonly reason: string; readonly cause: string };

/** Whether a plugin refused because its check failed, and not because of its verdict. */
export function isUnavailable({ plugin, code, status, unavailable }: Denial): boolean {
  if (plugin === undefined) return false;
  if (unavailable !== undefined) return unavailable;
  // An undeclared code is 500 on the wire, which does not mean that the check failed.
  return (status ?? (isErrorCode(code) ? statusOfCode(code) : 0)) >= 500;
}

/** The record of the step that made this refusal; undefined for one that no plugin made. */
export function refusingStep(
  invocations: readonly Invocation[],
  { plugin }: Denial,
): Invocation | undefined {
  if (plugin === undefined) return undefined;
  return invocations.findLast(
    (step) => step.plugin === plugin && step.action === "deny" && step.shadow !== true,
  );
}

function said(why: Why, details: DecisionDetails | undefined): Said {
  const words = typeof why === "string" ? { reason: why } : why;
  return details === undefined ? words : { ...words, details };
}

/** The message may be forwarded: this plugin has judged and permitted it. */
export function allow(reason: string, details?: DecisionDetails): Decision {
  return { action: "allow", ...said(reason, details) };
}

/** This plugin has no verdict on the message. */
export function skip(reason: string, details?: DecisionDetails): Decision {
  return { action: "skip", ...said(reason, details) };
}

/** The file exempts this message from what the plugin checks, by a word such as `bypass_paths`. */
export function exempt(reason: string, details?: DecisionDetails): Decision {
  return { action: "skip", exempt: true, ...said(reason, details) };
}

/** This plugin read the message and recorded something. */
export function observe(reason: string, details?: DecisionDetails): Decision {
  return { action: "observe", ...said(reason, details) };
}

/** This plugin changed the message, which may be forwarded. */
export function modify(reason: string, details?: DecisionDetails): Decision {
  return { action: "modify", ...said(reason, details) };
}

/** The frame is forwarded with this data, or dropped (`undefined`), and the stream continues. */
export function replaceFrame(
  reason: string,
  data: Buffer | undefined,
  details?: DecisionDetails,
): Decision {
  return { action: "modify", frame: { data }, ...said(reason, details) };
}

/** The frame is kept back: whether it is forwarded depends on what follows. No record is made of it. */
export const holdFrame: Decision = Object.freeze({
  action: "modify",
  reason: "held",
  frame: Object.freeze({ isHeld: true as const }),
});

/** These frames are forwarded in place of this one and of those that are kept back. */
export function replaceHeld(
  reason: string,
  instead: readonly WrittenFrame[],
  details?: DecisionDetails,
): Decision {
  return { action: "modify", frame: { instead }, ...said(reason, details) };
}

/** The message of a WebSocket is forwarded with this data. */
export function replaceMessage(
  reason: string,
  message: Buffer,
  details?: DecisionDetails,
): Decision {
  return { action: "modify", message, ...said(reason, details) };
}

/** The message is refused; `denial` is what the client gets. */
export function deny(why: Why, denial: Denial, details?: DecisionDetails): Decision {
  return { action: "deny", denial, ...said(why, details) };
}

/** The plugin responds to the message, which is not forwarded. */
export function respond(reason: string, reply: Reply, details?: DecisionDetails): Decision {
  return { action: "respond", reply, ...said(reason, details) };
}

/** Whether a step consented to the message, as a default of deny requires. */
export function consents(decision: Decision): boolean {
  if (decision.action === "skip") return decision.exempt === true;
  return decision.action === "allow" || decision.action === "modify";
}

/** The verdict of a pipeline on a response or on a frame, with everything that steps make of the frame. */
export type ResponseVerdict =
  | {
      readonly kind: "pass";
      readonly frame?: ReplacedFrame;
      readonly instead?: readonly WrittenFrame[];
      readonly isHeld?: true;
    }
  | Refusal;

/** The response or frame is forwarded as it is. */
export const passed = Object.freeze({ kind: "pass" as const });

/** What the client of a message that is not forwarded gets. */
export type Refusal =
  | { readonly kind: "denial"; readonly denial: Denial }
  | { readonly kind: "reply"; readonly reply: Reply };

/** What is forwarded in place of a frame's data; without data the frame is not forwarded. */
export interface ReplacedFrame {
  readonly data: Buffer | undefined;
}
