/** Secrets that are at hand: of the configuration or the environment, and of a file that is looked at when it is used. */
import type { WatchedFile } from "../files/watched-file.ts";
import type { Secret } from "../secret.ts";
import { type Held, type SecretSource, unavailable } from "./secret-source.ts";

/** One value for the life of a configuration. */
export class FixedSecret implements SecretSource {
  readonly name: string;
  readonly #held: Held;

  constructor(name: string, value: Secret) {
    this.name = name;
    this.#held = { value };
  }

  current(): Held {
    return this.#held;
  }

  another(): boolean {
    return false;
  }

  notReady(): undefined {
    return undefined;
  }

  begin(): void {
    // It is there.
  }

  close(): void {
    // Nothing is open.
  }
}

/** The text of a file as of at most a second ago; the last good one while the newest cannot be used. */
export class FileSecret implements SecretSource {
  readonly name: string;
  readonly #file: WatchedFile<Secret>;

  constructor(name: string, file: WatchedFile<Secret>) {
    this.name = name;
    this.#file = file;
  }

  current(): Held | Promise<Held> {
    const value = this.#file.current();
    if (value !== undefined) return { value };
    const problem = new Error(this.#file.problem ?? "not read yet");
    return Promise.reject(unavailable(`no value from ${this.name}`, problem));
  }

  another(refused: Secret): boolean {
    const value = this.#file.current();
    return value !== undefined && value.reveal() !== refused.reveal();
  }

  notReady(): string | undefined {
    if (this.#file.current() !== undefined) return undefined;
    return `${this.name} pending (${this.#file.problem ?? "not read yet"})`;
  }

  begin(): void {
    // Whoever uses it looks at the file.
  }

  close(): void {
    // Nothing is open.
  }
}
