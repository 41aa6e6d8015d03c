/** AES-256-GCM with keys that change: the first key of the file seals, all of them open. */
import { createCipheriv, createDecipheriv, hash, randomBytes } from "node:crypto";

/** One key, named by its digest so that a sealed text says which one opens it. */
interface Key {
  readonly name: string;
  readonly bytes: Buffer;
}

const mark = "s1.";
const ivBytes = 12;
const tagBytes = 16;

/** The keys of one version of the file. */
export class KeyRing {
  readonly #keys: readonly Key[];

  constructor(keys: readonly Buffer[]) {
    this.#keys = keys.map((bytes) => ({ name: hash("sha256", bytes).slice(0, 8), bytes }));
  }

  /** Seals a text for the place that it will stand in; elsewhere it does not open. */
  seal(text: string, place: string): string {
    const [key] = this.#keys;
    if (key === undefined) throw new TypeError("a ring has a key");
    const iv = randomBytes(ivBytes);
    const cipher = createCipheriv("aes-256-gcm", key.bytes, iv).setAAD(Buffer.from(place));
    const sealed = [iv, cipher.update(text, "utf8"), cipher.final(), cipher.getAuthTag()];
    return `${mark}${key.name}.${Buffer.concat(sealed).toString("base64")}`;
  }

  /** Undefined for what none of the keys has sealed for this place. */
  open(sealed: string, place: string): string | undefined {
    if (!sealed.startsWith(mark)) return undefined;
    const [name, text = ""] = sealed.slice(mark.length).split(".");
    const key = this.#keys.find((one) => one.name === name);
    const bytes = Buffer.from(text, "base64");
    if (key === undefined || bytes.length < ivBytes + tagBytes) return undefined;
    const decipher = createDecipheriv("aes-256-gcm", key.bytes, bytes.subarray(0, ivBytes))
      .setAAD(Buffer.from(place))
      .setAuthTag(bytes.subarray(-tagBytes));
    try {
      const clear = [decipher.update(bytes.subarray(ivBytes, -tagBytes)), decipher.final()];
      return Buffer.concat(clear).toString("utf8");
    } catch {
      return undefined;
    }
  }
}

/** The keys of a file: one a line, 32 bytes in base64 or hex. Throws an Error that quotes none. */
export function keyRingOf(text: string): KeyRing {
  const lines = text.split("\n").map((line) => line.trim());
  const keys = lines.flatMap((line, index) => {
    if (line === "" || line.startsWith("#")) return [];
    const bytes = Buffer.from(line, /^[\da-f]{64}$/i.test(line) ? "hex" : "base64");
    if (bytes.length !== 32) throw new Error(`line ${index + 1} is not a key of 32 bytes`);
    return [bytes];
  });
  if (keys.length === 0) throw new Error("the file has no key");
  return new KeyRing(keys);
}
