/**
 * Instructions to a model, as combinations of words within a few words of each other. None of them is proof: what a text
 * says about instructions, quotes or lists counts less than what it says to whoever reads it.
 */
import type { Findings, SignalName } from "./findings.ts";
import { Surroundings } from "./surroundings.ts";
import { forms, type PhraseRule, rules, spaceless } from "./phrase-rules.ts";
import { classesOf, cls } from "./vocabulary.ts";
import { type Word, wordsOf } from "./words.ts";

/** One word as rules see it. */
interface Seen {
  readonly bits: number;
  readonly start: number;
  readonly isDisguised: boolean;
  /** A sentence ends in front of it. */
  readonly opens: boolean;
  /** What stands in front of it is another thought. */
  readonly isCut: boolean;
  /** It is a part of a path or a name. */
  readonly isGlued: boolean;
}

const anchors = rules.reduce((bits, { anchor }) => bits | anchor, 0);
const sentenceStart = /[.!?:;。！？\n]/;
/** A line may end anywhere. */
const sentenceEnd = /[.!?;。！？]|\n\s*\n/;
const longestRule = 16;

/** How the words of a text are taken. */
export interface PhraseTerms {
  /** Nobody sees the text: that it is quoted or about instructions is no excuse. */
  readonly isHidden?: boolean;
}

/** The signals that the words of the text are. */
export function inspectPhrases(
  text: string,
  findings: Findings,
  { isHidden = false }: PhraseTerms = {},
): void {
  const around = new Surroundings(text, isHidden);
  const hits = new Windows(around);
  findings.steps += text.length;
  const recent: Seen[] = [];
  let before = 0;
  const spread = new SpreadLetters();
  for (const word of wordsOf(text)) {
    findings.steps += 1;
    const joined = spread.take(word, text);
    if (joined !== undefined) see(joined, recent, text.slice(before, joined.start));
    see(word, recent, before === 0 ? "\n" : text.slice(before, Math.min(word.start, before + 8)));
    before = word.end;
    if (recent.length > 256) judgeAll(recent, hits, findings, longestRule);
  }
  const last = spread.end();
  if (last !== undefined) see(last, recent, " ");
  judgeAll(recent, hits, findings, 0);
  for (const [name, pattern, score] of [...forms, ...spaceless]) {
    findings.steps += text.length;
    for (const found of text.matchAll(pattern)) hits.add(name, found.index, score);
  }
  hits.report(findings);
}

function see(word: Word, recent: Seen[], gap: string): void {
  const { start, isDisguised } = word;
  // One letter says nothing; letters that stand apart come as the word that they spell.
  if (word.text.length === 1 && word.text <= "z") return;
  const bits = classesOf(word.text);
  recent.push({
    bits,
    start,
    isDisguised: isDisguised && bits !== 0,
    opens: sentenceStart.test(gap),
    isCut: sentenceEnd.test(gap),
    isGlued: /^[-/_.\\]$/.test(gap),
  });
}

/** Judges the words that have enough others behind them, and forgets those that no rule reaches back to. */
function judgeAll(recent: Seen[], hits: Windows, findings: Findings, keep: number): void {
  const end = recent.length - keep;
  for (let at = hits.from; at < end; at += 1) {
    const word = recent[at];
    if (word === undefined || (word.bits & anchors) === 0) continue;
    for (const rule of rules) {
      if ((word.bits & rule.anchor) === 0) continue;
      findings.steps += rule.within;
      judge(rule, recent, at, hits);
    }
  }
  const gone = Math.max(0, end - longestRule);
  recent.splice(0, gone);
  hits.from = Math.max(0, end - gone);
}

function judge(rule: PhraseRule, recent: readonly Seen[], at: number, hits: Windows): void {
  const anchor = recent[at];
  if (anchor === undefined || (rule.opening === true && !anchor.opens)) return;
  if (anchor.isGlued || recent[at + 1]?.isGlued === true) return;
  const reached = reachedBy(rule, recent, at);
  if (reached === undefined) return;
  const said = anchor.opens ? 1 : mentionOf(recent[at - 1]?.bits ?? 0);
  const isDisguised = (reached.isDisguised || anchor.isDisguised) && rule.score >= 15;
  hits.add(rule.name, anchor.start, rule.score * said * owned(rule, reached.bits), isDisguised);
}

