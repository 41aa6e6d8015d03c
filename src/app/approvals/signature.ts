/** Signed messages between the proxy and a chat or another service: HMAC-SHA256 over a timestamp and the body. */
import { createHmac, timingSafeEqual } from "node:crypto";

/** `v1` is ours, `v0` is Slack's; both sign `VERSION:TIMESTAMP:BODY`. */
export type SignatureVersion = "v0" | "v1";

/** Clocks differ, and a message takes its time; one that is older may be a repetition. */
const maxAgeSeconds = 300;

/** The signature as it stands in its field. */
export function signatureOf(
  version: SignatureVersion,
  secret: string,
  timestamp: string,
  body: string,
): string {
  const digest = createHmac("sha256", secret).update(`${version}:${timestamp}:${body}`);
  return `${version}=${digest.digest("hex")}`;
}

/** What came with a message. */
export interface Signed {
  readonly version: SignatureVersion;
  readonly timestamp: string | undefined;
  readonly signature: string | undefined;
  readonly body: string;
}

/** Whether somebody who has the secret has signed it just now; nobody has an empty one. */
export function isSigned(
  { version, timestamp = "", signature = "", body }: Signed,
  secret: string,
  nowMs: number,
): boolean {
  const seconds = /^\d{1,12}$/.test(timestamp) ? Number(timestamp) : Number.NaN;
  if (secret === "" || !(Math.abs(nowMs / 1_000 - seconds) <= maxAgeSeconds)) return false;
  const wanted = Buffer.from(signatureOf(version, secret, timestamp, body));
  const given = Buffer.from(signature);
  return wanted.length === given.length && timingSafeEqual(wanted, given);
}
