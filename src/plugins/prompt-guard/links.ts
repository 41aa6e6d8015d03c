/** Addresses that carry something out: an image is fetched by whoever shows it, with all that stands in its address. */
import { Findings } from "./findings.ts";

const image = /!\[(?:[^\][\n]|\[[^\][\n]{0,100}\]){0,300}\]\(\s{0,4}<?([^)\s>][^)\n>]{0,1000})/g;
const link =
  /(?<!!)\[(?:[^\][\n]|\[[^\][\n]{0,100}\]){1,300}\]\(\s{0,4}<?(https?:[^)\s>]{1,1000})/gi;
const reference = /^[ \t]{0,3}\[[^\]\n]{1,100}\]:[ \t]{0,4}<?(https?:[^\s>]{1,1000})/gim;
/** Markup in another text, and what a style sheet fetches. */
const embedded =
  /(?:\b(?:src|srcset|poster|background)[ \t]{0,4}=[ \t]{0,4}["']?|\burl\([ \t]{0,4}["']?)[ \t]{0,4}(https?:[^\s"'<>)]{1,1000})/gi;
/** A place that the model is to fill in. */
const blank =
  /(?:\{\{?|\$\{|<|\[|%7b(?:%7b)?|%3c|%5b)[\w .%+-]{0,40}(?:data|conversation|history|summar|secret|passw|prompt|context|base64|chat|encoded|stolen|exfil|private|sensitive|url_?encod|api.?key|credential|user.?info|email|memor)[\w .%+-]{0,40}(?:\}|>|\]|%7d|%3e|%5d)/i;
const upperBlank =
  /[?&](?:[\w.-]{1,24})=(?:[A-Z0-9]{2,16}_){0,4}(?:DATA|SECRETS?|HISTORY|PASSWORD|CONVERSATION|CHAT|CONTEXT|SUMMARY|CREDENTIALS)(?:_[A-Z]{2,}){0,3}\b/;
const telling =
  /^(?:q|d|data|info|leak|exfil|secret|secrets|payload|msg|message|log|content|stolen|dump|history|context|conversation|prompt)$/i;

/** The address of an image that the reader of a page has found. */
export function inspectImage(url: string, findings: Findings): void {
  judge(url, 50, findings);
}

/** Images and links of Markdown, all of them: what carries something out may stand behind many that do not. */
export function inspectLinks(text: string, findings: Findings): void {
  findings.steps += text.length;
  for (const [, url = ""] of text.matchAll(embedded)) judge(url, 50, findings);
  if (!text.includes("](") && !text.includes("]:")) return;
  for (const [, url = ""] of text.matchAll(image)) judge(url, 50, findings);
  for (const [, url = ""] of text.matchAll(link)) judge(url, 35, findings);
  if (!/!\[(?:[^\][\n]|\[[^\][\n]{0,100}\]){0,300}\]\s?\[/.test(text)) return;
  for (const [, url = ""] of text.matchAll(reference)) judge(url, 50, findings);
}

/** Whether whoever fetches the address tells its host something that it should not know. */
export function isCarryingOut(url: string): boolean {
  const findings = new Findings();
  judge(url, 50, findings);
  return findings.score >= 50;
}

function judge(url: string, most: number, findings: Findings): void {
  findings.steps += url.length;
  if (!/^(?:https?:)?\/\//i.test(url)) return;
  const path = url.slice(url.indexOf("//") + 2);
  if (blank.test(path) || upperBlank.test(path)) {
    findings.add("link_exfiltration", most);
    return;
  }
  const query = path.indexOf("?");
  const values = query === -1 ? [] : path.slice(query + 1).split(/[&#]/, 64);
  for (const pair of values) {
    const equals = pair.indexOf("=");
    const name = pair.slice(0, Math.max(0, equals));
    const value = pair.slice(equals + 1);
    if (isEncodedText(value)) findings.add("link_exfiltration", most);
    else if (telling.test(name) && countWords(value) >= 3) findings.add("link_exfiltration", most);
    else if (value.length >= 300) findings.add("link_exfiltration", most * 0.3);
  }
  const parts = (query === -1 ? path : path.slice(0, query)).split("/", 64).slice(1);
  if (parts.some((part) => part.length >= 32 && isEncodedText(part.replace(/\.\w{2,4}$/, "")))) {
    findings.add("link_exfiltration", most);
  }
}

function countWords(value: string): number {
  return value.split(/%20|\+/, 64).filter((word) => /^[\w.,:@!-]{2,}/.test(word)).length;
}

/** Base64 or hex of a text: what is random, such as a hash or a key, does not decode to one. */
function isEncodedText(value: string): boolean {
  const plain = value.replaceAll("%3D", "=").replaceAll("%2B", "+").replaceAll("%2F", "/");
  if (plain.length < 16 || plain.length > 4_096) return false;
  // A token that says who it is for is signed and has three parts.
  if (/^[\w-]+\.[\w-]+\.[\w-]*$/.test(plain)) return false;
  const isHex = /^(?:[0-9a-f]{2}){12,}$/i.test(plain);
  if (!isHex && !/^[\w+/-]{16,}={0,2}$/.test(plain)) return false;
  const decoded = Buffer.from(plain, isHex ? "hex" : "base64");
  let printable = 0;
  for (const byte of decoded) if ((byte >= 0x20 && byte < 0x7f) || byte === 0x0a) printable += 1;
  return (
    decoded.length >= 12 &&
    printable === decoded.length &&
    /[ :=,@/]/.test(decoded.toString("latin1"))
  );
}
