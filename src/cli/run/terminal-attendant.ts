/** Whoever sits at the terminal of `run`: is asked there, one question after the other, while the command stands still. */
import { randomUUID } from "node:crypto";
import { closeSync, constants, openSync } from "node:fs";
import { userInfo } from "node:os";
import type { Attendant, Attended } from "../../app/approvals/attendant.ts";
import type { Decided, Order } from "../../approval/deciding.ts";
import type { HeardListener } from "../../approval/desk-options.ts";
import type { Ask } from "../../approval/told.ts";
import { shownText, visible } from "../../approval/visible.ts";
import { parseDuration } from "../../duration.ts";
import { messageOf } from "../../errors.ts";
import { PromptProcess } from "./prompt-process.ts";
import { asking, newWord, questionText, type Typed, typedIn } from "./question-text.ts";
import { type CommandRoot, Standstill } from "./standstill.ts";

/** Wrong words for one question: whoever guesses is refused. */
const maxWrong = 3;
const endings = ["SIGTERM", "SIGHUP"] as const;

/** The terminal of this process. */
export class TerminalAttendant implements Attendant {
  readonly session = `run-${randomUUID()}`;
  readonly #tty: number;
  readonly #command: string;
  readonly #waiting: Ask[] = [];
  #attended: Attended | undefined;
  #root: CommandRoot | undefined;
  #sessionApi: string | undefined;
  /** The one that is being asked. */
  #asked: { readonly id: string; over(why: string): void } | undefined;
  #isBusy = false;
  #isClosed = false;

  /** Undefined where the process has no terminal: of a job, or of a service. */
  static ofProcess(command: string): TerminalAttendant | undefined {
    try {
      const flags = constants.O_RDWR | constants.O_NOCTTY;
      return new TerminalAttendant(openSync("/dev/tty", flags), command);
    } catch {
      return undefined;
    }
  }

  private constructor(tty: number, command: string) {
    this.#tty = tty;
    this.#command = command;
  }