/** What the words near the anchor do, up to the one that completes the combination; undefined where none does. */
function reachedBy(
  { needs, within, backwards }: PhraseRule,
  recent: readonly Seen[],
  at: number,
): { readonly bits: number; readonly isDisguised: boolean } | undefined {
  const step = backwards === true ? -1 : 1;
  let bits = 0;
  let isDisguised = false;
  if (needs.length === 0) return { bits, isDisguised };
  for (let far = 1; far <= within; far += 1) {
    const word = recent[at + step * far];
    if (word === undefined) return undefined;
    // A sentence ends between the two.
    const isCut = step === 1 ? word.isCut && far > 1 && within < 9 : recent[at - far + 1]?.isCut;
    if (isCut === true) return undefined;
    bits |= word.bits;
    isDisguised ||= word.isDisguised && needs.some((need) => (word.bits & need) !== 0);
    if (needs.every((need) => (bits & need) !== 0)) return { bits, isDisguised };
  }
  return undefined;
}

/** What is said about an instruction is none: "to ignore", "never ignore". */
function mentionOf(bits: number): number {
  if ((bits & cls.not) !== 0) return 0.2;
  return (bits & cls.mention) === 0 || (bits & cls.must) !== 0 ? 1 : 0.5;
}

/** People tell each other to ignore their own, or certain, instructions. */
function owned(rule: PhraseRule, bits: number): number {
  if (rule.name !== "override") return 1;
  if ((bits & cls.my) !== 0) return 0.5;
  if ((bits & cls.all) !== 0) return 1.1;
  return (bits & cls.the) === 0 ? 1 : 0.8;
}

/** `i g n o r e`: letters that stand alone, one after the other, with the same between them. */
class SpreadLetters {
  #letters = "";
  #start = 0;
  #end = 0;
  #gap = "";

  take(word: Word, text: string): Word | undefined {
    const isLetter = word.text.length === 1 && /[a-z]/.test(word.text);
    const gap = text.slice(this.#end, Math.min(word.start, this.#end + 3));
    const isNext = isLetter && this.#letters !== "" && gap.length === 1;
    const goesOn = isNext && (this.#letters.length === 1 || gap === this.#gap);
    const ended = goesOn ? undefined : this.end();
    if (isLetter) {
      if (!goesOn) this.#start = word.start;
      this.#gap = gap;
      if (this.#letters.length < 64) this.#letters += word.text;
    }
    this.#end = word.end;
    return ended;
  }

  end(): Word | undefined {
    const text = this.#letters;
    this.#letters = "";
    if (text.length < 3) return undefined;
    return { text, start: this.#start, end: this.#end, isDisguised: true };
  }
}

interface Hit {
  readonly name: SignalName;
  readonly at: number;
  readonly score: number;
}

const windowChars = 1_200;

/** Instructions stand together: the heaviest stretch of a text counts, and not all of it. */
class Windows {
  /** The first word that was not judged. */
  from = 0;
  readonly #around: Surroundings;
  readonly #hits: Hit[] = [];
  #isDisguised = false;

  constructor(around: Surroundings) {
    this.#around = around;
  }

  add(name: SignalName, at: number, score: number, isDisguised = false): void {
    this.#isDisguised ||= isDisguised;
    // What is disguised is not quoted from anybody.
    this.#hits.push({ name, at, score: isDisguised ? score : score * this.#around.factorAt(at) });
  }

  report(findings: Findings): void {
    let best: ReadonlyMap<SignalName, number> = new Map();
    let bestSum = 0;
    const buckets = new Map<number, Map<SignalName, number>>();
    for (const { name, at, score } of this.#hits) {
      // Two rows of stretches that overlap by half: what stands together is together in one of them.
      for (const key of [
        Math.floor(at / windowChars) * 2,
        Math.floor(at / windowChars + 0.5) * 2 - 1,
      ]) {
        const bucket = buckets.get(key) ?? new Map<SignalName, number>();
        if (score > (bucket.get(name) ?? 0)) bucket.set(name, score);
        buckets.set(key, bucket);
      }
    }
    for (const bucket of buckets.values()) {
      let sum = 0;
      for (const score of bucket.values()) sum += score;
      if (sum > bestSum) [best, bestSum] = [bucket, sum];
    }
    findings.steps += this.#hits.length;
    for (const [name, score] of best) findings.add(name, score);
    if (this.#isDisguised) findings.add("obfuscated", 40);
  }
}
