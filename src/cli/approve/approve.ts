/** `approve`: what waits for an approval in a running proxy, and the decision of an operator. */
import { isObject, objectsOf, parseJsonObject, textOf } from "../../http/json-access.ts";
import { ProxyError } from "../../errors.ts";
import { commandFile, refuseCommand } from "../config-file.ts";
import { printableJson, printableLine } from "../event-line.ts";
import { callSessionApi, type SessionApi, sessionApiOf } from "../session-api.ts";

interface ApproveCommand {
  /** `list`, or an id and a decision. */
  readonly words?: readonly string[];
  readonly file?: string;
  readonly lenient: boolean;
  readonly url?: string;
  readonly secretFile?: string;
  readonly scope?: string;
  readonly duration?: string;
  readonly reason?: string;
  readonly json: boolean;
}

/** 0; 1 where the proxy refuses the decision, or cannot be asked. */
export async function approve(command: ApproveCommand): Promise<number> {
  try {
    const api = await apiOf(command);
    if (api === undefined) return 2;
    const [id = "list", decision] = command.words ?? [];
    return id === "list"
      ? await list(api, command)
      : await decide(api, id, decision ?? "", command);
  } catch (error) {
    return refuseCommand(error);
  }
}

async function apiOf({
  file,
  lenient,
  url,
  secretFile,
}: ApproveCommand): Promise<SessionApi | undefined> {
  if (file === undefined) return { url: url ?? "http://127.0.0.1:9094", secretFile };
  const loaded = await commandFile({ file, lenient }, { allowUnset: true });
  if (loaded === undefined) return undefined;
  const found = sessionApiOf(loaded.config, "say where it is with --url");
  return { url: url ?? found.url, secretFile: secretFile ?? found.secretFile };
}

async function list(api: SessionApi, { json }: ApproveCommand): Promise<number> {
  const { status, text } = await callSessionApi(api, "/v1/approvals");
  const response = parseJsonObject(text);
  if (status !== 200) return refuseCommand(new ProxyError("upstream.refused", said(status, text)));
  const open = objectsOf(response?.["approvals"]);
  if (json) process.stdout.write(`${printableJson(open, 2)}\n`);
  else {
    for (const ask of open) process.stdout.write(`${printableLine(lineOf(ask))}\n`);
    if (open.length === 0) process.stdout.write("nothing waits for an approval\n");
  }
  return 0;
}

function lineOf(ask: Readonly<Record<string, unknown>>): string {
  const request = isObject(ask["request"]) ? ask["request"] : {};
  const word = (key: string): string => {
    const value = request[key];
    return typeof value === "number" ? String(value) : (textOf(value) ?? "");
  };
  const tool = textOf(request["tool"]);
  const call = tool === undefined ? "" : ` ${tool}(${word("arguments")})`;
  const upgrade = textOf(request["upgrade"]);
  const change = upgrade === undefined ? "" : ` (changes to ${upgrade})`;
  const votes = Array.isArray(ask["votes"]) && ask["votes"].length > 0 ? " [one has allowed]" : "";
  const place = `${word("scheme")}://${word("host")}:${word("port")}${word("path")}`;
  return `${textOf(ask["id"]) ?? ""}  ${word("caller")}  ${word("method")} ${place}${change}${call}${votes}  ${textOf(ask["why"]) ?? ""}  until ${textOf(ask["expires"]) ?? ""}`;
}

async function decide(
  api: SessionApi,
  id: string,
  decision: string,
  { scope, duration, reason, json }: ApproveCommand,
): Promise<number> {
  const form = new URLSearchParams({ decision });
  const given = {
    scope: scope ?? (duration === undefined ? undefined : "duration"),
    duration,
    reason,
  };
  for (const [name, value] of Object.entries(given)) if (value !== undefined) form.set(name, value);
  const { status, text } = await callSessionApi(
    api,
    `/v1/approvals/${encodeURIComponent(id)}`,
    form,
  );
  const response = parseJsonObject(text);
  if (status !== 200 && status !== 202)
    return refuseCommand(new ProxyError("upstream.refused", said(status, text)));
  if (json) process.stdout.write(`${printableJson(response, 2)}\n`);
  else if (status === 202) process.stdout.write(`${id} needs another operator\n`);
  else {
    const until = textOf(response?.["until"]) ?? "";
    const done = decision === "allow" ? "allowed" : "denied";
    process.stdout.write(
      `${id} is ${done} (${textOf(response?.["scope"]) ?? ""}, until ${until})\n`,
    );
    const policy = textOf(response?.["policy"]);
    if (policy !== undefined) process.stdout.write(policy);
  }
  return 0;
}

function said(status: number, text: string): string {
  const message = textOf(parseJsonObject(text)?.["message"]) ?? "no reason";
  return `the session API says ${status}: ${printableLine(message)}`;
}
