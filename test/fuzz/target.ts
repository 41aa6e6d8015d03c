/** One reader of bytes that others send, and what has to hold for whatever it is given. */
import type { Dice } from "../support/mutation.ts";

/** What one input came to. */
export interface Finding {
  /** In a word that tells inputs of one kind from another. */
  readonly outcome: string;
  /** What is wrong, if anything is. */
  readonly problem?: string | undefined;
}

/** A reader under test. */
export interface Target {
  /** In kebab-case; its kept inputs are in test/fixtures/fuzz/NAME.json. */
  readonly name: string;
  /** Parts of the paths of the files whose code inputs are kept for reaching. */
  readonly covers: readonly string[];
  /** Good inputs and bad ones. */
  readonly seeds: readonly Buffer[];
  /** What is put into inputs, in Latin-1. */
  readonly words: readonly string[];
  /** Must not reject: whatever is thrown is a find. */
  check(bytes: Buffer, dice: Dice): Finding | Promise<Finding>;
}

/** Texts in UTF-8 as inputs. */
export function texts(...list: readonly string[]): Buffer[] {
  return list.map((text) => Buffer.from(text));
}

/** What a call comes to: its value, or the message of an error of a class that it may throw. Others are passed on. */
export function caught<Value>(
  read: () => Value,
  ...expected: readonly (new (...values: never[]) => Error)[]
): { readonly value: Value } | { readonly refusal: string } {
  try {
    return { value: read() };
  } catch (error) {
    if (error instanceof Error && expected.some((type) => error.constructor === type))
      return { refusal: error.message };
    throw error;
  }
}

/** What a reader of a stream found before it refused; another cut of the network may let it find more or less. */
export interface Found {
  readonly items: readonly unknown[];
  readonly isRefused: boolean;
}

/** The same for a stream, of which a refusal may hide what came in one piece with the reason for it. */
export function streamProblem(whole: Found, parts: Found): string | undefined {
  if (!whole.isRefused || !parts.isRefused) return splitProblem(whole, parts);
  const length = Math.min(whole.items.length, parts.items.length);
  return splitProblem(whole.items.slice(0, length), parts.items.slice(0, length));
}

/** Whether a reader says the same of bytes that come in pieces as of the whole. */
export function splitProblem(whole: unknown, parts: unknown): string | undefined {
  const [one, other] = [JSON.stringify(whole), JSON.stringify(parts)];
  return one === other
    ? undefined
    : `another split: ${one.slice(0, 200)} beside ${other.slice(0, 200)}`;
}
