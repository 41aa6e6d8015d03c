/** A text that tells its reader to undo a coding, and to do what comes out: what that is need not look like an instruction. */
import type { Findings } from "./findings.ts";
import { Surroundings } from "./surroundings.ts";

const coding =
  "\\b(?:decod\\w{1,4}|decrypt\\w{0,3}|deciphers?|unscrambl\\w{1,3}|(?:en|de)coded|base-?64|rot-?13|hex(?:adecimal)?|backwards)\\b";
const doing =
  "\\b(?:(?:follow|obey|execute|perform|apply|heed|act\\son|comply\\swith|carry\\sout|do)\\s(?:it|them|what(?:ever)?\\s(?:it|they|that|the\\s\\w{1,16})\\s(?:say|ask|tell|contain|read)s?|(?:its|the|those|these|any|all|every)\\s(?:\\w{1,16}\\s){0,3}(?:instruction|order|command|direction|task|step)s?)\\b|carry\\s(?:it|them)\\sout|do\\sas\\s(?:it|they)\\s(?:say|ask|tell)s?)";
const following = new RegExp(`${coding}[^\\n]{0,120}?${doing}`, "gi");
const rotated = /\brot-?13\b/i;
const common = /\b(?:the|and|to|of|you|your|with|all|for|from|when|then)\b/gi;
const leastWords = 5;
const score = 55;

/** Whether it reads like a sentence, and not like a name, a key or a record. */
export function isSentence(text: string): boolean {
  return (text.match(/(?:^|\s)\p{L}{2,}(?=[\s,.!?:;]|$)/gu)?.length ?? 0) >= leastWords;
}

/** `hasSentence`: something in the text decodes to one. */
export function inspectFollowed(
  text: string,
  findings: Findings,
  { hasSentence, isHidden }: { readonly hasSentence: boolean; readonly isHidden: boolean },
): void {
  findings.steps += text.length;
  let around: Surroundings | undefined;
  let isTurned: boolean | undefined;
  for (const found of text.matchAll(following)) {
    if (!hasSentence) {
      if (!rotated.test(found[0])) continue;
      isTurned ??= hasTurnedSentence(text);
      if (!isTurned) return;
    }
    around ??= new Surroundings(text, isHidden);
    findings.add("encoded_instruction", score * around.factorAt(found.index));
  }
}

/** Common words are those of a line that was turned by thirteen letters, and not of the line as it is. */
function hasTurnedSentence(text: string): boolean {
  return text.split("\n").some((line) => {
    const turned = turnedText(line);
    const there = turned.match(common)?.length ?? 0;
    return there >= 2 && there > (line.match(common)?.length ?? 0) && isSentence(turned);
  });
}

/** Each letter by thirteen. */
export function turnedText(text: string): string {
  return text.replaceAll(/[a-z]/gi, (letter) => {
    const code = letter.charCodeAt(0);
    const base = code >= 97 ? 97 : 65;
    return String.fromCharCode(((code - base + 13) % 26) + base);
  });
}
