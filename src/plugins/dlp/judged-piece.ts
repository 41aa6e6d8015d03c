/** An event of a stream, a whole body of a response, or a message of a WebSocket, and what was found in it. */
import type { Finding } from "../../dlp/detectors.ts";
import {
  type Answer,
  type Decision,
  type Message,
  replaceFrame,
  replaceMessage,
  type RequestContext,
} from "../../pipeline/plugin.ts";
import { jsonOf } from "../../protocols/message-json.ts";
import type { Side } from "./host-plan.ts";
import type { Redaction } from "./redaction.ts";
import type { Placed } from "./request-texts.ts";
import { demandOf, recorded, refusal, unread } from "./verdicts.ts";

/** One of them. */
export interface JudgedPiece {
  /** `said` is a message of the server of a WebSocket. */
  readonly what: "response" | "message" | "said";
  readonly side: Side;
  readonly data: Buffer;
  /** Of a message. */
  readonly kind?: Message["kind"];
  /** Content-Type of a whole body. */
  readonly type?: string;
  readonly whole: readonly Placed[];
  /** Found in this one together with earlier ones, which have gone on. */
  readonly spread: readonly Placed[];
  readonly isCut: boolean;
}

/** A finding in a message. */
export function inMessage(finding: Finding): Placed {
  return { finding, part: "message", shown: "a message of the WebSocket" };
}

/** What its judge has of the plugin. */
interface JudgeParts {
  readonly redaction: Redaction;
  readonly count: (placed: readonly Placed[]) => void;
  readonly tooMuch: (noun: string) => string;
}

/** What becomes of it. */
export function judgePiece(
  context: RequestContext,
  piece: JudgedPiece,
  { redaction, count, tooMuch }: JudgeParts,
): Answer {
  const { what, side, spread, whole, isCut } = piece;
  const noun = what === "said" ? "message" : what;
  if (isCut && side.isEnforced) return unread(what, context, tooMuch(noun));
  const placed = [...spread, ...whole];
  count(placed);
  const demand = demandOf({ placed, isCut }, side);
  if (demand.action === "none") return undefined;
  if (demand.action === "observe") return recorded("found", placed);
  const refuse = (why?: string): Decision => refusal(what, demand, placed, { context, why });
  if (demand.action === "ask" && noun === "message")
    return refuse("nobody is asked about messages");
  // What began in an earlier one is on its way already.
  const isGone = demandOf({ placed: spread, isCut }, side).action === "redact";
  if (demand.action !== "redact" || isGone) return refuse();
  const changed = redacted(piece, redaction);
  if (changed === undefined) return refuse("it cannot be redacted");
  const { details } = recorded("redacted", placed);
  return noun === "message"
    ? replaceMessage("redacted", changed, details)
    : replaceFrame("redacted", changed, details);
}

/** Without what was found; undefined where that cannot be had. */
function redacted(
  { side, data, kind, type }: JudgedPiece,
  redaction: Redaction,
): Buffer | undefined {
  // What is no text may count its bytes.
  const isFixed = kind === "binary" && side.mayChangeLength && jsonOf(data).kind !== "json";
  return isFixed ? undefined : redaction.body(data, type);
}
