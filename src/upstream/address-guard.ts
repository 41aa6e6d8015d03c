/**
 * Which addresses may be dialled: the guard against SSRF and DNS rebinding that no rule can forget.
 *
 * A name is resolved once; every answer is classified; only vetted addresses are returned, and the dialler uses
 * these very values.
 */
import { ProxyError } from "../errors.ts";
import {
  type AddressClass,
  type AddressSet,
  classifyAddress,
  embeddedIPv4,
  type IpAddress,
  isMetadataName,
  parseAddress,
} from "../net/address.ts";
import type { AbortSource } from "../net/abort-source.ts";
import type { Destination } from "../net/destination.ts";
import type { OwnListeners } from "./own-listeners.ts";
import { RecentAddresses } from "./recent-addresses.ts";
import type { Resolver } from "./resolver.ts";

/** RFC 6761 section 6.3, and what Linux distributions write into /etc/hosts. */
function isLoopbackName(host: string): boolean {
  return (
    host === "localhost" ||
    host.endsWith(".localhost") ||
    /^(?:localhost\.localdomain|ip6-localhost|ip6-loopback)$/.test(host)
  );
}

/** Options of the guard. */
export interface AddressGuardOptions {
  readonly resolver: Resolver;
  readonly ownListeners: OwnListeners;
  /** Ranges that the file opens by name (`egress.allow_ips`). */
  readonly allowIps: AddressSet;
  readonly privateNetworks: "allow" | "deny";
  /** Called with the class of each refused address, for a counter. */
  readonly onRefused?: (addressClass: string) => void;
}

/** Why an address may not be dialled. */
export type AddressObjection =
  AddressClass | "own-listener" | "outside-allowed-ips" | "control-plane-port";

/** What would change a refusal, where that is not `egress.allow_ips` alone. */
const remedies: Readonly<Record<string, string>> = {
  private: "egress.private_networks or egress.allow_ips would have to name it",
  "own-listener": "the proxy never dials its own listeners",
  "outside-allowed-ips": "allowed_ips of the policy entry do not hold it",
  "control-plane-port": "allowed_ips open no port of etcd, the Kubernetes API or a kubelet",
};

/** etcd, the Kubernetes API server and kubelets: the file format lets no `allowed_ips` open them. */
const controlPlanePorts: ReadonlySet<number> = new Set([2379, 2380, 6443, 10_250, 10_255]);

/** The verdict on one address of a destination, for `explain`. */
export interface JudgedAddress {
  /** The host itself, where its name alone is refused. */
  readonly address: string;
  readonly class: AddressClass;
  /** Absent where it may be dialled. */
  readonly objection?: AddressObjection;
  /** What would change that. */
  readonly remedy?: string;
}

/** Vets destinations for one generation. */
export class AddressGuard {
  readonly #options: AddressGuardOptions;
  readonly #recent = new RecentAddresses();

  constructor(options: AddressGuardOptions) {
    this.#options = options;
  }

