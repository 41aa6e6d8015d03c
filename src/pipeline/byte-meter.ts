/** Asks the plugins that bound what goes by, while it does: in bodies, upgraded connections and tunnels. */
import type { RequestContext } from "./context.ts";
import type { Decision, Denial, Phase } from "./decision.ts";
import type { Passing, Plugin } from "./plugin.ts";
import type { HookCall, Step, StepRunner } from "./step-runner.ts";

interface ByteCall extends HookCall {
  readonly ask: NonNullable<Plugin["onBytes"]>;
}

/** The steps that count bytes, in the order of the file. */
export class ByteCounting {
  readonly #calls: readonly ByteCall[];
  readonly #runner: StepRunner;

  constructor(steps: readonly Step[], runner: StepRunner) {
    this.#calls = steps.flatMap((step) => {
      const ask = step.plugin.onBytes?.bind(step.plugin);
      return ask === undefined ? [] : [{ step, ask }];
    });
    this.#runner = runner;
  }

  /** The meter of a message that the pipeline let pass; undefined where nobody counts what goes by. */
  meterOf(context: RequestContext): ByteMeter | undefined {
    if (this.#calls.length === 0) return undefined;
    const calls = this.#calls.filter(
      ({ step: { plugin } }) => plugin.countsBytes?.(context) === true,
    );
    return calls.length === 0 ? undefined : new ByteMeter(calls, this.#runner, context);
  }
}

/** What goes by in one message or tunnel. */
export class ByteMeter {
  readonly #calls: readonly ByteCall[];
  readonly #runner: StepRunner;
  readonly #context: RequestContext;
  #denial: Denial | undefined;

  constructor(calls: readonly ByteCall[], runner: StepRunner, context: RequestContext) {
    this.#calls = calls;
    this.#runner = runner;
    this.#context = context;
  }

  /** Why nothing more may go by, once that is so. */
  get denial(): Denial | undefined {
    return this.#denial;
  }

  /**
   * Whether so many bytes may go by; a promise, which never rejects, only where a step has to be waited for. Ask again for
   * bytes of the client when it is settled, not before.
   */
  pass(from: Passing["from"], bytes: number): boolean | Promise<boolean> {
    if (this.#denial !== undefined) return false;
    if (bytes === 0) return true;
    const passing: Passing = { from, bytes };
    const phase: Phase = from === "client" ? "request" : "response";
    return this.#runner.run<boolean, ByteCall>({
      calls: this.#calls,
      context: this.#context,
      phase,
      ask: ({ ask }, view) => ask(view, passing),
      take: (decision) => this.#take(decision),
      end: () => true,
    });
  }

  #take(decision: Decision): false | undefined {
    if (decision.action !== "deny") return undefined;
    // Both directions may be refused at once.
    this.#denial ??= decision.denial;
    return false;
  }
}
