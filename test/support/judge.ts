/** A stand-in for ibac's judge: an HTTP server that speaks OpenAI's chat completions API. */
import { HttpOrigin, reply, type Answer, type RecordedRequest } from "./origin.ts";

/** What the judge was asked. */
export interface JudgeQuestion {
  readonly model: string;
  readonly temperature: number;
  readonly max_tokens: number;
  readonly response_format?: { readonly type: string };
  readonly messages: readonly { readonly role: string; readonly content: string }[];
}

/** The body of a chat completion that says this. */
export function completion(content: string | null, rest: object = {}): string {
  const message = { role: "assistant", content };
  const choices = [{ index: 0, finish_reason: "stop", message, ...rest }];
  return JSON.stringify({ id: "c", object: "chat.completion", model: "judge", choices });
}

/** A judge whose answers a test decides. */
export class StandInJudge {
  readonly #origin: HttpOrigin;
  /** What it says to a question; the content of the completion. */
  decide: (question: JudgeQuestion) => string | Promise<string> = () =>
    '{"verdict":"allow","reason":"fine"}';
  /** Answers in its own way instead. */
  answer: Answer | undefined;

  private constructor(origin: HttpOrigin) {
    this.#origin = origin;
  }

  static async start(): Promise<StandInJudge> {
    const origin = await HttpOrigin.launch();
    const judge = new StandInJudge(origin);
    origin.answer = async (request) => {
      if (judge.answer !== undefined) return (await judge.answer(request)) as string | undefined;
      const said = await judge.decide(questionOf(request));
      return reply(200, completion(said), { "Content-Type": "application/json" });
    };
    return judge;
  }

  get url(): string {
    return this.#origin.url;
  }

  get requests(): readonly RecordedRequest[] {
    return this.#origin.requests;
  }

  get questions(): readonly JudgeQuestion[] {
    return this.#origin.requests.map(questionOf);
  }

  /** What stands under PROPOSED_ACTION in the last question. */
  get lastAction(): string {
    const content = this.questions.at(-1)?.messages.at(-1)?.content ?? "";
    return content.slice(content.indexOf("PROPOSED_ACTION:"));
  }

  forget(): void {
    this.#origin.requests.length = 0;
    this.answer = undefined;
    this.decide = () => '{"verdict":"allow","reason":"fine"}';
  }

  close(): Promise<void> {
    return this.#origin.close();
  }
}

function questionOf(request: RecordedRequest): JudgeQuestion {
  return JSON.parse(request.text) as JudgeQuestion;
}