  /**
   * The addresses that may be dialled for this destination, in the resolver's order.
   *
   * `limits` are those of the permit: an address must be in every one of them, and a private one among them is open.
   * `caller` is the one whose share of look-ups is used.
   *
   * Rejects with `upstream.unresolvable`, or `upstream.address-forbidden` when no address is left.
   */
  async vet(
    destination: Destination,
    signal: AbortSource,
    limits: readonly AddressSet[] = [],
    caller = "",
  ): Promise<readonly IpAddress[]> {
    const { host } = destination;
    if (isMetadataName(host)) throw this.#forbidden(destination, "metadata", host);
    const literal = parseAddress(host);
    const candidates =
      literal === undefined ? await this.#resolve(host, signal, caller) : ([literal] as const);
    const vetted: IpAddress[] = [];
    let refused: { readonly why: AddressObjection; readonly address: IpAddress } | undefined;
    for (const address of candidates) {
      const why = await this.#fullObjection(address, destination.port, limits);
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

  /**
   * Judges as much as possible of a destination whose name a parent proxy resolves: address literals, names that stand
   * for this machine or for a metadata service, and names to which the file gives addresses.
   *
   * Throws `upstream.address-forbidden`.
   */
  judgeUnresolved(destination: Destination, limits: readonly AddressSet[] = []): void {
    const { host, port } = destination;
    if (isMetadataName(host)) throw this.#forbidden(destination, "metadata", host);
    const texts = destination.isAddress
      ? [host]
      : isLoopbackName(host)
        ? ["127.0.0.1", "::1"]
        : (this.#options.resolver.fixed?.(host) ?? []);
    const known = texts.flatMap((text) => parseAddress(text)?.unmapped() ?? []);
    const objections = known.map((address) => this.#objection(address, port, limits));
    const [why] = objections;
    if (why !== undefined && objections.every((objection) => objection !== undefined))
      throw this.#forbidden(destination, why, known[0]?.toString() ?? host);
  }

  /** What {@link vet} would say of every address of this destination, without refusing anything. */
  async judge(
    destination: Destination,
    signal: AbortSource,
    limits: readonly AddressSet[] = [],
  ): Promise<readonly JudgedAddress[]> {
    const { host, port } = destination;
    if (isMetadataName(host)) return [{ address: host, class: "metadata", objection: "metadata" }];
    const literal = parseAddress(host);
    const candidates = literal === undefined ? await this.#resolve(host, signal) : [literal];
    const judged: JudgedAddress[] = [];
    for (const address of candidates) {
      const objection = await this.#fullObjection(address, port, limits);
      judged.push({
        address: address.toString(),
        class: classifyAddress(address),
        ...(objection === undefined ? {} : { objection, remedy: remedyOf(objection) }),
      });
    }
    return judged;
  }

  /** The addresses of a destination that the operator named: any class, but never the proxy itself. */
  async vetOperator(destination: Destination, signal: AbortSource): Promise<readonly IpAddress[]> {
    const literal = parseAddress(destination.host);
    const candidates =
      literal === undefined ? await this.#resolve(destination.host, signal) : [literal];
    const { ownListeners } = this.#options;
    const vetted: IpAddress[] = [];
    for (const address of candidates) {
      if (ownListeners.owns(address, destination.port)) continue;
      if (!(await ownListeners.ownsByRoute(address, destination.port))) vetted.push(address);
    }
    if (vetted.length > 0) return vetted;
    throw this.#forbidden(destination, "own-listener", destination.host);
  }

  /**
   * Throws `request.misdirected` unless `captured`, which a client dialled itself, is an address of the destination.
   *
   * Nothing is dialled for this: it only detects a client whose name and address do not agree.
   */
  async confirm(
    { host }: Destination,
    captured: IpAddress,
    signal: AbortSource,
    caller = "",
  ): Promise<void> {
    const literal = parseAddress(host);
    if (literal?.equals(captured) === true || this.#recent.has(host, captured)) return;
    const addresses =
      literal === undefined && !isMetadataName(host)
        ? await this.#resolve(host, signal, caller)
        : [];
    if (addresses.some((address) => address.equals(captured))) return;
    throw new ProxyError(
      "request.misdirected",
      `the connection was made to ${captured.toString()}, which is no address of ${host} (listener.transparent.pin)`,
    );
  }

  async #resolve(
    host: string,
    signal: AbortSource,
    caller?: string,
  ): Promise<readonly IpAddress[]> {
    const answers = await this.#options.resolver.resolve(host, signal, caller);
    // ::ffff:192.0.2.1 is dialled as 192.0.2.1: what is judged must be that address too.
    const addresses = answers.flatMap((answer) => parseAddress(answer)?.unmapped() ?? []);
    this.#recent.add(host, addresses);
    return addresses;
  }

  async #fullObjection(
    address: IpAddress,
    port: number,
    limits: readonly AddressSet[],
  ): Promise<AddressObjection | undefined> {
    const why = this.#objection(address, port, limits);
    if (why !== undefined || !(await this.#options.ownListeners.ownsByRoute(address, port)))
      return why;
    return "own-listener";
  }

  /** Why an address may not be dialled, or undefined, as far as no system call is needed. */
  #objection(
    address: IpAddress,
    port: number,
    limits: readonly AddressSet[],
  ): AddressObjection | undefined {
    const { ownListeners, privateNetworks } = this.#options;
    if (ownListeners.owns(address, port)) return "own-listener";
    if (!limits.every((ranges) => ranges.contains(address))) return "outside-allowed-ips";
    const kind = classifyAddress(address);
    if (kind === "public" || this.#isNamed(address)) return undefined;
    if (kind !== "private") return kind;
    if (privateNetworks === "allow") return undefined;
    if (limits.length === 0) return kind;
    return controlPlanePorts.has(port) ? "control-plane-port" : undefined;
  }

  /** Whether the file opens this address, and what it embeds: 64:ff9b::/96 opens no IPv4 address that is closed. */
  #isNamed(address: IpAddress): boolean {
    const { allowIps, privateNetworks } = this.#options;
    if (!allowIps.contains(address)) return false;
    return embeddedIPv4(address).every((inner) => {
      const kind = classifyAddress(inner);
      return (
        kind === "public" ||
        (kind === "private" && privateNetworks === "allow") ||
        allowIps.contains(inner)
      );
    });
  }

  #forbidden(
    destination: Destination,
    why: AddressObjection | "unresolvable",
    address: string,
  ): ProxyError {
    this.#options.onRefused?.(why);
    const remedy = remedyOf(why);
    const via = address === destination.host ? "" : ` (${address})`;
    return new ProxyError(
      "upstream.address-forbidden",
      `${destination.authority}${via} is a forbidden address, class ${why}: ${remedy}`,
    );
  }
}

function remedyOf(why: string): string {
  return remedies[why] ?? "egress.allow_ips would have to name it";
}