  attend(attended: Attended): void {
    this.#attended = attended;
    attended.onHeard((heard, ask) => this.#hear(heard, ask));
  }

  /** Questions are asked from now on: before, there is nothing that could ask. */
  begin(root: CommandRoot, sessionApi: string | undefined): void {
    this.#root = root;
    this.#sessionApi = sessionApi;
    for (const signal of endings) process.on(signal, this.#leave);
    void this.#serve();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const signal of endings) process.off(signal, this.#leave);
    this.#leave();
    closeSync(this.#tty);
  }

  /** A command that stands still would not hear that it has to end. */
  readonly #leave = (): void => {
    this.#waiting.length = 0;
    this.#asked?.over("the run ends");
  };

  readonly #hear: HeardListener = (heard, ask) => {
    if (ask === undefined || heard.kind === "voted") return;
    if (heard.kind === "asked") {
      this.#waiting.push(ask);
      void this.#serve();
      return;
    }
    const at = this.#waiting.findIndex(({ id }) => id === ask.id);
    if (at !== -1) this.#waiting.splice(at, 1);
    if (this.#asked?.id !== ask.id) return;
    const { kind } = heard;
    this.#asked.over(kind === "decided" ? `${heard.verdict.by.join(" ")} has decided` : kind);
  };

  /** Asks all that wait, then gives the terminal back. */
  async #serve(): Promise<void> {
    const root = this.#root;
    const [first] = this.#waiting;
    if (this.#isBusy || this.#isClosed || root === undefined || first === undefined) return;
    this.#isBusy = true;
    const standstill = await Standstill.of(root);
    try {
      const prompt = await PromptProcess.start(this.#tty, standstill.stopped);
      let said = "";
      for (let ask = this.#waiting.shift(); ask !== undefined; ask = this.#waiting.shift())
        said = await this.#ask(ask, prompt, said);
      await prompt.end(said);
    } catch (error) {
      // Nobody has said yes: what waits is refused when its time is over.
      process.stderr.write(`authbridge-proxy: the terminal cannot ask: ${messageOf(error)}\n`);
    } finally {
      standstill.end();
      this.#isBusy = false;
    }
    void this.#serve();
  }

  /** What came of it, to be shown next. */
  async #ask(ask: Ask, prompt: PromptProcess, before: string): Promise<string> {
    const attended = this.#attended;
    if (attended === undefined) return before;
    const over = new Promise<Over>((resolve) => {
      this.#asked = { id: ask.id, over: (why) => resolve({ why }) };
    });
    const limitMs = Math.min(attended.holdMs, ask.expiresAt - Date.now());
    const late = setTimeout(() => this.#asked?.over("nobody has decided in time"), limitMs);
    const word = newWord();
    const elsewhere = this.#elsewhere(ask.id);
    const notes = { word, command: this.#command, others: this.#waiting.length, elsewhere };
    let text = before + questionText(ask, notes);
    try {
      for (let wrong = 0; wrong < maxWrong;) {
        const line = await Promise.race([over, prompt.ask(text)]);
        if (line === undefined) throw new Error("it is gone");
        if (typeof line === "object") return `\r\n  ${shownText(line.why, 200)}\r\n`;
        const typed = typedIn(line, word);
        if (typed.kind === "later" && elsewhere !== undefined) return "  it goes on waiting\r\n";
        const order = typed.kind === "order" ? orderOf(ask.id, typed) : undefined;
        if (order === undefined) {
          // An empty line is no attempt.
          if (line !== "") wrong += 1;
          text = `  type ${word}, or no\r\n${asking}`;
          continue;
        }
        const decided = await attended.decide(order);
        if (decided.kind !== "wrong") return outcome(decided);
        text = `  ${shownText(decided.message, 200)}\r\n${asking}`;
      }
      await attended.decide({ ...refusal, id: ask.id });
      return "  refused: the word was wrong too often\r\n";
    } finally {
      clearTimeout(late);
      this.#asked = undefined;
    }
  }

  #elsewhere(id: string): string | undefined {
    const secretFile = this.#attended?.secretFile;
    if (secretFile === undefined || this.#sessionApi === undefined) return undefined;
    return `authbridge-proxy approve ${id} allow --url ${this.#sessionApi} --secret-file ${secretFile}`;
  }
}

/** Somebody else was faster, or the time is over. */
interface Over {
  readonly why: string;
}

const by = `terminal:${nameOfUser()}`;
const refusal: Omit<Order, "id"> = {
  decision: "deny",
  scope: "",
  durationMs: undefined,
  reason: "the word was wrong too often",
  by,
};

/** Undefined where the duration is none. */
function orderOf(
  id: string,
  { decision, scope, duration, reason }: Extract<Typed, { kind: "order" }>,
): Order | undefined {
  const durationMs = duration === "" ? undefined : parseDuration(duration);
  if (duration !== "" && (durationMs === undefined || durationMs < 1)) return undefined;
  return { id, decision, scope, durationMs, reason, by };
}

function outcome(decided: Exclude<Decided, { kind: "wrong" }>): string {
  if (decided.kind === "voted") return "  another operator has to allow it as well\r\n";
  if (decided.kind !== "decided") return `  ${shownText(decided.message, 200)}\r\n`;
  const { verdict, suggestion } = decided;
  if (verdict.decision === "deny") return "  refused\r\n";
  const said = `  allowed (${verdict.scope}, until ${new Date(verdict.until).toISOString()})\r\n`;
  const lines = suggestion?.trimEnd().split("\n").map(visible) ?? [];
  return said + lines.map((line) => `${line}\r\n`).join("");
}

/** As records show it. */
function nameOfUser(): string {
  try {
    return userInfo()
      .username.replaceAll(/[^\w.@-]/g, "")
      .slice(0, 64);
  } catch {
    // Nobody in the list of users has this number.
    return String(process.getuid?.() ?? "");
  }
}
