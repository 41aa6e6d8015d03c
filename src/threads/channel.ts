/** Calls between two threads: questions with their responses, and words that nobody responds to. */
import type { MessagePort, Worker } from "node:worker_threads";
import { isErrorCode, messageOf, ProxyError } from "../errors.ts";

/** What one side may be asked: the names, and what each takes and gives. Values are cloned on their way. */
export type Calls<C> = { readonly [Name in keyof C]: (argument: never) => unknown };

type ArgumentOf<F> = F extends (argument: infer A) => unknown ? A : never;
type ResultOf<F> = F extends (argument: never) => infer R ? Awaited<R> : never;

/** What stands on this side; a rejection crosses with its code and message. */
export type Handlers<C> = {
  readonly [Name in keyof C]: (
    argument: ArgumentOf<C[Name]>,
  ) => ResultOf<C[Name]> | Promise<ResultOf<C[Name]>>;
};

/** Either end of the connection of two threads. */
export type Port = Pick<MessagePort | Worker, "postMessage"> & {
  on(event: "message", listener: (message: unknown) => void): unknown;
};

/** A question that waits. */
interface Waiting {
  resolve(this: void, result: never): void;
  reject(this: void, error: unknown): void;
  readonly timer: NodeJS.Timeout | undefined;
}

/** A message: with an id it is a question, without one a word. */
type Message =
  | {
      readonly kind: "call";
      readonly name: string;
      readonly id?: number;
      readonly argument: unknown;
    }
  | { readonly kind: "result"; readonly id: number; readonly result: unknown }
  | {
      readonly kind: "fault";
      readonly id: number;
      readonly code?: string;
      readonly message: string;
    };

/** One end. `Theirs` is what the other side may be asked, `Ours` what this one may. */
export class Channel<Theirs extends Calls<Theirs>, Ours extends Calls<Ours>> {
  readonly #port: Port;
  readonly #handlers: Handlers<Ours>;
  readonly #waiting = new Map<number, Waiting>();
  #lastId = 0;
  #ended: Error | undefined;

  constructor(port: Port, handlers: Handlers<Ours>) {
    this.#port = port;
    this.#handlers = handlers;
    port.on("message", (message) => this.#receive(message as Message));
  }

  /** Asks, and waits `limitMs` at most where there is a limit. Rejects with what the other side rejected with. */
  ask<Name extends keyof Theirs & string>(
    name: Name,
    argument: ArgumentOf<Theirs[Name]>,
    limitMs?: number,
  ): Promise<ResultOf<Theirs[Name]>> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      const expire = (): void => {
        this.#waiting.delete(id);
        reject(new ProxyError("internal.fault", `${name}: no response within ${limitMs} ms`));
      };
      const timer = limitMs === undefined ? undefined : setTimeout(expire, limitMs);
      this.#waiting.set(id, { resolve, reject, timer });
      this.#send({ kind: "call", name, id, argument });
    });
  }

  /** Says something that is not responded to. */
  tell<Name extends keyof Theirs & string>(name: Name, argument: ArgumentOf<Theirs[Name]>): void {
    if (this.#ended === undefined) this.#send({ kind: "call", name, argument });
  }

  /** The other thread is gone: whoever waits for it is told why. */
  end(why: Error): void {
    this.#ended = why;
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(why);
    }
    this.#waiting.clear();
  }

  #send(message: Message): void {
    this.#port.postMessage(message, []);
  }

  #receive(message: Message): void {
    if (message.kind === "call") {
      void this.#serve(message);
      return;
    }
    const waiting = this.#waiting.get(message.id);
    // Nobody waits any more.
    if (waiting === undefined) return;
    this.#waiting.delete(message.id);
    clearTimeout(waiting.timer);
    if (message.kind === "result") waiting.resolve(message.result as never);
    else waiting.reject(faultOf(message));
  }

  async #serve({ name, id, argument }: Message & { readonly kind: "call" }): Promise<void> {
    try {
      const handler = this.#handlers[name as keyof Ours] as (argument: unknown) => unknown;
      const result = await handler(argument);
      if (id !== undefined) this.#send({ kind: "result", id, result });
    } catch (error) {
      if (id === undefined) throw error;
      const code = error instanceof ProxyError ? { code: error.code } : {};
      this.#send({ kind: "fault", id, ...code, message: messageOf(error) });
    }
  }
}

function faultOf({
  code = "",
  message,
}: {
  readonly code?: string;
  readonly message: string;
}): Error {
  return new ProxyError(isErrorCode(code) ? code : "internal.fault", message);
}
