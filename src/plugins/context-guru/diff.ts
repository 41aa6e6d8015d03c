/** Unified diffs: what changes is kept, with a line around it. */
import type { Draft } from "./draft.ts";
import type { Lines } from "./lines.ts";

const shownAround = 1;
const shownChanges = 40;
const lastChanges = 5;
/** Files that programs write: that they change is all that is said. */
const generated =
  /(?:^|\/)(?:package-lock\.json|npm-shrinkwrap\.json|yarn\.lock|pnpm-lock\.yaml|bun\.lockb?|go\.sum|Cargo\.lock|poetry\.lock|uv\.lock|Pipfile\.lock|composer\.lock|Gemfile\.lock)$|\.min\.(?:js|css)$|\.map$/;

/** Whether a text has hunks of a unified diff. */
export function isDiff(text: string): boolean {
  const hunk = text.startsWith("@@ -") ? 0 : text.indexOf("\n@@ -");
  return hunk !== -1 && (text.lastIndexOf("+++ ", hunk) !== -1 || text.startsWith("@@ -"));
}

/** Leaves out context, and the middle of long changes. */
export function shortenDiff(lines: Lines, keepChars: number): Draft {
  if (lines.chars > keepChars) leaveOutUnchanged(lines);
  return lines.cutTo(keepChars) ? lines.draft("diff", keepChars) : lines.draft("diff");
}

function leaveOutUnchanged(lines: Lines): void {
  const { all } = lines;
  let isInHunk = false;
  let isGenerated = false;
  for (let at = 0; at < all.length;) {
    const line = all[at] ?? "";
    if (isHead(line)) {
      if (line.startsWith("diff ")) isInHunk = false;
      if (line.startsWith("+++ ")) isGenerated = generated.test(line.slice(4).trim());
      if (line.startsWith("@@ ")) isInHunk = true;
      at += 1;
      continue;
    }
    if (!isInHunk) {
      at += 1;
      continue;
    }
    const end = endOfRun(all, at);
    const isContext = !isChange(line);
    if (isGenerated) lines.leaveOut(at, end);
    else if (isContext) {
      const from = isChange(all[at - 1] ?? "") ? at + shownAround : at;
      const to = isChange(all[end] ?? "") ? end - shownAround : end;
      lines.leaveOut(from, to);
    } else if (end - at > shownChanges) {
      lines.leaveOut(at + shownChanges - lastChanges, end - lastChanges);
    }
    at = end;
  }
}

/** Where lines of one kind (context, or changes) end. */
function endOfRun(all: readonly string[], from: number): number {
  const isContext = !isChange(all[from] ?? "");
  let at = from + 1;
  while (at < all.length && !isHead(all[at] ?? "") && !isChange(all[at] ?? "") === isContext) {
    at += 1;
  }
  return at;
}

function isHead(line: string): boolean {
  return (
    line.startsWith("diff ") ||
    line.startsWith("@@ ") ||
    line.startsWith("+++ ") ||
    line.startsWith("--- ") ||
    line.startsWith("index ")
  );
}

function isChange(line: string): boolean {
  return (line.startsWith("+") || line.startsWith("-")) && !isHead(line);
}
