/** Folders of /proc, whose entries come and go while they are read. */
import { opendirSync } from "node:fs";

/** The names in a folder, one batch at a time; none when it cannot be read. */
export function* names(folder: string): Generator<string, void, undefined> {
  let directory;
  try {
    directory = opendirSync(folder, { bufferSize: 128 });
  } catch {
    // The process has ended, or its descriptors may not be read.
    return;
  }
  try {
    for (let entry = directory.readSync(); entry !== null; entry = directory.readSync()) {
      yield entry.name;
    }
  } catch {
    // It went away while it was read.
  } finally {
    directory.closeSync();
  }
}
