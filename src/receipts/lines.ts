/** The lines of a file as bytes: a text may hold characters at which other readers end a line. */
import { createReadStream } from "node:fs";

const newline = 10;
const maxLineBytes = 16_777_216;

/** Without their ends; the last one is given where the file ends within it, too. Rejects where the file cannot be read. */
export async function* linesOf(file: string): AsyncGenerator<Buffer> {
  let begun: Buffer[] = [];
  let length = 0;
  for await (const chunk of createReadStream(file, { highWaterMark: 262_144 })) {
    const bytes = chunk as Buffer;
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
