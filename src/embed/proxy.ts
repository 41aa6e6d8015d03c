/**
 * The proxy inside another program: `import { createProxy } from "authbridge-proxy"`.
 *
 * This module is the package's public surface, with `authbridge-proxy/plugin`. It takes no signal, ends no process and writes
 * nowhere but to the logger that it is given.
 */
import { App } from "../app/app.ts";
import { ConfigRejected } from "../app/build-problems.ts";
import type { Refused } from "../app/data-plane.ts";
import { packageVersion } from "../cli/version.ts";
import { EventFeed, type EventReader } from "../session/event-feed.ts";
import type { SessionEvent } from "../session/event.ts";
import { givenLog, type ProxyLogger } from "./given-log.ts";
import { isOpened, optionsName, type ProxyOptions, readOptions } from "./options.ts";
import { OptionsError } from "./options-error.ts";

export type { ProxyLogger } from "./given-log.ts";
export type { GivenPlugin, PipelineOptions, PipelineStep, ProxyOptions } from "./options.ts";
export type { EventReader } from "../session/event-feed.ts";
export { type OptionProblem, OptionsError } from "./options-error.ts";

/** One thing that happened to one message: what the session API shows of it. */
export type ProxyEvent = SessionEvent;

/** Where something listens. */
export interface ProxyAddress {
  readonly host: string;
  readonly port: number;
}

/** What is listened on; a surface that is not open is absent. */
export interface ProxyAddresses {
  readonly forward?: ProxyAddress;
  readonly reverse?: ProxyAddress;
  readonly transparent?: ProxyAddress;
  readonly transparent_inbound?: ProxyAddress;
  readonly sessions?: ProxyAddress;
  readonly health?: ProxyAddress;
  readonly stats?: ProxyAddress;
}

/** The events from now on, for any number of readers. */
export interface ProxyEvents extends AsyncIterable<ProxyEvent> {
  /** Events that readers were too slow for. */
  readonly dropped: number;
  [Symbol.asyncIterator](): EventReader;
}

/** How long `close` lets open work run. */
export interface CloseOptions {
  /** Milliseconds. Default: `limits.drain_timeout` of the options. */
  readonly timeout?: number;
}

/** A proxy; any number of them live in one process. */
export interface EmbeddedProxy extends AsyncDisposable {
  /** Binds and serves. Rejects with {@link OptionsError} where the options cannot be served. */
  listen(): Promise<ProxyAddresses>;
  /** What is bound; empty before `listen` and after `close`. */
  readonly address: ProxyAddresses;
  readonly events: ProxyEvents;
  /** Serves other options from now on. Rejects with {@link OptionsError}, and then nothing has changed. */
  reload(options: ProxyOptions): Promise<void>;
  /** Stops listening, lets open work finish within the limit, and ends `events`. */
  close(options?: CloseOptions): Promise<void>;
}

/** Makes a proxy, which does nothing before {@link EmbeddedProxy.listen}. */
export function createProxy(options: ProxyOptions = {}): EmbeddedProxy {
  return new Embedded(options);
}

class Embedded implements EmbeddedProxy {
  readonly events = new EventFeed();
  readonly #logger: ProxyLogger | undefined;
  readonly #options: ProxyOptions;
  #revision = 0;
  #app: App | undefined;
  #starting: Promise<ProxyAddresses> | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: ProxyOptions) {
    this.#options = options;
    this.#logger = (options as ProxyOptions | undefined)?.logger;
  }

  get address(): ProxyAddresses {
    return this.#closing === undefined ? (this.#app?.addresses ?? {}) : {};
  }

  listen(): Promise<ProxyAddresses> {
    if (this.#closing !== undefined) return Promise.reject(new Error("the proxy is closed"));
    this.#starting ??= this.#start().catch((error: unknown) => {
      // A port that is taken may be free at the next call.
      this.#starting = undefined;
      throw error;
    });
    return this.#starting;
  }

  async reload(options: ProxyOptions): Promise<void> {
    const app = this.#app;
    if (app === undefined || this.#closing !== undefined)
      throw new Error("the proxy does not listen");
    const { logger } = options;
    if (logger !== undefined && logger !== this.#logger)
      throw refusal("logger: cannot change while the proxy listens");
    const loaded = readOptions(options, ++this.#revision);
    const refused = await app.reload(() => Promise.resolve(loaded));
    if (refused !== undefined) throw refusal(refused);
  }

  close({ timeout }: CloseOptions = {}): Promise<void> {
    if (timeout !== undefined && !(timeout >= 0))
      return Promise.reject(new RangeError("timeout must be a number of milliseconds"));
    this.#closing ??= this.#close(timeout);
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #start(): Promise<ProxyAddresses> {
    const options = this.#options;
    const loaded = readOptions(options, this.#revision);
    try {
      this.#app = await App.start({
        file: optionsName,
        given: {
          load: () => Promise.resolve(loaded),
          opens: (surface) => isOpened(options, surface),
        },
        events: this.events,
        lenient: false,
        // No value of the options is looked up in it; keys that name a variable are.
        env: process.env,
        version: packageVersion(),
        log: givenLog(this.#logger),
      });
      return this.#app.addresses;
    } catch (error) {
      throw error instanceof ConfigRejected ? refusal(error.problems) : error;
    }
  }

  async #close(timeout: number | undefined): Promise<void> {
    await this.#starting?.catch(() => undefined);
    await this.#app?.close(timeout === undefined ? undefined : Math.min(timeout, longestTimerMs));
    this.events.end();
  }
}

/** A timer of Node holds no more. */
const longestTimerMs = 2_147_483_647;

function refusal(refused: Refused): OptionsError {
  return new OptionsError(
    typeof refused === "string"
      ? [{ key: "", message: refused }]
      : refused.map(({ keyPath, message, suggestion }) => ({
          key: keyPath,
          message: suggestion === undefined ? message : `${message} (did you mean ${suggestion}?)`,
        })),
  );
}
