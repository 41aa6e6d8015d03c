/** A checkpoint: what the decision log held at one moment, signed, in the form of a signed note (C2SP tlog-checkpoint). */
import { CompactTree } from "./merkle.ts";
import { CheckingKey, type SigningKey } from "./signing-key.ts";

/** What a checkpoint says. */
export interface Statement {
  readonly origin: string;
  /** The tree of all decisions up to this one; its first entry is record `sequence - size + 1`. */
  readonly size: number;
  readonly root: Buffer;
  /** The last record, and its digest in the chain. */
  readonly sequence: number;
  readonly hash: string;
  /** RFC 3339. */
  readonly time: string;
  /** The key that signs from here on, where it is another one. */
  readonly next?: CheckingKey | undefined;
}

/** A checkpoint as it was read. Nothing is known of its signature yet. */
export interface Checkpoint extends Statement {
  readonly note: string;
  /** The tree as far as it is needed to go on with it; absent where only the note was given. */
  readonly tree?: CompactTree | undefined;
}

const shape =
  /^(?<text>(?<origin>[^\s+]+)\n(?<size>\d{1,15})\n(?<root>[\w+/]{43}=)\nrecord (?<sequence>\d{1,15}) (?<hash>[\da-f]{64})\ntime (?<time>\S+)\n(?:next (?<next>[\w-]{43})\n)?)\n(?<signatures>(?:\u2014 [^\s+]+ [\w+/]+=*\n)+)$/;

/** The note: the statement line by line, an empty line, the signature. */
export function signedNote(statement: Statement, key: SigningKey): string {
  const { origin, size, root, sequence, hash, time, next } = statement;
  const text = [
    origin,
    String(size),
    root.toString("base64"),
    `record ${sequence} ${hash}`,
    `time ${time}`,
    ...(next === undefined ? [] : [`next ${next.jwk.x}`]),
    "",
  ].join("\n");
  const signature = Buffer.concat([key.noteId(origin), key.sign(Buffer.from(text))]);
  return `${text}\n\u2014 ${origin} ${signature.toString("base64")}\n`;
}

/** One line of the file of checkpoints. */
export function checkpointLine(note: string, tree: CompactTree): string {
  return JSON.stringify({ note, parts: tree.roots.map((root) => root.toString("base64")) });
}

/** Reads a line of the file of checkpoints, or a note; throws an Error where the text is neither. */
export function readCheckpoint(text: string): Checkpoint {
  if (!text.startsWith("{")) return readNote(text);
  const { note, parts } = JSON.parse(text) as { readonly note?: unknown; readonly parts?: unknown };
  if (typeof note !== "string") throw new Error("it has no note");
  const read = readNote(note);
  if (!Array.isArray(parts)) throw new Error("it has no parts");
  const tree = new CompactTree(
    read.size,
    parts.map((part) => Buffer.from(String(part), "base64")),
  );
  if (!tree.root().equals(read.root)) throw new Error("its parts do not make its root");
  if (checkpointLine(note, tree) !== text) throw new Error("it is not written as it should be");
  return { ...read, tree };
}

/** The key that signed it; undefined where none of these did. */
export function signerOf(
  { note, origin }: Checkpoint,
  keys: readonly CheckingKey[],
): CheckingKey | undefined {
  const { text = "", signatures = "" } = shape.exec(note)?.groups ?? {};
  const signed = Buffer.from(text);
  for (const line of signatures.trimEnd().split("\n")) {
    const [, name, encoded = ""] = line.split(" ");
    const bytes = Buffer.from(encoded, "base64");
    if (name !== origin || bytes.length !== 68 || bytes.toString("base64") !== encoded) continue;
    const found = keys.find(
      (key) =>
        key.noteId(origin).equals(bytes.subarray(0, 4)) && key.accepts(signed, bytes.subarray(4)),
    );
    if (found !== undefined) return found;
  }
  return undefined;
}

function readNote(note: string): Checkpoint {
  const found = shape.exec(note)?.groups;
  if (found === undefined) throw new Error("it is no checkpoint");
  const { origin = "", size, root = "", sequence, hash = "", time = "", next } = found;
  return {
    note,
    origin,
    size: Number(size),
    root: Buffer.from(root, "base64"),
    sequence: Number(sequence),
    hash,
    time,
    ...(next === undefined
      ? {}
      : { next: CheckingKey.fromJwk({ kty: "OKP", crv: "Ed25519", x: next }) }),
  };
}
