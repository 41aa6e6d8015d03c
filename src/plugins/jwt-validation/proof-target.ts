/** Whether the `htu` of a proof is the address that the client called (RFC 9449 section 4.3). */
import type { RequestContext } from "../../pipeline/plugin.ts";

/** An address without query and fragment; no user information. */
const address = /^(?<origin>https?:\/\/[^/?#@\\]+)(?<path>\/[^?#]*)?(?:[?#].*)?$/is;
const unreserved = /^[\w\-.~]$/;

/** The addresses by which clients reach the agent. */
export class ProofTargets {
  readonly #bases: readonly (Target | undefined)[];

  /** Without public addresses the scheme of the connection and the Host field count. */
  constructor(publicUrls: readonly string[]) {
    this.#bases = publicUrls.map((url) => targetOf(url.replace(/\/+$/, "")));
  }

  includes(htu: string, context: RequestContext): boolean {
    const claimed = targetOf(htu);
    if (claimed === undefined) return false;
    const path = normalPath(context.pathname);
    if (this.#bases.length === 0) {
      return claimed.origin === originOf(context) && claimed.path === path;
    }
    return this.#bases.some(
      (base) =>
        base !== undefined &&
        claimed.origin === base.origin &&
        claimed.path === (base.path === "/" ? path : base.path + path),
    );
  }
}

interface Target {
  readonly origin: string;
  readonly path: string;
}

function targetOf(text: string): Target | undefined {
  const { origin, path } = address.exec(text)?.groups ?? {};
  const parsed = origin === undefined ? null : URL.parse(origin);
  return parsed === null ? undefined : { origin: parsed.origin, path: normalPath(path ?? "/") };
}

function originOf({ flow, host }: RequestContext): string | undefined {
  const inbound = flow.client.tls === undefined ? "http" : "https";
  const scheme = flow.direction === "inbound" ? inbound : flow.destination.scheme;
  return URL.parse(`${scheme}://${host}`)?.origin;
}

/** RFC 3986 section 6.2.2: nothing is encoded that need not be. Dot segments stay: what is forwarded has them, too. */
function normalPath(path: string): string {
  if (!path.includes("%")) return path;
  return path.replace(/%[0-9a-f]{2}/gi, (triplet) => {
    const character = String.fromCharCode(Number.parseInt(triplet.slice(1), 16));
    return unreserved.test(character) ? character : triplet.toUpperCase();
  });
}
