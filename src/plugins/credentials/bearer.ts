/** The bearer credential of a request, read strictly. */
import type { HeaderList } from "../../http/headers.ts";
import type { Secret } from "../../secret.ts";

/** A request's credential as an authorization server's client would read it. */
export type Bearer =
  | { readonly kind: "bearer"; readonly token: string }
  /** There is no Authorization field at all. */
  | { readonly kind: "absent" }
  /** There is one, of another scheme. */
  | { readonly kind: "other" }
  /** Several fields or values, or a bearer that is none: two readers could see two callers. */
  | { readonly kind: "malformed" };

/** RFC 6750 section 2.1: the scheme in any case, spaces, then b64token. A comma-joined list does not fit it. */
const bearer = /^bearer +([\w\-.~+/]+=*)$/i;
const anyBearer = /^bearer(?:[\s,]|$)/i;

/** Reads the Authorization field; tokens in the query or in a form are no credentials here. */
export function readBearer(headers: HeaderList): Bearer {
  const values = headers.getAll("authorization");
  const [value] = values;
  if (value === undefined) return { kind: "absent" };
  if (values.length > 1) return { kind: "malformed" };
  const token = bearer.exec(value.trim())?.[1];
  if (token !== undefined) return { kind: "bearer", token };
  if (value.trim() === "" || anyBearer.test(value.trim())) return { kind: "malformed" };
  return { kind: "other" };
}

/** A token of either scheme: as {@link Bearer}, or with a proof of the key that it is bound to (RFC 9449 section 7.1). */
export type TokenCredential = Bearer | { readonly kind: "dpop"; readonly token: string };

const dpop = /^dpop +([\w\-.~+/]+=*)$/i;
const anyDpop = /^dpop(?:[\s,]|$)/i;

/** Reads the Authorization field, under the scheme DPoP as well. The proof is in a field of its own. */
export function readToken(headers: HeaderList): TokenCredential {
  const read = readBearer(headers);
  if (read.kind !== "other") return read;
  const value = headers.get("authorization")?.trim() ?? "";
  const token = dpop.exec(value)?.[1];
  if (token !== undefined) return { kind: "dpop", token };
  return anyDpop.test(value) ? { kind: "malformed" } : read;
}

/** Puts a token in place of the client's credential; a proof that the client sent was of another token. */
export function attachBearer(headers: HeaderList, token: Secret): void {
  headers.delete("DPoP");
  headers.set("Authorization", `Bearer ${token.reveal()}`);
}
