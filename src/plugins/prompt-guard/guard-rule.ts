/** One rule: which texts it speaks about, and from which score on it holds. */
import { compileHostGlob, type HostGlob } from "../../pattern/host-pattern.ts";
import { compilePathGlob, type PathGlob } from "../../pattern/path-pattern.ts";
import { defaultContentTypes, type GuardRuleConfig } from "./config.ts";

/** Where a text comes from. */
export interface Origin {
  readonly host: string;
  /** The content type of the response; undefined where it names none, or the text is part of a request. */
  readonly contentType?: string | undefined;
  /** The tool whose output or description it is; null where it is one whose name is not known. */
  readonly tool?: string | null | undefined;
}

/** A compiled rule. */
export class GuardRule {
  readonly config: GuardRuleConfig;
  readonly #hosts: readonly HostGlob[] | undefined;
  readonly #tools: readonly PathGlob[] | undefined;
  readonly #types: readonly string[];
  readonly #isAnyType: boolean;

  constructor(config: GuardRuleConfig) {
    this.config = config;
    this.#hosts = config.hosts?.map((pattern) => compileHostGlob(pattern));
    this.#tools = config.tools?.map((pattern) => compilePathGlob(pattern));
    this.#types = config.content_types ?? defaultContentTypes;
    this.#isAnyType = config.content_types === undefined;
  }

  isAt(host: string): boolean {
    return this.#hosts?.some((glob) => glob.matches(host)) ?? true;
  }

  takesType(type: string | undefined): boolean {
    if (type === undefined) return this.#isAnyType;
    return this.#types.some((pattern) => matchesType(pattern, type));
  }

  /** Whether the rule speaks about the text. A tool that has no name may be any: what protects counts then. */
  speaksOf({ host, tool }: Origin): boolean {
    if (!this.isAt(host)) return false;
    if (this.#tools === undefined) return true;
    if (tool === undefined) return false;
    if (tool === null) return this.config.action !== "observe";
    return this.#tools.some((glob) => glob.matches(tool));
  }
}

/** The media type of a Content-Type, without parameters. */
export function mediaTypeOf(field: string | undefined): string | undefined {
  const type = field?.split(";", 1)[0]?.trim().toLowerCase();
  return type === "" ? undefined : type;
}

const untold = /^(?:application|binary)\/octet-stream$/;
const maxUntoldBytes = 1_048_576;

/** The type of a response as it is read: what only says that it is bytes, and is short, names none, and may be a text. */
export function typeOf(headers: { get(name: string): string | undefined }): string | undefined {
  const type = mediaTypeOf(headers.get("content-type"));
  const isUntold = type !== undefined && untold.test(type);
  if (!isUntold || headers.get("content-encoding") !== undefined) return type;
  const length = Number(headers.get("content-length") ?? Infinity);
  return length <= maxUntoldBytes ? undefined : type;
}

function matchesType(pattern: string, type: string): boolean {
  const star = pattern.indexOf("*");
  if (star === -1) return pattern === type;
  const end = pattern.slice(star + 1);
  return (
    type.length >= pattern.length - 1 &&
    type.startsWith(pattern.slice(0, star)) &&
    type.endsWith(end)
  );
}
