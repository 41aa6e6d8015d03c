/** `tail`: the event stream of a running proxy, on a terminal. */
import { get as getHttp, type IncomingMessage } from "node:http";
import { get as getHttps } from "node:https";
import { setTimeout as delay } from "node:timers/promises";
import { loadConfig } from "../config/load.ts";
import { formatProblem } from "../yaml/problem.ts";
import { messageOf, ProxyError } from "../errors.ts";
import { SseReader } from "../http/sse.ts";
import {
  eventLine,
  isFault,
  isRefusal,
  type Palette,
  paletteFor,
  stepsOf,
  textOf,
  type WireEvent,
  printableLine,
  printableJson,
} from "./event-line.ts";
import { addressOfFile, proxyUrl } from "./proxy-address.ts";
import { secretOf } from "./session-api.ts";

const defaultUrl = "http://127.0.0.1:9094";
const maxEventBytes = 64 * 1_048_576;
const firstRetryMs = 500;
const maxRetryMs = 10_000;
/** The API sends a comment every 30 seconds. */
const silenceMs = 95_000;

interface TailCommand {
  /** The session API; from the file when absent, else {@link defaultUrl}. */
  readonly url?: string;
  readonly file?: string;
  readonly lenient: boolean;
  readonly session?: string;
  /** A part of the host, in lower case. */
  readonly host?: string;
  readonly decision?: "allow" | "deny" | "error";
  readonly plugin?: string;
  readonly isJson: boolean;
  readonly secretFile?: string;
  /** Kept events to begin with. */
  readonly limit: number;
}

/** A mistake of the caller, or a response that asking again does not change. */
class TailFault extends Error {
  readonly exitCode: number;

  constructor(message: string, exitCode = 1) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** Runs until its output is closed or it is interrupted; resolves with the exit code. */
export async function tail(command: TailCommand): Promise<number> {
  const output = process.stdout;
  const isColoured = output.isTTY && process.env["NO_COLOR"] === undefined;
  const reading = new AbortController();
  // `| head` has seen enough.
  output.on("error", () => reading.abort());
  try {
    const { url, secretFile } = await apiOf(command);
    const secret = secretFile === undefined ? undefined : await secretOf(secretFile);
    const feed = new Feed({ url, secret, command, palette: paletteFor(isColoured) });
    await feed.follow(reading.signal, (line) => void output.write(`${line}\n`));
    return 0;
  } catch (error) {
    process.stderr.write(`authbridge-proxy: ${printableLine(messageOf(error))}\n`);
    if (error instanceof TailFault) return error.exitCode;
    return error instanceof ProxyError && error.code === "config.invalid" ? 2 : 1;
  }
}

interface SessionApi {
  readonly url: string;
  readonly secretFile: string | undefined;
}

/** What the command line says, else what the file says. */
async function apiOf({ url, file, lenient, secretFile }: TailCommand): Promise<SessionApi> {
  if (url !== undefined) return { url: url.replace(/\/$/, ""), secretFile };
  if (file === undefined) return { url: defaultUrl, secretFile };
  const loaded = await loadConfig(file, { lenient, env: process.env, allowUnset: true });
  if (loaded.kind === "rejected")
    throw new TailFault(loaded.problems.map(formatProblem).join("; "), 2);
  const found = addressOfFile(loaded.config, "sessions", {
    closed: "the file opens no session API (session.enabled: true does)",
    otherwise: "say where it is with --url",
  });
  if (typeof found === "string") throw new TailFault(found, 2);
  return {
    url: proxyUrl(found),
    secretFile: secretFile ?? loaded.config.session.api_secret_file,
  };
}

interface FeedOptions {
  readonly url: string;
  readonly secret: string | undefined;
  readonly command: TailCommand;
  readonly palette: Palette;
}

class Feed {
  readonly #options: FeedOptions;
  #lastId: string | undefined;

  constructor(options: FeedOptions) {
    this.#options = options;
  }

