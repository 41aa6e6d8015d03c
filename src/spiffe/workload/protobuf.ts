/** As much of the wire format of protocol buffers as the messages of the Workload API need: fields with a length. */

/** One field with a length: bytes, a text or a message. */
export interface ProtoField {
  readonly number: number;
  readonly bytes: Buffer;
}

/** A response has some dozens; more is somebody who wants this process to be busy. */
const maxFields = 10_000;

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** The fields with a length, in their order; fields of other kinds are unknown ones and skipped. Throws an Error. */
export function readFields(message: Buffer): ProtoField[] {
  const found: ProtoField[] = [];
  const reader = new Reader(message);
  for (let count = 0; !reader.isAtEnd; count += 1) {
    if (count === maxFields) throw new Error(`a message has more than ${maxFields} fields`);
    const key = reader.varint();
    const number = Math.floor(key / 8);
    if (number === 0) throw new Error("a field has the number 0");
    switch (key % 8) {
      case 0:
        reader.varint();
        break;
      case 1:
        reader.take(8);
        break;
      case 2:
        found.push({ number, bytes: reader.take(reader.varint()) });
        break;
      case 5:
        reader.take(4);
        break;
      default:
        throw new Error("a field is of no kind that there is");
    }
  }
  return found;
}

/** The last field of a number: that one counts (encoding, "last one wins"). Empty where there is none. */
export function bytesOf(fields: readonly ProtoField[], number: number): Buffer {
  return fields.findLast((field) => field.number === number)?.bytes ?? Buffer.alloc(0);
}

/** The same as text. Throws an Error for bytes that are not UTF-8. */
export function textOf(fields: readonly ProtoField[], number: number): string {
  return utf8.decode(bytesOf(fields, number));
}

/** All fields of a number. */
export function repeatedOf(fields: readonly ProtoField[], number: number): Buffer[] {
  return fields.flatMap((field) => (field.number === number ? [field.bytes] : []));
}

/** A `map<string, bytes>`. */
export function mapOf(fields: readonly ProtoField[], number: number): Map<string, Buffer> {
  return new Map(
    repeatedOf(fields, number).map((entry) => {
      const pair = readFields(entry);
      return [textOf(pair, 1), bytesOf(pair, 2)];
    }),
  );
}

/** A field with a length. */
export function fieldOf(number: number, value: string | Uint8Array): Buffer {
  const bytes = Buffer.from(value as string);
  return Buffer.concat([varintOf(number * 8 + 2), varintOf(bytes.length), bytes]);
}

function varintOf(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) + 0x80);
    rest = Math.floor(rest / 0x80);
  }
  return Buffer.from([...bytes, rest]);
}

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#bytes.length;
  }

  /** Up to 64 bits; what is beyond the precision of a number is the value of a field that is skipped. */
  varint(): number {
    let value = 0;
    for (let index = 0; index < 10; index += 1) {
      const byte = this.#bytes[this.#at];
      if (byte === undefined) throw new Error("a message ends in a number");
      this.#at += 1;
      value += (byte & 0x7f) * 2 ** (7 * index);
      if (byte < 0x80) return value;
    }
    throw new Error("a number is longer than 10 bytes");
  }

  take(length: number): Buffer {
    if (length > this.#bytes.length - this.#at) throw new Error("a message ends in a field");
    const taken = this.#bytes.subarray(this.#at, this.#at + length);
    this.#at += length;
    return taken;
  }
}
