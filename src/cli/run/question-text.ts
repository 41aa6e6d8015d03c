/** How a question looks in a terminal, and what the words mean that are typed. */
import { randomInt } from "node:crypto";
import { shownText } from "../../approval/visible.ts";
import type { Ask } from "../../approval/told.ts";

/** What else is said with a question. */
export interface QuestionNotes {
  /** What has to be typed to allow. */
  readonly word: string;
  /** What stands still meanwhile. */
  readonly command: string;
  /** How many more wait behind it. */
  readonly others: number;
  /** The command by which it can be decided elsewhere. */
  readonly elsewhere: string | undefined;
}

/** What was typed. */
export type Typed =
  | {
      readonly kind: "order";
      readonly decision: "allow" | "deny";
      readonly scope: string;
      readonly duration: string;
      readonly reason: string;
    }
  | { readonly kind: "later" }
  | { readonly kind: "nothing" };

/** No letter or digit of these looks like another. */
const alphabet = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
const wordLength = 4;

/**
 * A word that only those know who read the terminal: a command that types into its own terminal would have to guess it, and
 * what was typed for the command is no decision.
 */
export function newWord(): string {
  return Array.from({ length: wordLength }, () => alphabet[randomInt(alphabet.length)]).join("");
}

const maxLine = 600;

/**
 * Ends a control sequence that the command has begun, then undoes what would hide text: colours, other alphabets, a part of
 * the screen that scrolls alone, lines that do not wrap, a cursor that is not seen.
 */
const legible =
  "\u0018\u001b\\\u001b[0m\u001b(B\u000f\u001b7\u001b[r\u001b[?6l\u001b8\u001b[?7h\u001b[4l\u001b[?25h";

/** The question, with `\r\n` because the terminal is in the state in which the command left it. */
export function questionText(
  ask: Ask,
  { word, command, others, elsewhere }: QuestionNotes,
): string {
  const { request, rule, plugin, why, expiresAt } = ask;
  const { method, scheme, host, port, path, caller, subject, upgrade } = request;
  const { tool, bodyBytes, bodySha256 } = request;
  const rows: readonly (readonly [string, string | undefined])[] = [
    ["request", `${method} ${scheme}://${host}:${port}${path}`],
    ["changes to", upgrade],
    ["tool", tool],
    ["arguments", tool === undefined ? undefined : (request.arguments ?? "")],
    ["body", bodyBytes === undefined ? undefined : `${bodyBytes} bytes, SHA-256 ${bodySha256}`],
    ["caller", subject === undefined ? caller : `${caller}, subject ${subject}`],
    ["why", why],
    ["rule", rule === undefined ? plugin : `${plugin}: ${rule}`],
    ["open until", new Date(expiresAt).toISOString()],
  ];
  const shown = rows.flatMap(([name, text]) =>
    text === undefined ? [] : [`  ${name.padEnd(10)} ${shownText(text, maxLine)}`],
  );
  const lines = [
    "",
    `---- authbridge-proxy: an approval is needed${others > 0 ? ` (${others} more wait)` : ""}`,
    ...shown,
    `  ${shownText(command, 40)} stands still meanwhile. Type`,
    `  ${word}      to allow it once`,
    `  ${word} s    to allow it until this run ends, or its session`,
    `  ${word} 15m  to allow it for a time`,
    `  ${word} p    to allow it once and see the policy line that would always allow it`,
    "  no        to refuse; words after it are the reason",
    ...(elsewhere === undefined ? [] : [`  later     to decide with: ${elsewhere}`]),
    "",
  ];
  return `${legible}${lines.join("\r\n")}${asking}`;
}

/** The beginning of the line that is typed. */
export const asking = "approve? ";

/** Understands a line; the case of its letters does not matter. */
export function typedIn(line: string, word: string): Typed {
  const [first = "", ...rest] = line.trim().split(/\s+/);
  const order = { kind: "order", scope: "once", duration: "", reason: "" } as const;
  if (/^(?:no|n|deny)$/i.test(first)) return { ...order, decision: "deny", reason: rest.join(" ") };
  if (/^later$/i.test(first) && rest.length === 0) return { kind: "later" };
  const [how = "", more] = rest;
  if (first.toUpperCase() !== word || more !== undefined) return { kind: "nothing" };
  const allowed = { ...order, decision: "allow" } as const;
  if (how === "") return allowed;
  if (/^s(?:ession)?$/i.test(how)) return { ...allowed, scope: "session" };
  if (/^p(?:olicy)?$/i.test(how)) return { ...allowed, scope: "policy" };
  return /^\d/.test(how) ? { ...allowed, scope: "duration", duration: how } : { kind: "nothing" };
}
