/** A stand-in for the reflection service of sparc: an HTTP server that says whether tool calls are grounded. */
import { type Answer, HttpOrigin, type RecordedRequest, reply } from "./origin.ts";

/** What the service was asked. */
export interface ReflectQuestion {
  readonly messages: readonly { readonly role: string; readonly content: string }[];
  readonly tool_specs: readonly {
    readonly type: string;
    readonly function: { readonly name: string; readonly description: string };
  }[];
  readonly tool_calls: readonly {
    readonly id: string;
    readonly type: string;
    readonly function: { readonly name: string; readonly arguments: string };
  }[];
  readonly session_id?: string;
  readonly track: string;
}

/** A service whose verdicts a test decides. */
export class StandInReflector {
  readonly #origin: HttpOrigin;
  decide: (question: ReflectQuestion) => object | Promise<object> = () => approved;
  /** Answers in its own way instead. */
  answer: Answer | undefined;

  private constructor(origin: HttpOrigin) {
    this.#origin = origin;
  }

  static async start(): Promise<StandInReflector> {
    const origin = await HttpOrigin.launch();
    const reflector = new StandInReflector(origin);
    origin.answer = async (request) => {
      if (reflector.answer !== undefined) {
        return (await reflector.answer(request)) as string | undefined;
      }
      const said = await reflector.decide(questionOf(request));
      return reply(200, JSON.stringify(said), { "Content-Type": "application/json" });
    };
    return reflector;
  }

  get url(): string {
    return this.#origin.url;
  }

  get requests(): readonly RecordedRequest[] {
    return this.#origin.requests;
  }

  get questions(): readonly ReflectQuestion[] {
    return this.#origin.requests.map(questionOf);
  }

  /** The tools that it was asked about. */
  get tools(): readonly string[] {
    return this.questions.flatMap((question) =>
      question.tool_calls.map((call) => call.function.name),
    );
  }

  forget(): void {
    this.#origin.requests.length = 0;
    this.answer = undefined;
    this.decide = () => approved;
  }

  close(): Promise<void> {
    return this.#origin.close();
  }
}

const approved = { decision: "approve", issues: [], overall_avg_score: 0.9, execution_time_ms: 12 };

/** A verdict against a call. */
export function rejected(explanation: string, score?: number): object {
  const issue = {
    issue_type: "semantic_general",
    metric_name: "general_hallucination_check",
    explanation,
    correction: { transaction_id: "ask" },
  };
  return {
    decision: "reject",
    issues: [issue],
    ...(score === undefined ? {} : { overall_avg_score: score }),
    execution_time_ms: 31,
  };
}

function questionOf(request: RecordedRequest): ReflectQuestion {
  return JSON.parse(request.text) as ReflectQuestion;
}
