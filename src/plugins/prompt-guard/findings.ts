/** What was found in a text, and how much it counts. */

/** What a signal is called; the closed set that `weights`, records and metrics know. */
export const signalNames = [
  "override",
  "secrecy",
  "exfiltration",
  "reveal",
  "role",
  "address",
  "authority",
  "tool_call",
  "sensitive",
  "mandate",
  "output",
  "obfuscated",
  "hidden_instruction",
  "attribute_instruction",
  "unicode_tags",
  "variation_selectors",
  "zero_width",
  "bidi",
  "homoglyphs",
  "link_exfiltration",
  "tag_smuggling",
  "encoded_instruction",
  "tool_changed",
  "classifier",
] as const;

/** One of {@link signalNames}. */
export type SignalName = (typeof signalNames)[number];

/** How much each signal counts, where that is not once. */
export type Weights = Readonly<Partial<Record<SignalName, number>>>;

/** The signals of one text. Each counts once, with the highest score that it was found with. */
export class Findings {
  readonly #scores = new Map<SignalName, number>();
  readonly #weights: Weights;
  /** What was looked at, in units that are each of a bounded cost. */
  steps = 0;

  constructor(weights: Weights = {}) {
    this.#weights = weights;
  }

  add(name: SignalName, score: number): void {
    const weighed = score * (this.#weights[name] ?? 1);
    if (weighed > (this.#scores.get(name) ?? 0)) this.#scores.set(name, weighed);
  }

  /** Takes over what others have found, which is weighed already. */
  addAll(others: Findings): void {
    this.steps += others.steps;
    for (const [name, score] of others.#scores) {
      if (score > (this.#scores.get(name) ?? 0)) this.#scores.set(name, score);
    }
  }

  /** From 0 to 100. */
  get score(): number {
    let sum = 0;
    for (const score of this.#scores.values()) sum += score;
    return Math.min(100, Math.round(sum));
  }

  /** The signals, the heaviest first. */
  get names(): readonly SignalName[] {
    return [...this.#scores].sort(([, a], [, b]) => b - a).map(([name]) => name);
  }
}
