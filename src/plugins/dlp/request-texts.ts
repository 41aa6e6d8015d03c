/** The texts of a message's head, looked through field by field, and where in them something is. */
import { detectorNames, type Finding, type Scan } from "../../dlp/detectors.ts";
import type { Scanner } from "../../dlp/scanner.ts";
import type { FieldNames } from "../../http/field-names.ts";
import type { HeaderList } from "../../http/headers.ts";
import { isObject } from "../../http/json-access.ts";
import { jsonOf } from "../../protocols/message-json.ts";
import type { Side } from "./host-plan.ts";
import { jsonPlace, parameterPlace, partPlace } from "./places.ts";

/** A finding, and the part of the message that holds it. */
export interface Placed {
  readonly finding: Finding;
  readonly part: "host" | "target" | "field" | "body" | "message";
  /** Of the field. */
  readonly name?: string;
  /** For records and refusals. */
  readonly shown: string;
}

/** What a part of a message came to. */
export interface PartScan {
  readonly placed: readonly Placed[];
  readonly isCut: boolean;
}

/** Frames or routes the message: no place for data, and judged elsewhere. */
const structural: ReadonlySet<string> = new Set([
  "host",
  "content-length",
  "transfer-encoding",
  "connection",
]);

const nothing: Side["wanted"] = new Set<string>();

/** Looks through all fields: where a client's own credential belongs, only for secrets of the proxy. */
export function scanFields(
  headers: HeaderList,
  {
    scanner,
    side,
    credentials,
    isOfCaller,
  }: {
    readonly scanner: Scanner;
    readonly side: Side;
    readonly credentials: FieldNames;
    /** What callers send there the proxy may hold for them, behind a placeholder. */
    readonly isOfCaller: boolean;
  },
): PartScan {
  const open = new FieldText();
  const closed = new FieldText();
  for (const [name, value] of headers.entries()) {
    if (structural.has(name.toLowerCase())) continue;
    (credentials.has(name) ? closed : open).add(name, value);
  }
  const scans = [
    { text: open, scan: open.scan(scanner, side.wanted) },
    { text: closed, scan: closed.scan(scanner, isOfCaller ? nothing : side.ownOnly) },
  ];
  return {
    placed: scans.flatMap(({ text, scan }) =>
      scan.findings.map((finding): Placed => {
        const name = text.nameAt(finding.start);
        return { finding, part: "field", name, shown: `field ${name}` };
      }),
    ),
    isCut: scans.some(({ scan }) => scan.isCut),
  };
}

/** Fields as one text, which is looked through once. */
class FieldText {
  #text = "";
  readonly #starts: number[] = [];
  readonly #names: string[] = [];

  add(name: string, value: string): void {
    this.#starts.push(this.#text.length);
    this.#names.push(name);
    this.#text += `${name}: ${value}\n`;
  }

  scan(scanner: Scanner, wanted: Side["wanted"]): Scan {
    if (this.#text === "" || wanted.size === 0) return { findings: [], isCut: false, steps: 0 };
    return scanner.scan(Buffer.from(this.#text, "latin1"), wanted);
  }

  nameAt(offset: number): string {
    const after = this.#starts.findIndex((start) => start > offset);
    return this.#names.at(after === -1 ? -1 : after - 1) ?? "";
  }
}

/** Everything that may not be in the words of a place: names in a message are the agent's, too. */
const everything: Side["wanted"] = new Set<string>(detectorNames);

function shownSafely(text: string, scanner: Scanner, instead: string): string {
  const { findings } = scanner.scan(Buffer.from(text, "latin1"), everything);
  return findings.length === 0 && /^[\x20-\x7e]*$/.test(text) ? text : instead;
}

/** A finding in path or query. */
export function targetPlace(finding: Finding, bytes: Buffer, scanner: Scanner): Placed {
  const isQuery = bytes.subarray(0, finding.start).includes("?");
  const name = isQuery ? parameterPlace(bytes, finding.start) : "";
  const place = isQuery ? `parameter ${name}` : "the path";
  return { finding, part: "target", shown: shownSafely(place, scanner, "the query") };
}

/** A finding in a body, by the grammar that the body has. */
export function bodyPlace(
  finding: Finding,
  bytes: Buffer,
  headers: HeaderList | undefined,
  scanner: Scanner,
): Placed {
  const type = headers?.get("content-type") ?? "";
  return {
    finding,
    part: "body",
    shown: shownSafely(inBody(finding, bytes, type), scanner, "the body"),
  };
}

function inBody({ start }: Finding, bytes: Buffer, type: string): string {
  if (/^\s*application\/x-www-form-urlencoded/i.test(type))
    return `parameter ${parameterPlace(bytes, start)}`;
  if (/^\s*multipart\//i.test(type)) return `part ${partPlace(bytes, start)}`;
  const json = jsonOf(bytes);
  if (json.kind !== "json") return "the body";
  const place = `body ${jsonPlace(bytes, start)}`;
  const { value } = json;
  if (!isObject(value) || value["method"] !== "tools/call" || !isObject(value["params"]))
    return place;
  const tool = value["params"]["name"];
  return typeof tool === "string" ? `${place}, an argument of tool ${tool.slice(0, 64)}` : place;
}
