/**
 * The process that has the terminal while somebody is asked.
 *
 * It belongs to a session of its own: of such a process the terminal does not want to be in the foreground, which may be a
 * shell's that `run` started. The state of the terminal is what it was once this process has ended.
 */
import type { FromPrompt, ToPrompt } from "./prompt-messages.ts";

const maxLine = 200;
const enter = /[\r\n]/;
const erase = new Set(["\b", "\u007f"]);
/** The keys that end other programs: Ctrl-C, Ctrl-D. */
const leave = new Set(["\u0003", "\u0004"]);
const escape = "\u001b";
/** What comes after an escape: keys that send more than a character, and what a terminal says of itself. */
const sequence = /^(?:\[[0-?]*[ -/]*[@-~]|O.|\][^\\]*)?/;

let line = "";
let stopped: readonly number[] = [];
let isShown = false;

function tell(message: FromPrompt): void {
  // `run` may be gone; then there is nobody to tell.
  process.send?.(message, undefined, {}, () => undefined);
}

function type(text: string): void {
  if (!isShown) return;
  const [first = "", ...others] = text.split(escape);
  const keys = first + others.map((rest) => rest.replace(sequence, "")).join("");
  for (const key of keys) {
    if (enter.test(key) || leave.has(key)) {
      const typed = leave.has(key) ? "" : line;
      line = "";
      process.stdout.write("\r\n");
      tell({ kind: "typed", line: typed });
    } else if (erase.has(key)) {
      if (line !== "") process.stdout.write("\b \b");
      line = line.slice(0, -1);
    } else if (/[ -~]/.test(key) && line.length < maxLine) {
      line += key;
      process.stdout.write(key);
    }
  }
}

function finish(): never {
  if (process.stdin.isTTY) process.stdin.setRawMode(false);
  process.exit(0);
}

process.on("message", (message: ToPrompt) => {
  switch (message.kind) {
    case "begin":
      ({ stopped } = message);
      process.stdin.setRawMode(true);
      process.stdin.setEncoding("latin1").on("data", type).on("error", finish).on("end", finish);
      tell({ kind: "ready" });
      break;
    case "show":
      line = "";
      isShown = true;
      process.stdout.write(message.text);
      break;
    case "end":
      process.stdout.write(message.text);
      finish();
  }
});
process.on("disconnect", () => {
  process.stdin.setRawMode(false);
  for (const pid of [...stopped].reverse()) {
    try {
      process.kill(pid, "SIGCONT");
    } catch {
      // It has ended.
    }
  }
  process.exit(1);
});
