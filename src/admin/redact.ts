/** Hides the values of keys that hold secrets in what operators are shown. */

const hidden = "[REDACTED]";
const secretKey =
  /(?:secret|password|passwd|passphrase|token|bearer|key|credentials?|authorization)$/i;
/** A map whose every value may be a credential, whatever its key is (static-inject, fields of reports). */
const secretMap = /^(?:mappings|headers)$/i;
/** User information in a URL, up to its last @: a parent proxy is often configured with its password in it. */
const urlCredentials = /(\b[a-z][a-z\d+.-]*:\/\/)[^/\s?#]+@/gi;
/** The same without a scheme, which variables of the environment often leave out. */
const bareCredentials = /^[^\s/?#@:]+:[^\s/?#]*@(?=[^@]+$)/;
/** Signed URLs of object stores, keys in queries. */
const querySecrets =
  /([?&][^=&#\s]*(?:secret|password|token|key|credential|sig|signature)=)[^&#\s]+/gi;
/** Who knows the path of a webhook may post to it. */
const webhook = /^webhook$/i;
const privateKey = /-----BEGIN [A-Z ]*PRIVATE KEY-----/;
const maxDepth = 64;

/** Which strings of a value are hidden: none, its own (and a list's), all at any depth, or what follows its url's host. */
type Hiding = "none" | "own" | "all" | "webhook";

/** A copy in which string values of secret keys, and credentials inside URLs, are replaced. */
export function redact(value: unknown): unknown {
  return redacted(value, "none", 0);
}

function redacted(value: unknown, hiding: Hiding, depth: number): unknown {
  if (typeof value === "string") {
    if (hiding === "none") return shownText(value);
    if (hiding === "webhook") return withoutPath(value);
    return value === "" ? value : hidden;
  }
  if (typeof value !== "object" || value === null) return value;
  if (depth >= maxDepth) return hidden;
  if (Array.isArray(value)) return value.map((item) => redacted(item, hiding, depth + 1));
  // The source of a secret: its keys are its own, and what a command is given may be secret.
  const isSource = hiding === "own" && "type" in value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [
      key,
      redacted(item, hidingIn(isSource ? "all" : hiding, key), depth + 1),
    ]),
  );
}

/** What is hidden below a key of a container. */
function hidingIn(hiding: Hiding, key: string): Hiding {
  if (hiding === "all") return hiding;
  return hiding === "webhook" && key === "url" ? hiding : hidingOf(key);
}

function withoutPath(text: string): string {
  const url = URL.parse(text);
  return url === null || url.pathname + url.search === "/"
    ? shownText(text)
    : `${url.origin}/${hidden}`;
}

/** A text whose key says nothing of a secret. */
function shownText(text: string): string {
  if (privateKey.test(text)) return hidden;
  return text
    .replace(urlCredentials, `$1${hidden}@`)
    .replace(bareCredentials, `${hidden}@`)
    .replace(querySecrets, `$1${hidden}`);
}

/** A container under a secret key is looked into: `token: { access_token, expires_in }` keeps its shape. */
function hidingOf(key: string): Hiding {
  if (secretMap.test(key)) return "all";
  if (webhook.test(key)) return "webhook";
  return secretKey.test(key) ? "own" : "none";
}
