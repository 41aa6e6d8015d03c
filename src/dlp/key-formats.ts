/** The formats of the keys of providers, each behind the word that begins it. */
import { crc32 } from "node:zlib";
import type { DetectorName } from "./detectors.ts";
import { alphanumeric, hexadecimal, isBehind, runEnd, word } from "./byte-classes.ts";

/** One format. */
export interface KeyFormat {
  readonly detector: DetectorName;
  readonly kind: string;
  /** In its own case. */
  readonly begins: string;
  /** It has check digits, so that it may begin in the middle of a word. */
  readonly isChecked?: true;
  /** The end of a key whose rest begins at `from`; -1 where it is none. It looks at a bounded number of bytes. */
  end(bytes: Buffer, from: number): number;
}

const provider = (kind: string, begins: string, end: KeyFormat["end"]): KeyFormat => ({
  detector: "provider_keys",
  kind,
  begins,
  end,
});

const most = 512;

/** Exactly this many letters and digits, and none behind them. */
function exactly(length: number, bit = alphanumeric): KeyFormat["end"] {
  return (bytes, from) => {
    const end = runEnd(bytes, from, bit, length + 1);
    return end - from === length ? end : -1;
  };
}

function between(least: number, longest: number, bit = word): KeyFormat["end"] {
  return (bytes, from) => {
    const end = runEnd(bytes, from, bit, longest + 1);
    return end - from >= least && end - from <= longest ? end : -1;
  };
}

const sixtyTwo = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/** The check digits of GitHub and npm: CRC-32 of what stands before, in base 62. */
export function checkDigits(text: string): string {
  let rest = crc32(text);
  let digits = "";
  while (rest > 0) {
    digits = (sixtyTwo[rest % 62] ?? "") + digits;
    rest = Math.floor(rest / 62);
  }
  return digits.padStart(6, "0");
}

function checked(bytes: Buffer, from: number): number {
  const end = exactly(36)(bytes, from);
  if (end === -1) return -1;
  const text = bytes.toString("latin1", from, end);
  return checkDigits(text.slice(0, 30)) === text.slice(30) ? end : -1;
}

/** Base32 digits as AWS has them; the example of its documents is nobody's. */
function aws(bytes: Buffer, from: number): number {
  const end = exactly(16)(bytes, from);
  if (end === -1) return -1;
  const text = bytes.toString("latin1", from, end);
  return /^[A-Z2-7]{16}$/.test(text) && !text.endsWith("EXAMPLE") ? end : -1;
}

/** Parts of digits, letters and dashes, as in `xoxb-12345678901-…`. */
function slack(bytes: Buffer, from: number): number {
  const end = between(24, 255)(bytes, from);
  return end !== -1 && /\d{6}/.test(bytes.toString("latin1", from, end)) ? end : -1;
}

function github(bytes: Buffer, from: number): number {
  const end = between(82, 82)(bytes, from);
  return end !== -1 && bytes[from + 22] === 0x5f ? end : -1;
}

/** Old keys are 48 digits with a mark in the middle; others have longer words before them. */
function openAi(bytes: Buffer, from: number): number {
  const end = runEnd(bytes, from, word, most);
  const text = bytes.toString("latin1", from, end);
  if (/^[A-Za-z0-9]{48}$/.test(text)) return end;
  return text.length >= 40 && text.includes("T3BlbkFJ") ? end : -1;
}

function sendGrid(bytes: Buffer, from: number): number {
  const middle = exactly(22, word)(bytes, from);
  return middle !== -1 && bytes[middle] === 0x2e ? exactly(43, word)(bytes, middle + 1) : -1;
}

const maxPem = 8_192;
/** Lines of headers, perhaps one more in the line of the key, and digits: each place can be read in one way only, as time has to be linear. */
const beginsKey =
  /^[\s\\rn]*(?:[A-Za-z0-9-]+: [^\n]*\n\s*)*(?:[A-Za-z0-9-]+: [^\n]*\s)?[A-Za-z0-9+/=\s\\]{40}/;

/** From the word BEGIN to the end of the key, or as much of it as there is. */
function privateKey(bytes: Buffer, from: number): number {
  const line = bytes.toString("latin1", from, from + 48);
  const name = /^ ?((?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?)-----/.exec(line);
  if (name === null) return -1;
  const at = from + name[0].length;
  const text = bytes.toString("latin1", at, at + maxPem);
  // A document that shows where a key would be has dots or a remark there.
  if (!beginsKey.test(text.slice(0, 512))) return -1;
  const end = text.indexOf(`-----END ${name[1] ?? ""}-----`);
  return end === -1 ? at + text.length : at + end + 14 + (name[1]?.length ?? 0);
}

const maxToken = 16_384;

/** Three parts, of which the first is a JOSE header. */
function jwt(bytes: Buffer, from: number): number {
  const start = from - 3;
  const header = runEnd(bytes, start, word, maxToken);
  const claims = runEnd(bytes, header + 1, word, maxToken);
  const end = runEnd(bytes, claims + 1, word, maxToken);
  const isThree = bytes[header] === 0x2e && bytes[claims] === 0x2e && end - claims > 8;
  if (!isThree || header - start > 4_096) return -1;
  try {
    const text = Buffer.from(bytes.toString("latin1", start, header), "base64url").toString();
    const jose: unknown = JSON.parse(text);
    return typeof jose === "object" && jose !== null && "alg" in jose ? end : -1;
  } catch {
    return -1;
  }
}

/** Every format. Nothing but a letter or a digit may stand before its first word. */
export const keyFormats: readonly KeyFormat[] = [
  ...["AKIA", "ASIA", "ABIA", "ACCA"].map((begins) => provider("aws", begins, aws)),
  ...["ghp_", "gho_", "ghu_", "ghs_", "ghr_"].map((begins) => ({
    ...provider("github", begins, checked),
    isChecked: true as const,
  })),
  provider("github", "github_pat_", github),
  ...["xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xoxe-", "xapp-"].map((begins) =>
    provider("slack", begins, slack),
  ),
  ...["sk_live_", "rk_live_"].map((begins) =>
    provider("stripe", begins, between(16, 247, alphanumeric)),
  ),
  provider("stripe", "whsec_", between(32, 64, alphanumeric)),
  provider("anthropic", "sk-ant-", between(80, 256)),
  ...["sk-proj-", "sk-svcacct-", "sk-admin-"].map((begins) =>
    provider("openai", begins, between(40, 256)),
  ),
  provider("openai", "sk-", openAi),
  provider("google", "AIza", exactly(35, word)),
  provider("google", "GOCSPX-", exactly(28, word)),
  provider("gitlab", "glpat-", between(20, 64)),
  { ...provider("npm", "npm_", checked), isChecked: true },
  provider("huggingface", "hf_", exactly(34)),
  provider("twilio", "SK", exactly(32, hexadecimal)),
  provider("sendgrid", "SG.", sendGrid),
  provider("digitalocean", "dop_v1_", exactly(64, hexadecimal)),
  provider("pypi", "pypi-AgEIcHlwaS5vcmc", between(50, 400)),
  { detector: "private_keys", kind: "pem", begins: "-----BEGIN", end: privateKey },
  { detector: "jwt", kind: "jwt", begins: "eyJ", end: jwt },
];

/** Whether the word really begins here: in its own case, and not in the middle of another. */
export function beginsAt(bytes: Buffer, start: number, { begins, isChecked }: KeyFormat): boolean {
  for (let index = 0; index < begins.length; index += 1)
    if (bytes[start + index] !== begins.charCodeAt(index)) return false;
  return isChecked === true || !isBehind(bytes, start, word);
}
