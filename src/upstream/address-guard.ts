/**
 * Which addresses may be dialled: the guard against SSRF and DNS rebinding that no rule can forget.
 *
 * A name is resolved once; every answer is classified; only vetted addresses are returned, and the dialler uses
 * these very values.
 */
import { ProxyError } from "../errors.ts";
import {
  type AddressSet,
  classifyAddress,
  type IpAddress,
  isMetadataName,
  parseAddress,
} from "../net/address.ts";
import type { AbortSource } from "../net/abort-source.ts";
import type { Destination } from "../net/destination.ts";
import type { OwnListeners } from "./own-listeners.ts";
import { RecentAnswers } from "./recent-answers.ts";
import type { Resolver } from "./resolver.ts";

/** What the guard goes by. */
export interface AddressGuardOptions {
  readonly resolver: Resolver;
  readonly ownListeners: OwnListeners;
  /** Ranges that the file opens by name (`egress.allow_ips`). */
  readonly allowIps: AddressSet;
  readonly privateNetworks: "allow" | "deny";
  /** Hears the class of each refused address, for a counter. */
  readonly onRefused?: (addressClass: string) => void;
}

/** Vets destinations for one generation. */
export class AddressGuard {
  readonly #options: AddressGuardOptions;
  readonly #recent = new RecentAnswers();

  constructor(options: AddressGuardOptions) {
    this.#options = options;
  }

  /**
   * The addresses that may be dialled for this destination, in the resolver's order.
   *
   * Rejects with `upstream.unresolvable`, or `upstream.address-forbidden` when no address is left.
   */
  async vet(destination: Destination, signal: AbortSource): Promise<readonly IpAddress[]> {
    const { host } = destination;
    if (isMetadataName(host)) throw this.#forbidden(destination, "metadata", host);
    const literal = parseAddress(host);
    const candidates =
      literal === undefined ? await this.#resolve(host, signal) : ([literal] as const);
    const vetted: IpAddress[] = [];
    let refused: { readonly why: string; readonly address: IpAddress } | undefined;
    for (const address of candidates) {
      const why = this.#objection(address, destination.port);
      if (why === undefined) vetted.push(address);
      else refused ??= { why, address };
    }
    if (vetted.length > 0) return vetted;
    throw this.#forbidden(
      destination,
      refused?.why ?? "unresolvable",
      refused?.address.toString() ?? host,
    );
  }

  /** The addresses of a destination that the operator named: any class, but never the proxy itself. */
  async vetOperator(destination: Destination, signal: AbortSource): Promise<readonly IpAddress[]> {
    const literal = parseAddress(destination.host);
    const candidates =
      literal === undefined ? await this.#resolve(destination.host, signal) : [literal];
    const vetted = candidates.filter(
      (address) => !this.#options.ownListeners.owns(address, destination.port),
    );
    if (vetted.length > 0) return vetted;
    throw this.#forbidden(destination, "own-listener", destination.host);
  }

  /**
   * Throws `request.misdirected` unless `captured`, which a client dialled itself, is an address of the destination.
   *
   * Nothing is dialled for this: it tells a client that lies about one of the two from one that does not.
   */
  async confirm({ host }: Destination, captured: IpAddress, signal: AbortSource): Promise<void> {
    const literal = parseAddress(host);
    if (literal?.equals(captured) === true || this.#recent.has(host, captured)) return;
    const addresses =
      literal === undefined && !isMetadataName(host) ? await this.#resolve(host, signal) : [];
    if (addresses.some((address) => address.equals(captured))) return;
    throw new ProxyError(
      "request.misdirected",
      `the connection was made to ${captured.toString()}, which is no address of ${host} (listener.transparent.pin)`,
    );
  }

  async #resolve(host: string, signal: AbortSource): Promise<readonly IpAddress[]> {
    const answers = await this.#options.resolver.resolve(host, signal);
    // ::ffff:192.0.2.1 is dialled as 192.0.2.1: what is judged must be that address too.
    const addresses = answers.flatMap((answer) => parseAddress(answer)?.unmapped() ?? []);
    this.#recent.add(host, addresses);
    return addresses;
  }

  /** Why an address may not be dialled, or undefined. */
  #objection(address: IpAddress, port: number): string | undefined {
    const { ownListeners, allowIps, privateNetworks } = this.#options;
    if (ownListeners.owns(address, port)) return "own-listener";
    const kind = classifyAddress(address);
    if (kind === "public") return undefined;
    if (allowIps.contains(address)) return undefined;
    if (kind === "private" && privateNetworks === "allow") return undefined;
    return kind;
  }

  #forbidden(destination: Destination, why: string, address: string): ProxyError {
    this.#options.onRefused?.(why);
    const key =
      why === "private" ? "egress.private_networks or egress.allow_ips" : "egress.allow_ips";
    const remedy =
      why === "own-listener"
        ? "the proxy never dials its own listeners"
        : `${key} would have to name it`;
    const via = address === destination.host ? "" : ` (${address})`;
    return new ProxyError(
      "upstream.address-forbidden",
      `${destination.authority}${via} is a forbidden address, class ${why}: ${remedy}`,
    );
  }
}
