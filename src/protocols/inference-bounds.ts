/** How much of a call is kept: what strangers send must not fill the memory (security invariant 8). */
import { bounded, isObject, type JsonObject, textOf } from "../http/json-access.ts";
import type { InferenceMessage, InferenceTool } from "./inference-view.ts";

const maxMessages = 2_000;
const maxMessageChars = 64 * 1_024;
const maxConversationChars = 1_024 * 1_024;
const maxTools = 512;
const maxResults = 128;
const maxNameChars = 256;
const maxDescriptionChars = 4_096;

/** A model, a role, an id: short by nature. */
export function boundedName(text: string | undefined): string | undefined {
  return text === undefined ? undefined : bounded(text, maxNameChars);
}

/**
 * What tools gave back in a message that is no message of its own, as OpenAI has it. It is beside the view and not in it: the
 * record leaves it out.
 */
const toolResults = new WeakMap<InferenceMessage, readonly string[]>();

/** The results of tools that came in this message, in front of its text. */
export function toolResultsOf(message: InferenceMessage): readonly string[] {
  return toolResults.get(message) ?? [];
}

/** Collects messages within the bounds; of a conversation that is too long the end is kept. */
export class Conversation {
  readonly #messages: InferenceMessage[];

  /** Goes on behind what was kept of another one. */
  constructor(before: readonly InferenceMessage[] = []) {
    this.#messages = [...before];
  }

  add(role: string, content: string | undefined, results: readonly string[] = []): void {
    const name = bounded(role, maxNameChars);
    const message =
      content === undefined || content === ""
        ? { role: name }
        : { role: name, content: bounded(content, maxMessageChars) };
    this.#messages.push(message);
    if (results.length === 0) return;
    toolResults.set(
      message,
      results.slice(0, maxResults).map((result) => bounded(result, maxMessageChars)),
    );
  }

  /** What is kept; undefined when nothing was said. */
  get messages(): readonly InferenceMessage[] | undefined {
    if (this.#messages.length === 0) return undefined;
    const kept: InferenceMessage[] = [];
    let chars = 0;
    for (const message of this.#messages.slice(-maxMessages).toReversed()) {
      chars += message.content?.length ?? 0;
      for (const result of toolResultsOf(message)) chars += result.length;
      // The newest say what is being done now; the oldest were recorded when they were new.
      if (chars > maxConversationChars) break;
      kept.push(message);
    }
    return kept.toReversed();
  }
}

/** A tool definition within the bounds; undefined without a name. */
export function boundedTool(
  name: unknown,
  description: unknown,
  parameters: unknown,
): InferenceTool | undefined {
  const known = textOf(name);
  if (known === undefined) return undefined;
  const text = textOf(description);
  return {
    name: bounded(known, maxNameChars),
    ...(text === undefined ? {} : { description: bounded(text, maxDescriptionChars) }),
    ...(isObject(parameters) ? { parameters } : {}),
  };
}

/** The tools of a request; undefined when there are none. */
export function boundedTools(
  values: readonly JsonObject[],
  read: (value: JsonObject) => InferenceTool | undefined,
): readonly InferenceTool[] | undefined {
  const tools = values.slice(0, maxTools).flatMap((value) => read(value) ?? []);
  return tools.length === 0 ? undefined : tools;
}
