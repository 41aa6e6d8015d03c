/** Where the outputs of tools stand in requests to language models, in the shapes of every API that is read here. */
import { isObject, type JsonObject, objectOf } from "../http/json-access.ts";
import type { JsonPath } from "../http/json-splice.ts";

/** One output: a text, or a value that is no text. */
export interface ToolOutput {
  readonly path: JsonPath;
  readonly value: string | JsonObject | readonly unknown[];
}

const toolRoles: ReadonlySet<unknown> = new Set(["tool", "function"]);
/** Members of parts that hold words; images and files have others. */
const textNames = ["text", "stdout", "stderr"] as const;

/** The outputs in the order of the conversation. Words of users and of the model are never among them. */
export function toolOutputs(body: JsonObject): ToolOutput[] {
  const found: ToolOutput[] = [];
  eachOf(body["messages"], ["messages"], (message, path) => inMessage(message, path, found));
  eachOf(body["input"], ["input"], (item, path) => inItem(item, path, found));
  inContents(body["contents"], ["contents"], found);
  // Code Assist carries the call of Gemini's API inside.
  inContents(objectOf(body["request"])["contents"], ["request", "contents"], found);
  return found;
}

/** Messages of OpenAI, Anthropic, Converse, Cohere and Ollama. */
function inMessage(message: JsonObject, path: JsonPath, found: ToolOutput[]): void {
  const { content } = message;
  if (toolRoles.has(message["role"])) {
    inText(content, [...path, "content"], found);
    return;
  }
  eachOf(content, [...path, "content"], (block, at) => {
    if (block["type"] === "tool_result") inText(block["content"], [...at, "content"], found);
    const result = block["toolResult"];
    if (!isObject(result)) return;
    eachOf(result["content"], [...at, "toolResult", "content"], (part, place) => {
      add(part["text"], [...place, "text"], found);
      if (typeof part["json"] !== "string") add(part["json"], [...place, "json"], found);
    });
  });
}

/** Items of OpenAI's responses API. */
function inItem(item: JsonObject, path: JsonPath, found: ToolOutput[]): void {
  const { type } = item;
  const isOutput = typeof type === "string" && (type.endsWith("_output") || type === "mcp_call");
  if (isOutput) inText(item["output"], [...path, "output"], found);
}

/** Contents of Gemini's API: a list, or one. */
function inContents(contents: unknown, path: JsonPath, found: ToolOutput[]): void {
  const inParts = (content: JsonObject, at: JsonPath): void =>
    eachOf(content["parts"], [...at, "parts"], (part, place) => {
      for (const name of ["functionResponse", "function_response"]) {
        const { response } = objectOf(part[name]);
        if (isObject(response)) add(response, [...place, name, "response"], found);
      }
    });
  if (isObject(contents)) inParts(contents, path);
  else eachOf(contents, path, inParts);
}

/** A text, or a list of parts that hold texts. */
function inText(content: unknown, path: JsonPath, found: ToolOutput[]): void {
  if (typeof content === "string") add(content, path, found);
  if (!Array.isArray(content)) return;
  for (const [at, part] of content.entries()) {
    if (typeof part === "string") add(part, [...path, at], found);
  }
  eachOf(content, path, (part, at) => {
    for (const name of textNames) {
      if (typeof part[name] === "string") add(part[name], [...at, name], found);
    }
    const data = objectOf(part["document"])["data"];
    if (typeof data === "string" || isObject(data)) add(data, [...at, "document", "data"], found);
  });
}

function add(value: unknown, path: JsonPath, found: ToolOutput[]): void {
  if (typeof value === "string" || isObject(value) || Array.isArray(value)) {
    found.push({ path, value });
  }
}

function eachOf(
  list: unknown,
  path: JsonPath,
  visit: (item: JsonObject, path: JsonPath) => void,
): void {
  if (!Array.isArray(list)) return;
  for (const [at, item] of list.entries()) if (isObject(item)) visit(item, [...path, at]);
}

const callIds = ["tool_call_id", "tool_use_id", "toolUseId", "call_id"] as const;

/** The names of the tools that outputs are of, as far as the conversation tells. */
export class OutputTools {
  readonly #body: JsonObject;
  /** Names by the ids of calls. */
  readonly #names = new Map<string, string>();

  constructor(body: JsonObject) {
    this.#body = body;
    for (const place of ["messages", "input"]) this.#collect(body[place], 0);
  }

  /** Undefined where nobody said it. */
  nameOf({ path }: ToolOutput): string | undefined {
    let value: unknown = this.#body;
    let found: string | undefined;
    for (const step of path) {
      value = (value as Readonly<Record<string | number, unknown>> | undefined)?.[step];
      if (isObject(value)) found = this.#own(value) ?? found;
    }
    return found;
  }

  #own(value: JsonObject): string | undefined {
    for (const name of callIds) {
      const id = value[name];
      if (typeof id === "string") return this.#names.get(id);
    }
    const isGiven = value["role"] === "tool" || value["role"] === "function" || "response" in value;
    const said = value["name"] ?? value["tool_name"];
    return isGiven && typeof said === "string" ? said : undefined;
  }

  /** Calls are a few levels inside of messages; their arguments say nothing of them. */
  #collect(value: unknown, depth: number): void {
    if (depth > 6) return;
    if (Array.isArray(value)) {
      for (const item of value) this.#collect(item, depth + 1);
    } else if (isObject(value)) {
      const id = value["call_id"] ?? value["toolUseId"] ?? value["id"];
      const name = value["name"] ?? objectOf(value["function"])["name"];
      if (typeof id === "string" && typeof name === "string") this.#names.set(id, name);
      for (const place of ["content", "tool_calls", "toolUse"])
        this.#collect(value[place], depth + 1);
    }
  }
}
