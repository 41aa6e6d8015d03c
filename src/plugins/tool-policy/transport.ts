/** What the Streamable HTTP transport of MCP lets a client send: everything else on a guarded path is refused. */
import type { Denial, RequestContext, RpcRefusal } from "../../pipeline/plugin.ts";
import { unresolvedBinary } from "../../policy/binary-matcher.ts";
import type { ToolCaller } from "../../policy/tools/tool-rule.ts";

/** Why a request is refused before its content is looked at. */
export interface TransportProblem {
  readonly reason: string;
  readonly denial: Denial;
}

/** What is no message of the protocol is refused with an HTTP status, whatever a parser made of it. */
export const notRpc: RpcRefusal = Object.freeze({ ids: [] });

const forms = "POST of JSON, GET of an event stream, DELETE of a session";

/** What is wrong with a request as a message of the transport. */
export function transportProblem(context: RequestContext): TransportProblem | undefined {
  const { method, hasBody, headers, upgrade } = context;
  if (upgrade !== undefined) {
    const message = `an upgrade to ${upgrade.slice(0, 32)} on this path cannot be judged`;
    return { reason: "upgrade", denial: { code: "policy.forbidden", message, rpc: notRpc } };
  }
  if (method === "POST") return undefined;
  const isStream = method === "GET" && /text\/event-stream/i.test(headers.get("accept") ?? "");
  if (!isStream && method !== "DELETE" && method !== "OPTIONS") {
    const message = `this path takes ${forms}`;
    return {
      reason: "method",
      denial: { code: "request.method-not-allowed", message, rpc: notRpc },
    };
  }
  if (!hasBody) return undefined;
  const message = `a ${method} with a body cannot be judged`;
  return { reason: "unexpected_body", denial: { code: "request.malformed", message, rpc: notRpc } };
}

/** What is wrong with the form of a POST's body. */
export function bodyProblem({ headers, clearBody }: RequestContext): TransportProblem | undefined {
  const unsupported = (message: string): TransportProblem => ({
    reason: "unsupported_content",
    denial: { code: "request.unsupported-content", message, rpc: notRpc },
  });
  const [type = "", ...parameters] = (headers.get("content-type") ?? "")
    .toLowerCase()
    .split(";")
    .map((part) => part.trim());
  if (type !== "application/json") return unsupported("the content type must be application/json");
  const isUtf8 = parameters.every(
    (parameter) => !parameter.startsWith("charset") || /^charset="?utf-?8"?$/.test(parameter),
  );
  if (!isUtf8) return unsupported("the character set must be UTF-8");
  switch (clearBody?.kind) {
    case "unsupported":
      return unsupported("the content coding cannot be undone");
    case "corrupt": {
      const message = "the body is corrupt in its content coding";
      return { reason: "unparsable", denial: { code: "request.malformed", message, rpc: notRpc } };
    }
    case "too-large": {
      const message = "the body is longer than limits.max_body when it is unpacked";
      return {
        reason: "too_large",
        denial: { code: "request.body-too-large", message, rpc: notRpc },
      };
    }
    case "body":
    case undefined:
      return undefined;
  }
}

/** Who calls: what the pipeline verified, and the process behind the connection. */
export function callerOf({ identity, flow }: RequestContext): ToolCaller {
  const { process: peer, caller: agent } = flow.client;
  const process =
    peer?.kind === "resolved"
      ? { binary: peer.executable, ancestors: peer.ancestors, aliases: peer.aliases }
      : { binary: unresolvedBinary };
  return {
    subject: identity?.subject,
    clientId: identity?.clientId,
    scopes: identity?.scopes ?? [],
    agent,
    process,
  };
}
