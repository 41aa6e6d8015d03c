/** What stands in a shortened output so that a model can ask for the whole of it. */
import { hash } from "node:crypto";
import { isObject } from "../../http/json-access.ts";
import type { Draft } from "./draft.ts";
import { freeName } from "./json.ts";

/** The tool that gives a whole text. */
export const toolName = "context_guru_expand";

/** How every marker begins. An output that has one was shortened, or asked for, and is left as it is. */
const beginning = "[context-guru ";

/** Names a text by what it says, so that it has the same name at every turn and in every replica. */
export function idOf(text: string): string {
  return hash("sha256", text, "hex").slice(0, 20);
}

/** Whether an output has a marker in it. */
export function isMarked(text: string): boolean {
  return text.includes(beginning);
}

/** The draft with its marker: a last line, a last item, or a member. */
export function marked(
  { text, value }: Draft,
  parts: { readonly id: string; readonly host: string; readonly chars: number },
): { readonly text: string; readonly value?: unknown } {
  const { id, host, chars } = parts;
  const marker = `${beginning}${id}: parts of ${chars} characters are left out; the whole text: tool ${toolName} with this id, or GET http://${host}/texts/${id}]`;
  if (Array.isArray(value)) return ofValue([...(value as unknown[]), marker]);
  if (isObject(value)) return ofValue({ ...value, [freeName(value, "context_guru")]: marker });
  return { text: `${text}\n${marker}` };
}

/** What comes before a text that was asked for. */
export function wholeText(id: string, text: string): string {
  return `${beginning}${id}: the text that was asked for]\n${text}`;
}

function ofValue(value: unknown): { readonly text: string; readonly value: unknown } {
  return { text: JSON.stringify(value), value };
}
