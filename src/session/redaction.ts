/** Takes secrets out of text that strangers wrote, in time linear in its length. */
import { messageOf } from "../errors.ts";

/** What stands in the place of a secret. */
export const redacted = "[REDACTED]";

/** Replaces what one operator's pattern matches. */
export interface TextPattern {
  replaceAll(text: string, by: string): string;
}

/** Names under which values are secrets whatever they look like; counts such as `maxTokens` are numbers and stay. */
const secretName =
  /(?:authorization|cookie|passw(?:or)?d|secret|token|assertion|credentials?|api[-_]?key|private[-_]?key|access[-_]?key)$/i;
const maxRemembered = 4_096;
/** A longer one is no name that anybody gave. */
const maxNameChars = 256;

/**
 * Runs of characters that tokens are made of. Each character is looked at once: what a run is, is decided by its
 * beginning and not by a pattern with alternatives.
 */
const run = /[A-Za-z0-9._-]{16,}/g;
const scheme = /\b(bearer|basic)([ \t]{1,4})([A-Za-z0-9._~+/=-]{8,})/gi;
const assignment =
  /(api[_-]?key|access[_-]?key|token|secret|password|passwd|pwd)(["']?[ \t]{0,2}[:=][ \t]{0,2}["']?)([^\s"'&,;{}[\]]{4,512})/gi;
const userInformation = /:\/\/[^/\s?#]{1,256}@/g;
const privateKey = /-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^]*?(?:-----END [A-Z ]{0,40}-----|$)/g;

/** Prefixes of credentials that their issuers publish. */
const prefixes = [
  "sk-",
  "sk_live_",
  "rk_live_",
  "whsec_",
  "ghp_",
  "gho_",
  "ghu_",
  "ghs_",
  "ghr_",
  "github_pat_",
  "glpat-",
  "xoxa-",
  "xoxb-",
  "xoxp-",
  "xoxr-",
  "xoxs-",
  "xapp-",
  "ya29.",
  "npm_",
  "pypi-",
  "hf_",
  "shpat_",
  "dop_v1_",
  "SG.",
  "abph_",
] as const;

/** Hides what looks like a credential, and what the operator's patterns match. */
export class Redaction {
  readonly #patterns: readonly TextPattern[];
  readonly #names = new Map<string, boolean>();

  constructor(patterns: readonly TextPattern[] = []) {
    this.#patterns = patterns;
  }

  /** Whether text under this name is a secret. */
  isSecretName(name: string): boolean {
    const known = this.#names.get(name);
    if (known !== undefined) return known;
    // Nor is it remembered: names are keys of strangers' JSON.
    if (name.length > maxNameChars) return false;
    const verdict = secretName.test(name);
    if (this.#names.size < maxRemembered) this.#names.set(name, verdict);
    return verdict;
  }

  /** The text without its secrets; the same string where there is none. */
  text(text: string): string {
    let clean = text;
    if (clean.length >= 8) {
      if (clean.includes("://")) clean = clean.replace(userInformation, `://${redacted}@`);
      if (clean.includes("PRIVATE KEY-----")) clean = clean.replace(privateKey, redacted);
      if (clean.length >= 12) {
        clean = clean.replace(scheme, `$1$2${redacted}`).replace(assignment, `$1$2${redacted}`);
      }
      if (clean.length >= 16) {
        clean = clean.replace(run, (word) => (isCredential(word) ? redacted : word));
      }
    }
    for (const pattern of this.#patterns) clean = pattern.replaceAll(clean, redacted);
    return clean;
  }
}

function isCredential(word: string): boolean {
  // JWS compact serialisation: three parts, the first of which is a JSON object.
  if (word.startsWith("eyJ")) return word.split(".", 4).length === 3;
  if (/^(?:AKIA|ASIA)[0-9A-Z]{16}$/.test(word)) return true;
  if (/^AIza[\w-]{35}$/.test(word)) return true;
  return prefixes.some((prefix) => word.startsWith(prefix));
}

/** What became of operators' patterns. */
export interface CompiledPatterns {
  readonly patterns: readonly TextPattern[];
  readonly problems: readonly { readonly index: number; readonly message: string }[];
}

/**
 * Compiles operators' patterns with RE2, whose time is linear in the text: with a pattern of the runtime's own kind, one
 * message could stop all traffic.
 */
export async function compilePatterns(sources: readonly string[]): Promise<CompiledPatterns> {
  if (sources.length === 0) return { patterns: [], problems: [] };
  const { RE2JS } = await import("re2js");
  const patterns: TextPattern[] = [];
  const problems: { index: number; message: string }[] = [];
  for (const [index, source] of sources.entries()) {
    try {
      const pattern = RE2JS.compile(source);
      if (pattern.matcher("").matches()) throw new Error("it matches the empty text");
      patterns.push({ replaceAll: (text, by) => pattern.matcher(text).replaceAll(by) });
    } catch (error) {
      problems.push({ index, message: messageOf(error) });
    }
  }
  return { patterns, problems };
}
