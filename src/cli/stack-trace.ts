/** Stack traces of the bundle, in the lines of src/. */
import { readFileSync } from "node:fs";
import nodeModule, { type SourceMap } from "node:module";

/**
 * From here on traces name the sources of a file that has a map beside it. A map is read when the first trace through its
 * file is: Node's own way reads every map at the start, which costs a tenth of it, and 5 MB.
 */
export function nameSourceLines(): void {
  const maps = new Map<string, SourceMap | undefined>();
  Error.prepareStackTrace = (error, sites) =>
    [headOf(error), ...sites.map((site) => named(site as Site, maps))].join("\n    at ");
}

function headOf(error: Error): string {
  try {
    return Error.prototype.toString.call(error);
  } catch {
    return "Error";
  }
}

/** The types leave out how a frame is written. */
type Site = NodeJS.CallSite & { toString(): string };

function named(site: Site, maps: Map<string, SourceMap | undefined>): string {
  const text = site.toString();
  const file = site.getFileName();
  const line = site.getLineNumber();
  const column = site.getColumnNumber();
  if (typeof file !== "string" || !file.startsWith("file:") || line === null || column === null)
    return text;
  if (!maps.has(file)) maps.set(file, mapOf(file));
  const origin = maps.get(file)?.findOrigin(line, column);
  if (origin === undefined || !("fileName" in origin)) return text;
  const { fileName, lineNumber, columnNumber } = origin;
  const source = new URL(fileName, file).href;
  return text.replace(`${file}:${line}:${column}`, `${source}:${lineNumber}:${columnNumber}`);
}

function mapOf(file: string): SourceMap | undefined {
  try {
    return new nodeModule.SourceMap(
      JSON.parse(readFileSync(new URL(`${file}.map`), "utf8")) as nodeModule.SourceMapPayload,
    );
  } catch {
    return undefined;
  }
}
