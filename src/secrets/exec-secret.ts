/** What a command prints: a secret, and how long it is good for. The command gets no shell and next to no environment. */
import { type ChildProcess, spawn } from "node:child_process";
import { parseDuration } from "../duration.ts";
import type { Clock } from "../duration.ts";
import { messageOf } from "../errors.ts";
import { type JsonObject, numberOf, parseJsonObject, textOf } from "../http/json-access.ts";
import { withoutTokens } from "../oauth/token-response.ts";
import { Secret } from "../secret.ts";
import { type Fetched, type SecretFetcher, unavailable } from "./secret-source.ts";

/** What is run. */
export interface ExecSecretOptions {
  /** The path of the program, and its arguments. */
  readonly command: readonly [string, ...string[]];
  readonly env: Readonly<Record<string, string>>;
  /** How long a value is good for where the output does not say it. */
  readonly ttlMs: number | undefined;
  readonly clock: Clock;
}

const maxOutputBytes = 64 * 1024;
const maxErrorBytes = 4 * 1024;

/** Runs one command, never twice at once. */
export class ExecSecret implements SecretFetcher<Secret, unknown> {
  readonly #options: ExecSecretOptions;
  #running: ChildProcess | undefined;
  #ended: Promise<unknown> = Promise.resolve();

  constructor(options: ExecSecretOptions) {
    this.#options = options;
  }

  async fetch(_means: unknown, signal: AbortSignal): Promise<Fetched> {
    // One that was killed may not have gone yet.
    await this.#ended;
    signal.throwIfAborted();
    const { clock, ttlMs } = this.#options;
    const startedAt = clock.now();
    const text = (await this.#run(signal)).trim();
    const fields = parseJsonObject(text);
    // A JSON object without a value is not meant as a secret, unless it is said how long it is good for.
    if (fields !== undefined && (fields["value"] !== undefined || ttlMs === undefined))
      return readOutput(fields, startedAt, ttlMs);
    if (text === "") throw unavailable("the command printed nothing");
    if (ttlMs === undefined)
      throw unavailable("the command printed no JSON object with value, and ttl is not set");
    return { value: new Secret(text), expiresAt: startedAt + ttlMs };
  }

  close(): void {
    killGroup(this.#running);
  }

  #run(signal: AbortSignal): Promise<string> {
    const { command, env } = this.#options;
    const [program, ...args] = command;
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const child = spawn(program, args, {
      env,
      cwd: "/",
      stdio: ["ignore", "pipe", "pipe"],
      // A group of its own: what it starts is killed with it.
      detached: true,
    });
    this.#running = child;
    const ended = Promise.withResolvers<void>();
    this.#ended = ended.promise;
    const kill = (): void => {
      killGroup(child);
      // Whoever left the group may hold them open.
      child.stdout.destroy();
      child.stderr.destroy();
    };
    const end = (): void => {
      signal.removeEventListener("abort", kill);
      if (this.#running === child) this.#running = undefined;
      ended.resolve();
    };
    child.once("error", (error) => {
      end();
      reject(unavailable(`the command cannot be run: ${messageOf(error)}`, error));
    });
    // There is no process, and where descriptors are used up there are no pipes either: the error is on its way.
    if (child.pid === undefined) return promise;
    signal.addEventListener("abort", kill, { once: true });
    const output = collect(child.stdout, maxOutputBytes, kill);
    const errors = collect(child.stderr, maxErrorBytes);
    child.once("exit", () => ended.resolve());
    child.once("close", (code, killed) => {
      end();
      const { bytes, isCut } = output;
      if (isCut)
        return reject(unavailable(`the command printed more than ${maxOutputBytes} bytes`));
      if (code === 0) return resolve(Buffer.concat(bytes).toString("utf8"));
      const said = harmless(Buffer.concat(errors.bytes).toString("utf8"), Object.values(env));
      const how = killed === null ? `ended with status ${code}` : `was ended by ${killed}`;
      reject(unavailable(`the command ${how}${said === "" ? "" : `: ${said}`}`));
    });
    return promise;
  }
}

function collect(stream: NodeJS.ReadableStream, most: number, onMore?: () => void) {
  const collected: { readonly bytes: Buffer[]; isCut: boolean } = { bytes: [], isCut: false };
  let size = 0;
  stream.on("data", (chunk: Buffer) => {
    size += chunk.length;
    if (size <= most) collected.bytes.push(chunk);
    else if (!collected.isCut) {
      collected.isCut = true;
      onMore?.();
    }
  });
  return collected;
}

/** What the command complained of, without what could be a secret: what it was given, long runs, and values of such names. */
function harmless(text: string, given: readonly string[]): string {
  const ungiven = given.reduce((rest, value) => rest.replaceAll(value || "\0", "[cut]"), text);
  const named =
    /((?:secret|passw\w*|token|key|credential|bearer|basic)\w*["']?\s*[=:\s]\s*)[^\s,;]+/gi;
  return withoutTokens(ungiven.replace(named, "$1[cut]").replace(/\s+/g, " ").trim());
}

function killGroup(child: ChildProcess | undefined): void {
  if (child?.pid === undefined) return;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // It has gone by itself.
  }
}

function readOutput(fields: JsonObject, startedAt: number, ttlMs: number | undefined): Fetched {
  const text = textOf(fields["value"]);
  if (text === undefined) throw unavailable("the command printed JSON without a value");
  const value = new Secret(text.trim());
  const { expires_at: end, ttl } = fields;
  if (end !== undefined && end !== null) {
    const at = typeof end === "number" ? end * 1000 : Date.parse(textOf(end) ?? "");
    if (!Number.isFinite(at))
      throw unavailable("the command printed an expires_at that is no time");
    return { value, expiresAt: at };
  }
  const ownMs = ttl === undefined || ttl === null ? ttlMs : lengthOf(ttl);
  if (ownMs === undefined)
    throw unavailable("the command printed neither expires_at nor ttl, and ttl is not set");
  return { value, expiresAt: startedAt + ownMs };
}

/** Seconds, or a duration as the file writes them. */
function lengthOf(ttl: unknown): number {
  const seconds = numberOf(ttl);
  const ms = seconds === undefined ? parseDuration(textOf(ttl) ?? "") : seconds * 1000;
  if (ms === undefined || ms <= 0) throw unavailable("the command printed a ttl that is none");
  return ms;
}
