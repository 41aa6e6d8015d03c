/** Receipts as the file wants them (`audit.receipts`): compact JWS over one decision, with the key of the checkpoints. */
import { hash } from "node:crypto";
import { messageOf } from "../../errors.ts";
import type { Remark as BuildProblem } from "../../yaml/schema-remarks.ts";
import type { Config } from "../../config/presets.ts";
import { compileHostGlob, HostMatcher } from "../../pattern/host-pattern.ts";
import { callerOf } from "../../pipeline/flow.ts";
import type { RequestContext } from "../../pipeline/context.ts";
import type { Receipts, ReceiptVerdict } from "../../proxy/flow/receipts.ts";
import type { SigningKey } from "../../receipts/signing-key.ts";
import type { Logger } from "../../telemetry/log.ts";
import { originOf, signingKey } from "./log-parts.ts";

/** Undefined where the file allows no receipts. */
export function makeReceipts(audit: Config["audit"], log: Logger): Receipts | undefined {
  // A pattern that is none is a problem of the file.
  if (audit?.receipts === undefined || receiptProblems(audit).length > 0) return undefined;
  const { on_request: onRequest, hosts, origins } = audit.receipts;
  const always = new HostMatcher(hosts);
  const told = new HostMatcher(origins);
  const key = signingKey(audit, log);
  const issuer = originOf(audit);
  return {
    readersOf: (host, isAsked) => ({
      client: (isAsked && onRequest) || always.matches(host),
      origin: told.matches(host),
    }),
    sign: (context, verdict) => signed(key(), { iss: issuer, ...claims(context, verdict) }),
  };
}

/** What is wrong with the host patterns of the block. */
export function receiptProblems(audit: Config["audit"]): BuildProblem[] {
  const problems: BuildProblem[] = [];
  for (const key of ["hosts", "origins"] as const) {
    for (const [index, pattern] of (audit?.receipts?.[key] ?? []).entries()) {
      try {
        compileHostGlob(pattern);
      } catch (error) {
        problems.push({ path: ["audit", "receipts", key, index], message: messageOf(error) });
      }
    }
  }
  return problems;
}

/** Of a text that a policy or another service may make as long as it likes. */
const maxTextLength = 256;

/** Who called and which path it was are hashed: the receipt may be shown to others. */
function claims(context: RequestContext, verdict: ReceiptVerdict): object {
  const { flow, method, pathname } = context;
  return {
    id: flow.id,
    time: new Date().toISOString(),
    caller: hash("sha256", callerOf(flow.client), "base64url"),
    method,
    host: flow.destination.authority,
    path: hash("sha256", pathname, "base64url"),
    verdict,
    ...ruleOf(context, verdict),
  };
}

/** The step that decided, and its rule where it names one. */
function ruleOf({ invocations }: RequestContext, verdict: ReceiptVerdict): object {
  const decided = invocations.findLast(
    ({ action, shadow }) => action === verdict && shadow === undefined,
  );
  if (decided === undefined) return {};
  const { plugin, reason, details } = decided;
  const rule = [details?.["entry"], details?.["rule"]].filter((part) => typeof part === "string");
  return {
    rule: [plugin, ...rule].join("/").slice(0, maxTextLength),
    reason: reason.slice(0, maxTextLength),
  };
}

function signed(key: SigningKey, payload: object): string {
  const header = { alg: "EdDSA", typ: "authbridge-receipt+jws", kid: key.kid };
  const [head, body] = [header, payload].map((part) =>
    Buffer.from(JSON.stringify(part)).toString("base64url"),
  );
  const text = `${head}.${body}`;
  return `${text}.${key.sign(Buffer.from(text)).toString("base64url")}`;
}
