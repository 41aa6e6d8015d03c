/** Names that a request may carry on a connection to one host, whatever brought the connection here. */

const allowed = "api.allowed.test";
const other = "www.allowed.test";

/** What a client gets. `closed` is a connection that ends without an HTTP answer. */
export type Expected = "ok" | "421" | "400" | "400 or 421" | "ok or refused";

/** A name that a request may carry inside a tunnel to `api.allowed.test`. `PORT` stands for the origin's. */
const table: readonly (readonly [what: string, name: string, expected: Expected])[] = [
  ["the same name", `${allowed}:PORT`, "ok"],
  ["the same name in another case", "Api.ALLOWED.test:PORT", "ok"],
  ["the same name with a root dot", `${allowed}.:PORT`, "ok or refused"],
  ["another denied name", "evil.test:PORT", "421"],
  ["another permitted name", `${other}:PORT`, "421"],
  ["a name below it", `x.${allowed}:PORT`, "421"],
  ["a name that ends like it", `x${allowed}:PORT`, "421"],
  ["another port", `${allowed}:1`, "421"],
  ["no port, which is 443", allowed, "421"],
  ["its address", "127.0.0.1:PORT", "421"],
  ["its address in decimal", "2130706433:PORT", "400 or 421"],
  ["an IPv6 address", "[::1]:PORT", "421"],
  ["user information before it", `evil.test@${allowed}:PORT`, "400 or 421"],
  ["user information after it", `${allowed}:PORT@evil.test`, "400 or 421"],
  ["two names", `${allowed}:PORT, evil.test`, "400 or 421"],
  ["two ports", `${allowed}:PORT:443`, "400 or 421"],
  ["a path", `${allowed}:PORT/x`, "400 or 421"],
  ["an encoded dot", "api%2eallowed.test:PORT", "400 or 421"],
  ["a name that is too long", `${"a".repeat(64)}.test:PORT`, "400 or 421"],
  ["an empty label", "api..allowed.test:PORT", "400 or 421"],
  ["nothing", "", "400 or 421"],
];

/** The host of the connection, another permitted one, and the table. */
export const innerNames = { allowed, other, table } as const;