  /** Comes back with the last id when the stream ends; rejects where the first attempt fails. */
  async follow(signal: AbortSignal, print: (line: string) => void): Promise<void> {
    let response: IncomingMessage | undefined = await this.#open(signal);
    let retryMs = firstRetryMs;
    while (!signal.aborted) {
      if (response !== undefined) {
        const lost = await this.#read(response, signal, print);
        if (signal.aborted) return;
        process.stderr.write(`authbridge-proxy: ${printableLine(lost)}: connecting again\n`);
        retryMs = firstRetryMs;
      }
      await delay(retryMs, undefined, { signal }).catch(() => undefined);
      retryMs = Math.min(maxRetryMs, retryMs * 2);
      response = signal.aborted ? undefined : await this.#reopen(signal);
    }
  }

  async #reopen(signal: AbortSignal): Promise<IncomingMessage | undefined> {
    try {
      return await this.#open(signal);
    } catch (error) {
      if (error instanceof TailFault) throw error;
      return undefined;
    }
  }

  #open(signal: AbortSignal): Promise<IncomingMessage> {
    const { url, secret, command } = this.#options;
    const target = new URL("/v1/events", url);
    if (command.session !== undefined) target.searchParams.set("session", command.session);
    if (command.limit > 0 && this.#lastId === undefined)
      target.searchParams.set("limit", String(command.limit));
    const headers = {
      Accept: "text/event-stream",
      ...(secret === undefined ? {} : { Authorization: `Bearer ${secret}` }),
      ...(this.#lastId === undefined ? {} : { "Last-Event-ID": this.#lastId }),
    };
    const get = target.protocol === "https:" ? getHttps : getHttp;
    return new Promise((resolve, reject) => {
      // Of its own: the shared agent may go through the proxy that the environment names.
      const options = { agent: false, headers, signal, timeout: silenceMs } as const;
      const request = get(target, options, (response) => {
        const { statusCode = 0 } = response;
        if (statusCode === 200) resolve(response);
        else {
          response.destroy();
          const why = statusCode === 401 ? "a secret is needed (--secret-file)" : "no event stream";
          reject(new TailFault(`${url} answered ${statusCode}: ${why}`));
        }
      });
      request.on("timeout", () => request.destroy(new Error("the stream is silent")));
      request.on("error", (error) =>
        reject(new Error(`${url} cannot be reached: ${messageOf(error)}`, { cause: error })),
      );
    });
  }

  /** Resolves with why the stream ended. */
  async #read(
    response: IncomingMessage,
    signal: AbortSignal,
    print: (line: string) => void,
  ): Promise<string> {
    const reader = new SseReader({ limitBytes: maxEventBytes });
    try {
      for await (const chunk of response) {
        for (const { data, id, comments } of reader.push(chunk as Buffer)) {
          const missed = comments.find((comment) => comment.startsWith("dropped "));
          if (missed !== undefined)
            process.stderr.write(`authbridge-proxy: events ${printableLine(missed)}\n`);
          if (id !== undefined) this.#lastId = id;
          if (data !== undefined) this.#print(data, print);
        }
        if (signal.aborted) break;
      }
      return "the stream ended";
    } catch (error) {
      return messageOf(error);
    } finally {
      response.destroy();
    }
  }

  #print(data: string, print: (line: string) => void): void {
    let event: WireEvent;
    try {
      event = JSON.parse(data) as WireEvent;
    } catch {
      return;
    }
    const { command, palette } = this.#options;
    if (!isWanted(event, command)) return;
    print(command.isJson ? printableJson(event) : eventLine(event, palette));
  }
}

function isWanted(event: WireEvent, { host, decision, plugin }: TailCommand): boolean {
  if (host !== undefined && !textOf(event, "host").toLowerCase().includes(host)) return false;
  if (plugin !== undefined && stepsOf(event).every((step) => step.plugin !== plugin)) return false;
  switch (decision) {
    case "allow":
      return textOf(event, "phase") === "request";
    case "deny":
      return isRefusal(event);
    case "error":
      return isFault(event);
    case undefined:
  }
  return true;
}
