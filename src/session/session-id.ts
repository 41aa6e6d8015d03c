/** Names of sessions, which messages give and which are therefore bounded. */
import { hash } from "node:crypto";
import { ownText } from "../bounded-map.ts";

/** Longer ones are cut. */
export const maxSessionIdLength = 256;

/**
 * The id of the session that a message names. Of a longer name a digest stands for what is cut off: two names that begin
 * alike are two sessions.
 */
export function sessionIdOf(name: string): string {
  if (name.length <= maxSessionIdLength) return ownText(name);
  const digest = hash("sha256", name, "base64url");
  return ownText(`${name.slice(0, maxSessionIdLength - digest.length - 1)}~${digest}`);
}
