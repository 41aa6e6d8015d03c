/** Secrets of operators, and whose one is. */
import { hash, timingSafeEqual } from "node:crypto";

/** A secret that is read when it is needed, so that it may rotate. */
export interface RevealedSecret {
  reveal(): string;
}

/** The secret of one operator. */
export interface NamedSecret extends RevealedSecret {
  readonly name: string;
}

/** Who has the secret of the surface. */
export const anyOperator = "operator";

/** The name that goes with an Authorization field: that of the whole surface is everybody's who has it. */
export function operatorOf(
  authorization: string | undefined,
  common: RevealedSecret | undefined,
  own: readonly NamedSecret[],
): string | undefined {
  const given = /^bearer +(\S+)$/i.exec(authorization ?? "")?.[1];
  if (given === undefined) return undefined;
  const found = own.find((secret) => isSecret(given, secret));
  if (found !== undefined) return found.name;
  return common !== undefined && isSecret(given, common) ? anyOperator : undefined;
}

function isSecret(given: string, secret: RevealedSecret): boolean {
  const wanted = secret.reveal();
  if (wanted === "") return false;
  // Digests, because the comparison needs equal lengths and must not tell how long the secret is.
  return timingSafeEqual(hash("sha256", given, "buffer"), hash("sha256", wanted, "buffer"));
}
