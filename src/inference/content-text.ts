/** The text of a message whose content is a text or a list of parts. */
import { isObject } from "../http/json-access.ts";

const textKinds: ReadonlySet<unknown> = new Set(["text", "input_text", "output_text", undefined]);

/** Text parts joined by line feeds; images, files and tool results are left out. */
export function contentText(content: unknown): string | undefined {
  if (typeof content === "string") return content === "" ? undefined : content;
  if (!Array.isArray(content)) return undefined;
  const texts: string[] = [];
  for (const part of content) {
    if (typeof part === "string") texts.push(part);
    else if (isObject(part) && typeof part["text"] === "string" && textKinds.has(part["type"])) {
      texts.push(part["text"]);
    }
  }
  const text = texts.filter((one) => one !== "").join("\n");
  return text === "" ? undefined : text;
}
