/** The body of a request as dlp reads it: below its content coding, or below the framing of uploads. */
import type { Scanner } from "../../dlp/scanner.ts";
import { isAwsChunked } from "../../http/signed-fields.ts";
import type { RequestContext } from "../../pipeline/plugin.ts";
import { readAwsChunks } from "./aws-chunks.ts";
import type { Side } from "./host-plan.ts";
import { bodyPlace, type PartScan, type Placed } from "./request-texts.ts";

/** Why a body cannot be read; undefined where it can, or where there is none. */
export function bodyProblem({ clearBody, body, headers }: RequestContext): string | undefined {
  if (clearBody === undefined || body === undefined) return undefined;
  if (isAwsChunked(headers))
    return readAwsChunks(headers, body) === undefined
      ? "cannot be read as aws-chunked, which it is said to be"
      : undefined;
  switch (clearBody.kind) {
    case "body":
      return undefined;
    case "too-large":
      return "comes to more than limits.max_body without its content coding";
    case "corrupt":
      return "is corrupt in its content coding";
    case "unsupported":
      return "is in a content coding that cannot be undone";
  }
}

/** What is in the body. */
export function scanBody(
  { body, clearBody, headers }: RequestContext,
  scanner: Scanner,
  side: Side,
): PartScan {
  const chunks = body === undefined ? undefined : readAwsChunks(headers, body);
  const bytes = chunks?.data ?? (clearBody?.kind === "body" ? clearBody.bytes : undefined);
  if (bytes === undefined) return { placed: [], isCut: false };
  const { findings, isCut } = scanner.scan(bytes, side.wanted);
  const placed = findings.map((finding) => bodyPlace(finding, bytes, headers, scanner));
  if (chunks === undefined) return { placed, isCut };
  const framing = scanner.scan(chunks.words, side.wanted);
  const shown = "the framing of the body";
  const more = framing.findings.map((finding): Placed => ({ finding, part: "body", shown }));
  return { placed: [...placed, ...more], isCut: isCut || framing.isCut };
}
