/** Hides the values of keys that hold secrets in what operators are shown (contract 4.9). */

const hidden = "[REDACTED]";
const secretKey = /(?:secret|password|token|bearer|key|credential)$/i;
/** A map whose every value is a credential, whatever its key is (static-inject). */
const secretMap = /^mappings$/i;
/** User information in a URL: a parent proxy is often configured with its password in it. */
const urlCredentials = /(\b[a-z][a-z\d+.-]*:\/\/)[^/\s?#@]+@/gi;
const maxDepth = 64;

/** A copy in which string values of secret keys, and credentials inside URLs, are replaced. */
export function redact(value: unknown): unknown {
  return redacted(value, false, 0);
}

function redacted(value: unknown, isSecret: boolean, depth: number): unknown {
  if (typeof value === "string") {
    if (isSecret) return value === "" ? value : hidden;
    return value.replace(urlCredentials, `$1${hidden}@`);
  }
  if (typeof value !== "object" || value === null) return value;
  if (depth >= maxDepth) return hidden;
  if (Array.isArray(value)) return value.map((item) => redacted(item, isSecret, depth + 1));
  const copy: [string, unknown][] = [];
  for (const [key, item] of Object.entries(value)) {
    // A container under a secret key is looked into: `token: { access_token, expires_in }` keeps its shape.
    const isContainer = typeof item === "object" && item !== null && !Array.isArray(item);
    if (isContainer && secretMap.test(key)) copy.push([key, hiddenValues(item, depth + 1)]);
    else copy.push([key, redacted(item, secretKey.test(key), depth + 1)]);
  }
  return Object.fromEntries(copy);
}

function hiddenValues(map: object, depth: number): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(map).map(([key, item]) => [
      key,
      typeof item === "string" ? hidden : redacted(item, true, depth),
    ]),
  );
}
