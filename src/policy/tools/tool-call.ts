/** One call of MCP as rules see it: its method, the name that it calls, and the arguments. */
import { isObject, foldedName } from "../../http/json-access.ts";

/** A call of a client: a request, or a notification that is judged as one. */
export interface ToolCall {
  readonly method: string;
  /** Tool of a `tools/call`, prompt of a `prompts/get`. */
  readonly name?: string;
  /** What conditions are asked about: the arguments of a tool or prompt, the parameters of any other method. */
  readonly args: unknown;
}

const named: ReadonlySet<string> = new Set(["tools/call", "prompts/get"]);
const maxNodes = 100_000;

/** Reads the parameters of one call, or says why they could be read in two ways. */
export function readToolCall(method: string, params: unknown): ToolCall | string {
  const twin = twinIn(params);
  if (twin !== undefined) return twin;
  if (!named.has(method)) return { method, args: params ?? {} };
  if (!isObject(params)) return `${method} has no parameters`;
  for (const key of Object.keys(params)) {
    // Some decoders match names without regard to case.
    const lower = foldedName(key);
    if (key !== lower && (lower === "name" || lower === "arguments")) {
      return `a parameter differs from ${lower} only by case`;
    }
  }
  const { name, arguments: args = {} } = params;
  if (typeof name !== "string") return `${method} does not name what it calls`;
  if (!isObject(args)) return "arguments is not an object";
  return { method, name, args };
}

/** Two members of one object that differ by case only: decoders without regard to case take one of them. */
function twinIn(params: unknown): string | undefined {
  const pending: unknown[] = [params];
  for (let seen = 0; pending.length > 0; seen += 1) {
    if (seen > maxNodes) return `there are more than ${maxNodes} values in the parameters`;
    const value = pending.pop();
    if (typeof value !== "object" || value === null) continue;
    const keys = Array.isArray(value) ? [] : Object.keys(value);
    if (keys.length > 1 && new Set(keys.map(foldedName)).size < keys.length) {
      return "two members of an object differ only by case";
    }
    for (const member of Object.values(value)) pending.push(member);
  }
  return undefined;
}

/** Every text in the arguments. */
export function* textsIn(args: unknown): Generator<string> {
  const pending: unknown[] = [args];
  while (pending.length > 0) {
    const value = pending.pop();
    if (typeof value === "string") yield value;
    else if (typeof value === "object" && value !== null) {
      for (const member of Object.values(value)) pending.push(member);
    }
  }
}
