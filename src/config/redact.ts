/**
 * The effective configuration as it may be shown: without the values that are secrets by their name or place.
 */

const redacted = "[REDACTED]";

/** Keys whose values are secrets, by how they end: client_secret, judgeBearer, api_key. */
const secretKey = /(?:secret|password|token|bearer|key|credential)$/i;

/** User and password of a URL, wherever it stands in a text. The scheme is bounded so that the search is linear. */
const userInfo = /\b([a-z][a-z0-9+.-]{0,31}:\/\/)([^/?#\s]*)@/gi;

/**
 * A copy in which secret texts are "[REDACTED]": those of keys with a telling name, every text below a map named
 * `mappings` (host to credential), and the user information of URLs. Numbers and booleans are kept.
 */
export function redactConfig(value: unknown): unknown {
  return redact(value, false, false);
}

/** `isSecret` holds for the value itself, `isMapped` for everything below it. */
function redact(value: unknown, isSecret: boolean, isMapped: boolean): unknown {
  if (typeof value === "string") {
    return isSecret || isMapped ? redacted : withoutUserInfo(value);
  }
  if (Array.isArray(value)) return value.map((item) => redact(item, isSecret, isMapped));
  if (typeof value !== "object" || value === null || !isPlain(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, member]) => [
      key,
      redact(member, secretKey.test(key), isMapped || key.toLowerCase() === "mappings"),
    ]),
  );
}

function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function withoutUserInfo(text: string): string {
  return text.replace(userInfo, (_, scheme: string, user: string) => {
    const colon = user.indexOf(":");
    // A user without a password is often a token.
    return colon === -1 ? `${scheme}${redacted}@` : `${scheme}${user.slice(0, colon)}:${redacted}@`;
  });
}
