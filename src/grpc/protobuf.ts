/** As much of the wire format of protocol buffers as our messages need. */

/** One field: what has a length (bytes, a text, a message), or a number. */
export type ProtoField = { readonly number: number } & (
  | { readonly bytes: Buffer }
  /** Beyond 53 bits it is not exact. */
  | { readonly varint: number }
  | { readonly double: number }
);

/** A response has some dozens; more is somebody who wants this process to be busy. */
const maxFields = 10_000;

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** All fields in their order. Throws an Error where the bytes are no message. */
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
        found.push({ number, varint: reader.varint() });
        break;
      case 1:
        found.push({ number, double: reader.take(8).readDoubleLE() });
        break;
      case 2:
        found.push({ number, bytes: reader.take(reader.varint()) });
        break;
      case 5:
        // None of our messages has a field of this kind: it is an unknown one.
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
  return repeatedOf(fields, number).at(-1) ?? Buffer.alloc(0);
}

/** The same as text. Throws an Error for bytes that are not UTF-8. */
export function textOf(fields: readonly ProtoField[], number: number): string {
  return utf8.decode(bytesOf(fields, number));
}

/** All fields of a number that have a length. */
export function repeatedOf(fields: readonly ProtoField[], number: number): Buffer[] {
  return fields.flatMap((field) =>
    field.number === number && "bytes" in field ? [field.bytes] : [],
  );
}

/** All fields of a number, as text. Throws an Error for bytes that are not UTF-8. */
export function textsOf(fields: readonly ProtoField[], number: number): string[] {
  return repeatedOf(fields, number).map((bytes) => utf8.decode(bytes));
}

/** The message in a field; several are one (encoding, "last one wins"). Undefined where there is none. */
export function messageIn(fields: readonly ProtoField[], number: number): ProtoField[] | undefined {
  const parts = repeatedOf(fields, number);
  return parts.length === 0 ? undefined : readFields(Buffer.concat(parts));
}

/** A number or an enumeration; undefined where it is not on the wire. */
export function varintIn(fields: readonly ProtoField[], number: number): number | undefined {
  const field = fields.findLast((one) => one.number === number && "varint" in one);
  return field !== undefined && "varint" in field ? field.varint : undefined;
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

/** A field with a whole number that is not negative. */
export function numberField(number: number, value: number): Buffer {
  return Buffer.concat([varintOf(number * 8), varintOf(value)]);
}

/** The `int64` of -1. */
export function minusOneField(number: number): Buffer {
  return Buffer.concat([varintOf(number * 8), Buffer.from([...Array(9).fill(0xff), 0x01])]);
}

/** A `double`. */
export function doubleField(number: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return Buffer.concat([varintOf(number * 8 + 1), bytes]);
}

/** A `map<string, …>`, whose values are texts or messages. */
export function mapField(
  number: number,
  entries: Iterable<readonly [name: string, value: string | Uint8Array]>,
): Buffer {
  const fields: Buffer[] = [];
  for (const [name, value] of entries)
    fields.push(fieldOf(number, Buffer.concat([fieldOf(1, name), fieldOf(2, value)])));
  return Buffer.concat(fields);
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

  /** Up to 64 bits. */
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
