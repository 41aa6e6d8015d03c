/** Looks at one text with every detector. Pure, bounded, in time that is linear in the text. */
import { decodedTexts } from "./encodings.ts";
import { Findings, type Weights } from "./findings.ts";
import { inspectFollowed, isSentence } from "./followed.ts";
import { hasTags, type HiddenPart, readPage } from "./html-parts.ts";
import { inspectInvisible } from "./invisible.ts";
import { inspectImage, inspectLinks } from "./links.ts";
import { inspectPhrases } from "./phrases.ts";
import { inspectTags } from "./smuggled-tags.ts";
import { isMixedWord } from "./words.ts";

/** What kind of text it is. */
export type TextKind = "html" | "text";

/** How a text is looked at. */
export interface ScanTerms {
  readonly kind: TextKind;
  readonly weights?: Weights;
}

const maxDepth = 3;
/** Less than this, what the words of a part say is no instruction. */
const leastInstruction = 25;
/** Programs have words of this kind in their comments. */
const leastInScript = 45;
const hiddenScores: Readonly<Record<HiddenPart["kind"], number>> = {
  element: 40,
  comment: 30,
  attribute: 25,
  script: 15,
};

/** Longer texts are looked at in stretches, with others served in between. */
const stretchChars = 65_536;
/** Stretches overlap by this much: no instruction is longer. */
const overlapChars = 2_048;
const partsAtOnce = 64;

/** What tries to instruct a model in this text. Of a long one, what its worst stretch says, and all that is hidden in it. */
export async function scanText(text: string, { kind, weights }: ScanTerms): Promise<Findings> {
  const findings = new Findings(weights);
  const page = kind === "html" || hasTags(text) ? readPage(text) : undefined;
  findings.steps += page?.steps ?? 0;
  const seen = kind === "html" ? (page?.visible ?? "") : text;
  findings.addAll(await worstStretch(seen, weights));
  for await (const { url } of inTurn(page?.images ?? [])) inspectImage(url, findings);
  for await (const stretch of stretchesOf(text)) {
    inspectLinks(stretch, findings);
    if (kind === "html") inspectTags(stretch, findings);
  }
  if (!(await inspectHiddenParts(page?.hidden ?? [], findings))) return findings;
  // What the page says of what an attribute in it brings along.
  for await (const stretch of stretchesOf(seen)) {
    inspectFollowed(stretch, findings, { hasSentence: true, isHidden: false });
  }
  return findings;
}

/** True where something in an attribute decodes to a sentence. */
async function inspectHiddenParts(
  parts: readonly HiddenPart[],
  findings: Findings,
): Promise<boolean> {
  let isCarrying = false;
  for await (const part of inTurn(parts)) {
    for await (const text of stretchesOf(part.text)) {
      const hasSentence = inspectHidden({ ...part, text }, findings);
      isCarrying ||= hasSentence && part.kind === "attribute";
    }
  }
  return isCarrying;
}

async function worstStretch(text: string, weights: Weights | undefined): Promise<Findings> {
  let worst = new Findings(weights);
  let steps = 0;
  for await (const stretch of stretchesOf(text)) {
    const found = new Findings(weights);
    inspectSeen(stretch, found, 0);
    steps += found.steps;
    if (found.score > worst.score) worst = found;
  }
  worst.steps = steps;
  return worst;
}

async function* stretchesOf(text: string): AsyncGenerator<string, void> {
  for (let at = 0; at === 0 || at + overlapChars < text.length; at += stretchChars - overlapChars) {
    if (at > 0) await othersFirst();
    yield text.slice(at, at + stretchChars);
  }
}

async function* inTurn<T>(parts: readonly T[]): AsyncGenerator<T, void> {
  for (const [at, part] of parts.entries()) {
    if (at % partsAtOnce === partsAtOnce - 1) await othersFirst();
    yield part;
  }
}

function othersFirst(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** A text that its reader sees, and the texts inside it. */
function inspectSeen(text: string, findings: Findings, depth: number): void {
  for (const spelled of inspectInvisible(text, findings)) {
    const inside = new Findings();
    inspectPhrases(spelled, inside, { isHidden: true });
    findings.steps += inside.steps;
    if (inside.score >= leastInstruction) findings.add("obfuscated", 40);
  }
  inspectPhrases(text, findings);
  inspectTags(text, findings);
  inspectMixedWords(text, findings);
  inspectFollowed(text, findings, {
    hasSentence: inspectEncoded(text, findings, depth),
    isHidden: false,
  });
}

/** True where something in it decodes to a sentence. */
function inspectEncoded(text: string, findings: Findings, depth: number): boolean {
  findings.steps += text.length;
  let hasSentence = false;
  if (depth >= maxDepth) return hasSentence;
  for (const decoded of decodedTexts(text)) {
    hasSentence ||= isSentence(decoded);
    const inside = new Findings();
    inspectPhrases(decoded, inside, { isHidden: true });
    inspectTags(decoded, inside);
    if (inspectEncoded(decoded, inside, depth + 1)) hasSentence = true;
    findings.steps += inside.steps;
    // Of a text that was turned as a whole, what it said before is known.
    if (inside.score >= leastInstruction) {
      findings.add("encoded_instruction", Math.min(80, 20 + inside.score));
    }
  }
  return hasSentence;
}

/** True where something in it decodes to a sentence. */
function inspectHidden({ kind, text }: HiddenPart, findings: Findings): boolean {
  const inside = new Findings();
  inspectPhrases(text, inside, { isHidden: kind !== "script" });
  for (const _spelled of inspectInvisible(text, inside)) inside.add("obfuscated", 20);
  if (kind !== "script") inspectTags(text, inside);
  const hasSentence = inspectEncoded(text, inside, maxDepth - 2);
  if (kind !== "script") inspectFollowed(text, inside, { hasSentence, isHidden: true });
  findings.steps += inside.steps;
  const { score } = inside;
  if (score < (kind === "script" ? leastInScript : leastInstruction)) return hasSentence;
  const name = kind === "attribute" ? "attribute_instruction" : "hidden_instruction";
  findings.add(name, Math.min(90, hiddenScores[kind] + score));
  return hasSentence;
}

function inspectMixedWords(text: string, findings: Findings): void {
  findings.steps += text.length;
  if (!/[\u{370}-\u{58f}]/u.test(text)) return;
  let count = 0;
  for (const [word] of text.matchAll(/[a-z\u{370}-\u{58f}]{4,32}/giu)) {
    if (isMixedWord(word)) count += 1;
  }
  if (count >= 3) findings.add("homoglyphs", count >= 6 ? 50 : 25);
}
