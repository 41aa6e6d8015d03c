/** The lines of a file as bytes: a text may hold characters at which other readers end a line. */
import { bytesOf, unreadable } from "../files/given-file.ts";

const newline = 10;
const maxLineBytes = 16_777_216;

/** Without their ends; the last one is given where the file ends within it, too. Rejects where the file cannot be read, with its name. */
export function linesOf(file: string): AsyncGenerator<Buffer> {
  return linesIn(chunksOf(file), file);
}

/** The same of bytes that are read already; `file` is only named in problems. */
export async function* linesIn(
  chunks: AsyncIterable<Buffer>,
  file: string,
): AsyncGenerator<Buffer> {
  let begun: Buffer[] = [];
  let length = 0;
  for await (const bytes of chunks) {
    let start = 0;
    for (;;) {
      const end = bytes.indexOf(newline, start);
      if (end === -1) break;
      const rest = bytes.subarray(start, end);
      yield begun.length === 0 ? rest : Buffer.concat([...begun, rest]);
      begun = [];
      length = 0;
      start = end + 1;
    }
    if (start === bytes.length) continue;
    begun.push(bytes.subarray(start));
    length += bytes.length - start;
    if (length > maxLineBytes)
      throw new Error(`${file}: a line is longer than ${maxLineBytes} bytes`);
  }
  if (begun.length > 0) yield Buffer.concat(begun);
}

async function* chunksOf(file: string): AsyncGenerator<Buffer> {
  try {
    yield* bytesOf(file);
  } catch (error) {
    throw unreadable(file, error);
  }
}
