/** Why options are refused. */
/** One thing that is wrong with options. It never quotes a value. */
export interface OptionProblem {
  /** Such as `pipeline.outbound.plugins[0].on_error`; empty where the problem is about all of them. */
  readonly key: string;
  readonly message: string;
}

/** Options that cannot be served; every problem is in it, and in its message. */
export class OptionsError extends Error {
  readonly problems: readonly OptionProblem[];

  constructor(problems: readonly OptionProblem[]) {
    const lines = problems.map(({ key, message }) => (key === "" ? message : `${key}: ${message}`));
    super(`options that cannot be served:\n${lines.join("\n")}`);
    this.name = "OptionsError";
    this.problems = problems;
  }
}
