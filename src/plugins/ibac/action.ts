/** An outbound action in the words in which ibac shows it to its judge. */
import { hash } from "node:crypto";
import type { RequestContext } from "../../pipeline/plugin.ts";
import { a2aFact } from "../../protocols/a2a-message.ts";
import { mcpActions } from "../../protocols/agent-action.ts";
import { inferenceFact } from "../../protocols/inference-view.ts";
import { mcpFact } from "../../protocols/mcp-message.ts";

/** An action in words for the judge, and the key under which its verdict is kept. */
export interface DescribedAction {
  readonly text: string;
  /** Digest over everything that the message says, shown or not. */
  readonly key: string;
}

const secretNames =
  /^(?:.*[-_])?(?:key|api_?key|token|secret|password|passwd|sig|signature|credential)s?$/i;

/**
 * The action as one JSON object, whole: a judge that sees a part of it judges another action.
 *
 * Undefined where it is longer than `maxChars`, or has bytes that no text shows. Header fields are not described: that
 * is where credentials are.
 */
export function describe(context: RequestContext, maxChars: number): DescribedAction | undefined {
  const { destination, method, facts } = context;
  const { clearBody } = context;
  if (clearBody !== undefined && clearBody.kind !== "body") return undefined;
  const clear = clearBody?.bytes;
  const described: Record<string, unknown> = {
    method,
    url: `${destination.scheme}://${destination.authority}${shownPath(context.path)}`,
  };
  const calls = mcpActions(facts.get(mcpFact));
  const inference = facts.get(inferenceFact);
  if (calls.length > 0) {
    described["mcp_calls"] = calls.map(({ method: name, params }) => ({ method: name, ...params }));
  }
  if (calls.length === 0 || facts.has(a2aFact) || inference !== undefined) {
    if (!addBody(described, clear, maxChars)) return undefined;
  }
  const text = JSON.stringify(described);
  if (text.length > maxChars) return undefined;
  const parts = [method, destination.authority, context.path, text];
  const head = parts.map((part) => `${part.length}:${part}`).join("");
  return {
    text,
    key: hash("sha256", Buffer.concat([Buffer.from(head), clear ?? Buffer.alloc(0)])),
  };
}

function addBody(
  described: Record<string, unknown>,
  clear: Buffer | undefined,
  maxChars: number,
): boolean {
  if (clear === undefined || clear.length === 0) return true;
  if (clear.length > maxChars * 4) return false;
  try {
    described["body"] = new TextDecoder("utf-8", { fatal: true }).decode(clear);
    return true;
  } catch {
    return false;
  }
}

/** The path and the query, without the values of parameters that are credentials by their names. */
function shownPath(path: string): string {
  const at = path.indexOf("?");
  if (at === -1) return path;
  const query = path
    .slice(at + 1)
    .split("&")
    .map((pair) => {
      const [name = ""] = pair.split("=", 1);
      return secretNames.test(name) ? `${name}=[redacted]` : pair;
    });
  return `${path.slice(0, at)}?${query.join("&")}`;
}
