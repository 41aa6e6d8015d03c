/** Walks through what was learned with whoever sits at the terminal: accept, narrow, drop. */
import { createInterface } from "node:readline";
import { printableLine } from "../event-line.ts";
import type { Learned, LearnedEndpoint, LearnedRule } from "./learned-entries.ts";
import { ruleLine } from "./policy-text.ts";

type Word = "accept" | "narrow" | "drop" | "rest" | "quit";

const words: Readonly<Record<string, Word>> = {
  a: "accept",
  n: "narrow",
  d: "drop",
  s: "rest",
  q: "quit",
};

/** Undefined where the reviewer left before the end: nothing is to be written then. */
export async function reviewed(learned: Learned, ask: Ask): Promise<Learned | undefined> {
  const review = new Review(ask);
  const entries = [];
  for (const entry of learned.entries) {
    const endpoints: LearnedEndpoint[] = [];
    for (const endpoint of entry.endpoints) {
      const kept = await review.endpoint(endpoint);
      if (kept === "quit") return undefined;
      if (kept !== undefined) endpoints.push(kept);
    }
    if (endpoints.length > 0) entries.push({ ...entry, endpoints });
  }
  return { ...learned, entries };
}

/** Shows a question and resolves with the line that was typed, undefined when there are no more. */
export type Ask = (question: string) => Promise<string | undefined>;

class Review {
  readonly #ask: Ask;
  #acceptsAll = false;

  constructor(ask: Ask) {
    this.#ask = ask;
  }

  async endpoint(endpoint: LearnedEndpoint): Promise<LearnedEndpoint | "quit" | undefined> {
    const { host, port, rules, notes } = endpoint;
    const place = `${host}:${port}`;
    if (rules.length === 0) {
      const word = await this.#word(`${place}  the whole host`, notes, false);
      return word === "quit" ? word : word === "drop" ? undefined : endpoint;
    }
    const kept: LearnedRule[] = [];
    for (const rule of rules) {
      const { allow, exact, notes: own } = rule;
      const word = await this.#word(
        `${place}  ${ruleLine(allow)}`,
        [...notes, ...own],
        exact !== undefined,
      );
      if (word === "quit") return word;
      if (word === "narrow")
        kept.push(...(exact ?? [allow]).map((one) => ({ allow: one, notes: own })));
      else if (word !== "drop") kept.push(rule);
    }
    return kept.length === 0 ? undefined : { ...endpoint, rules: kept };
  }

  async #word(item: string, notes: readonly string[], canNarrow: boolean): Promise<Word> {
    if (this.#acceptsAll) return "accept";
    const narrow = canNarrow ? ", [n]arrow to what was seen" : "";
    const about = [item, ...notes.map((note) => `    ${note}`)].map(printableLine);
    for (;;) {
      const answer = await this.#ask(
        `${about.join("\n")}\n  [a]ccept${narrow}, [d]rop, accept the re[s]t, [q]uit without writing? `,
      );
      if (answer === undefined) return "quit";
      const word = words[answer.trim().toLowerCase().slice(0, 1)];
      if (word === undefined || (word === "narrow" && !canNarrow)) continue;
      if (word === "rest") this.#acceptsAll = true;
      return word;
    }
  }
}

/** Questions on stderr, answers from stdin. */
export function askOnTerminal(): { readonly ask: Ask; close(): void } {
  const lines = createInterface({ input: process.stdin, terminal: false });
  const iterator = lines[Symbol.asyncIterator]();
  return {
    ask: async (question) => {
      process.stderr.write(question);
      const next = await iterator.next();
      if (next.done === true) process.stderr.write("\n");
      return next.done === true ? undefined : next.value;
    },
    close: () => lines.close(),
  };
}
