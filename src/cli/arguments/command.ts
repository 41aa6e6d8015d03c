/** What the table of commands says of each. */
import type { Parameters, Values } from "./parameter.ts";

/** One row of the table. */
export interface Command<P extends Parameters = Parameters> {
  /** The words that ask for it, or a flag; its key in the table when absent. */
  readonly name?: string;
  /** What messages call it; its name when absent. */
  readonly title?: string;
  /** For the help: how it is called, and what it does then. */
  readonly usage: Readonly<Record<string, string>>;
  readonly parameters: P;
  /** What is wrong with options of others, where "does not belong" is not enough. */
  readonly foreign?: Readonly<Record<string, string>>;
  /** What is wrong with the values together. */
  objection?(this: void, values: Values<P>): string | undefined;
  /** Resolves with the exit code; the module comes with the call, and no other command's module with it. */
  load(this: void): Promise<(values: Values<P>) => number | Promise<number>>;
  /** Whether the process ends at once: what is still open then must not hold the exit code back. */
  readonly exits?: true;
}

/** The row as it is: what its module wants is compared with what it takes. */
export function command<P extends Parameters>(row: Command<P>): Command {
  return row as unknown as Command;
}
