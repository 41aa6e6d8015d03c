/** Asks the session API of a proxy that runs. */
import { request as sendHttp } from "node:http";
import { request as sendHttps } from "node:https";
import { text as readAll } from "node:stream/consumers";
import type { Config } from "../config/presets.ts";
import { ProxyError } from "../errors.ts";
import { textOfGiven } from "../files/given-file.ts";
import { addressOfFile, proxyUrl } from "./proxy-address.ts";

const timeoutMs = 10_000;
const maxBytes = 64 * 1024 * 1024;

/** Where it is, and the file with the secret that it asks for. */
export interface SessionApi {
  readonly url: string;
  readonly secretFile: string | undefined;
}

/** That of the process that runs with this file; `otherwise` says what to do where it cannot be asked. */
export function sessionApiOf(config: Config, otherwise: string): SessionApi {
  const found = addressOfFile(config, "sessions", {
    closed: `session.enabled is false: the running proxy cannot be asked; ${otherwise}`,
    otherwise,
  });
  if (typeof found === "string") throw new ProxyError("config.invalid", found);
  return { url: proxyUrl(found), secretFile: config.session.api_secret_file };
}

/** The body of a 200; anything else is a fault. */
export async function askSessionApi(api: SessionApi, path: string): Promise<string> {
  const { status, text } = await callSessionApi(api, path);
  if (status === 200) return text;
  throw silent(new URL(path, api.url), `status ${status}`);
}

/** The response to a GET, or to a POST of a form. */
export async function callSessionApi(
  { url, secretFile }: SessionApi,
  path: string,
  form?: URLSearchParams,
): Promise<{ readonly status: number; readonly text: string }> {
  const headers = {
    ...(secretFile === undefined ? {} : { authorization: `Bearer ${await secretOf(secretFile)}` }),
    ...(form === undefined ? {} : { "content-type": "application/x-www-form-urlencoded" }),
  };
  const target = new URL(path, url);
  const send = target.protocol === "https:" ? sendHttps : sendHttp;
  const method = form === undefined ? "GET" : "POST";
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void => reject(silent(target, error.message));
    const request = send(
      target,
      { agent: false, method, headers, timeout: timeoutMs },
      (response) => {
        let bytes = 0;
        response.on("data", (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes > maxBytes) response.destroy(new Error("the answer is too long"));
        });
        const status = response.statusCode ?? 0;
        readAll(response).then((text) => resolve({ status, text }), fail);
      },
    );
    request.on("error", fail);
    request.on("timeout", () => request.destroy(new Error(`no answer in ${timeoutMs} ms`)));
    request.end(form?.toString());
  });
}

function silent(target: URL, why: string): ProxyError {
  return new ProxyError(
    "upstream.refused",
    `the session API at ${target.host} does not answer: ${why}`,
  );
}

const maxSecretBytes = 1_048_576;

/** The secret of a file, as a field can have it. */
export async function secretOf(path: string): Promise<string> {
  const secret = (await textOfGiven(path, maxSecretBytes)).trim();
  if (/^[\x20-\x7e]+$/.test(secret)) return secret;
  throw new ProxyError(
    "config.invalid",
    `${path} holds no secret of the session API: it must be one line of ASCII characters`,
  );
}
