/** What a user asked of the agent, as an A2A parser read it. */

const maxIntentLength = 8_192;

/** Whether an A2A view is something that a user said, and not a question about a task. */
export function isUserMessage(a2a: unknown): boolean {
  const method = textOf(a2a, "method");
  return typeof a2a === "object" && a2a !== null && !/^(?:tasks|agent)\//.test(method ?? "");
}

/** The words of a user's message, at most 8,192 characters; undefined when it has none. */
export function intentText(a2a: unknown): string | undefined {
  if (!isUserMessage(a2a)) return undefined;
  const parts = (a2a as { readonly parts?: unknown }).parts;
  const texts = (Array.isArray(parts) ? parts : []).flatMap((part: unknown) => {
    const text = textOf(part, "content") ?? textOf(part, "text");
    return text === undefined || (textOf(part, "kind") ?? "text") !== "text" ? [] : [text];
  });
  const text = texts.length > 0 ? texts.join("\n") : textOf(a2a, "text");
  return text === undefined || text.trim() === "" ? undefined : text.slice(0, maxIntentLength);
}

/** A text property of a value that came from outside. */
export function textOf(value: unknown, key: string): string | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const found = (value as Readonly<Record<string, unknown>>)[key];
  return typeof found === "string" && found !== "" ? found : undefined;
}
