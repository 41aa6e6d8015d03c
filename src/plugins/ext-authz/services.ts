/** The two ways to ask an authorization service; neither of them ever rejects. */
import { durationMs } from "../../duration.ts";
import { messageOf, ProxyError } from "../../errors.ts";
import { askAgain } from "../../http/ask-again.ts";
import { isHopByHop } from "../../http/headers.ts";
import type { OperatorRequest, OperatorResponse } from "../../http/operator-fetch.ts";
import type { PluginDeps } from "../../pipeline/plugin.ts";
import type { Attributes } from "./attributes.ts";
import type { ShowCertificate } from "./certificate.ts";
import { writeCheckRequest } from "./check-request.ts";
import { readCheckResponse } from "./check-response.ts";
import { addressOf, type ExtAuthzConfig } from "./config.ts";
import { StringMatcher } from "./string-matcher.ts";
import { type FieldAction, type FieldChange, statusFrom, type Verdict } from "./verdict.ts";

/** Asks about one message. */
export type AskService = (attributes: Attributes, timeoutMs: number) => Promise<Verdict>;

/** What is configured, ready to be asked. */
export interface AuthzService {
  readonly timeoutMs: number;
  readonly ask: AskService;
}

const maxResponseBytes = 1024 * 1024;
const checkPath = "/envoy.service.auth.v3.Authorization/Check";

type Ask = (path: string, request: OperatorRequest, timeoutMs: number) => Promise<OperatorResponse>;

export function authzServiceOf(
  config: ExtAuthzConfig,
  { fetch }: PluginDeps,
  certificate: ShowCertificate,
): AuthzService {
  const address = addressOf(config);
  const base = address.startsWith("unix://") ? `${address}:` : address;
  const call: Ask = (path, request, timeoutMs) =>
    askAgain(timeoutMs, (leftMs) =>
      fetch(`${base}${path}`, {
        ...request,
        certificate: certificate(),
        timeoutMs: leftMs,
        maxBytes: maxResponseBytes,
      }),
    );
  const { grpc_service: grpc, http_service: http } = config;
  if (http !== undefined)
    return { timeoutMs: durationMs(http.server_uri.timeout), ask: askHttp(http, call) };
  return { timeoutMs: durationMs(grpc?.timeout ?? "1s"), ask: askGrpc(grpc, call) };
}

function askGrpc(service: ExtAuthzConfig["grpc_service"], call: Ask): AskService {
  const metadata = Object.fromEntries(
    (service?.initial_metadata ?? []).map(({ key, value }) => [key.toLowerCase(), value]),
  );
  return (attributes, timeoutMs) =>
    unlessFailed(async () => {
      const { body } = await call(
        checkPath,
        {
          headers: { ...metadata, "grpc-timeout": `${timeoutMs}m` },
          body: writeCheckRequest(attributes),
          isGrpc: true,
        },
        timeoutMs,
      );
      return readCheckResponse(body);
    });
}

/** Fields of a refusal that the client gets whatever allowed_client_headers says. */
const alwaysForClient = new Set(["location", "www-authenticate", "content-type"]);

function askHttp(service: NonNullable<ExtAuthzConfig["http_service"]>, call: Ask): AskService {
  const { authorization_request: question, authorization_response: answer } = service;
  const added = Object.fromEntries(
    question.headers_to_add.map(({ key, value }) => [key.toLowerCase(), value]),
  );
  const upstream = StringMatcher.of(answer.allowed_upstream_headers);
  const appended = StringMatcher.of(answer.allowed_upstream_headers_to_append);
  const onRefusal = StringMatcher.of(answer.allowed_client_headers);
  const onSuccess = StringMatcher.of(answer.allowed_client_headers_on_success);
  const isForClient = (name: string): boolean =>
    onRefusal === undefined || alwaysForClient.has(name) || onRefusal.matches(name);
  const read = (response: OperatorResponse): Verdict => {
    const { status } = response;
    if (status >= 500) return { kind: "failed", why: `it answered ${status}` };
    const fields = linesOf(response);
    if (status !== 200) {
      return {
        kind: "denied",
        status: statusFrom(status, 403),
        fields: fields.filter(([name]) => isForClient(name)),
        body: response.body,
        metadata: {},
      };
    }
    const chosen = (list: StringMatcher | undefined, action: FieldAction): FieldChange[] =>
      fields
        .filter(([name]) => list?.matches(name) === true)
        .map(([name, value]) => ({ name, value, action }));
    const removed = response.headers["x-envoy-auth-headers-to-remove"] ?? "";
    return {
      kind: "allowed",
      fields: [...chosen(upstream, "overwrite"), ...chosen(appended, "append")],
      removed: removed.split(",").flatMap((name) => name.trim() || []),
      responseFields: chosen(onSuccess, "overwrite"),
      query: { set: [], removed: [] },
      metadata: {},
    };
  };
  return (attributes, timeoutMs) =>
    unlessFailed(async () => {
      const { method, host, path, fields, body } = attributes;
      const sent = fields.filter(([name]) => !name.startsWith(":") && !isOfTheMessage(name));
      const told = new Map<string, string>();
      for (const [name, value] of sent) {
        const earlier = told.get(name);
        told.set(name, earlier === undefined ? value : `${earlier}, ${value}`);
      }
      // What the client sent under one of these names must not stand beside it.
      const headers = { ...Object.fromEntries(told), host, ...added };
      const target = `${service.path_prefix?.replace(/\/$/, "") ?? ""}${path}`;
      const request = { method, headers, ...(body === undefined ? {} : { body }) };
      return read(await call(target, request, timeoutMs));
    });
}

/** Of the question's own message. */
function isOfTheMessage(name: string): boolean {
  return name === "content-length" || isHopByHop(name);
}

/** A line for each field, of Set-Cookie for each cookie; without those of the answer's own message. */
function linesOf({ headers, setCookies = [] }: OperatorResponse): (readonly [string, string])[] {
  const lines = Object.entries(headers).filter(
    ([name]) => name !== "set-cookie" && !isOfTheMessage(name),
  );
  return [...lines, ...setCookies.map((value) => ["set-cookie", value] as const)];
}

async function unlessFailed(ask: () => Promise<Verdict>): Promise<Verdict> {
  try {
    return await ask();
  } catch (error) {
    const code = error instanceof ProxyError ? `${error.code}: ` : "";
    return { kind: "failed", why: `${code}${messageOf(error)}` };
  }
}
