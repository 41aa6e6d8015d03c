/** A body that is counted chunk by chunk: nothing of the client goes on before it may. */
import type { BodySink, BodySource } from "../../http/body-source.ts";
import type { ByteMeter } from "../../pipeline/byte-meter.ts";

/** Stands between the client's body and its reader. */
export class MeteredBody implements BodySource, BodySink {
  readonly #source: BodySource;
  readonly #meter: ByteMeter;
  readonly #onRefused: () => void;
  #sink: BodySink | undefined;
  #isOpen = false;
  /** The verdict on it is awaited. */
  #asked: Buffer | undefined;
  /** It came before somebody took it. */
  #ready: Buffer | undefined;
  #isEnded = false;

  constructor(source: BodySource, meter: ByteMeter, onRefused: () => void) {
    this.#source = source;
    this.#meter = meter;
    this.#onRefused = onRefused;
  }

  get isComplete(): boolean {
    return this.#source.isComplete && this.#asked === undefined && this.#ready === undefined;
  }

  get isDrained(): boolean {
    return this.#asked === undefined && this.#ready === undefined && this.#sink?.isDrained === true;
  }

  open(sink: BodySink): void {
    this.#sink = sink;
    if (this.#isOpen) this.resume();
    else {
      this.#isOpen = true;
      this.#source.open(this);
    }
  }

  resume(): void {
    if (this.#asked !== undefined || this.#sink === undefined) return;
    const ready = this.#ready;
    this.#ready = undefined;
    if (ready !== undefined && !this.#sink.data(ready)) return;
    if (this.#isEnded) this.#tellEnd();
    else this.#source.resume();
  }

  detach(): void {
    this.#sink = undefined;
  }

  close(): void {
    this.#source.close?.();
  }

  data(chunk: Buffer): boolean {
    const said = this.#meter.pass("client", chunk.length);
    if (said === true) return this.#give(chunk);
    if (said === false) {
      this.#onRefused();
      return false;
    }
    this.#asked = chunk;
    void said.then((isPassed) => {
      this.#asked = undefined;
      if (!isPassed) this.#onRefused();
      else {
        this.#ready = chunk;
        this.resume();
      }
    });
    return false;
  }

  end(): void {
    this.#isEnded = true;
    if (this.#asked === undefined && this.#ready === undefined) this.#tellEnd();
  }

  fail(error: Error): void {
    const sink = this.#sink;
    this.#sink = undefined;
    sink?.fail(error);
  }

  #give(chunk: Buffer): boolean {
    if (this.#sink !== undefined) return this.#sink.data(chunk);
    this.#ready = chunk;
    return false;
  }

  #tellEnd(): void {
    const sink = this.#sink;
    this.#sink = undefined;
    sink?.end();
  }
}
