/**
 * Connections through the site's own proxies.
 *
 * The guard judges destinations as it does without a parent. With `connect_by: address` the parent is asked for an
 * address that was vetted here. A parent that fails is a fault: nothing is dialled in its place.
 */
import type net from "node:net";
import { BoundedMap } from "../bounded-map.ts";
import { ProxyError } from "../errors.ts";
import type { AbortSource } from "../net/abort-source.ts";
import type { IpAddress } from "../net/address.ts";
import type { Destination } from "../net/destination.ts";
import type { Permit } from "../pipeline/pipeline.ts";
import { ParentAbsoluteForm } from "./absolute-form.ts";
import type { AddressGuard } from "./address-guard.ts";
import { ConnectDialogue } from "./parent/connect-dialogue.ts";
import { converse, type Dialogue } from "./parent/dialogue.ts";
import type { OriginTrust } from "./origin-trust.ts";
import { ofParent, type ParentProxy } from "./parent/parent-proxy.ts";
import type { ProxyRoutes } from "./proxy-routes.ts";
import { Socks5Dialogue } from "./parent/socks5-dialogue.ts";
import {
  type AbsoluteForm,
  type ConnectOptions,
  dialFirst,
  type DirectUpstream,
  type OperatorUpstream,
  type Upstream,
} from "./upstream.ts";

/** Options of the chain. */
export interface ProxyChainOptions {
  readonly guard: AddressGuard;
  readonly direct: DirectUpstream;
  readonly routes: ProxyRoutes;
  /** Verifies https parents. */
  readonly trust: OriginTrust;
  /** Time for TCP and, with an https parent, again for TLS. */
  readonly connectTimeoutMs: number;
  /** Time for the parent's response to CONNECT or SOCKS. */
  readonly tunnelTimeoutMs: number;
  /** Called with the hop of every failure, for a counter. */
  readonly onFailure?: (hop: string) => void;
}

/** A parent is asked for at most this many of a name's addresses. */
const maxAddressesTried = 3;

/** Dials through parents where the routes say so. */
export class ProxyChain implements Upstream, OperatorUpstream {
  readonly #options: ProxyChainOptions;
  readonly #forms = new Map<ParentProxy, ParentAbsoluteForm>();
  /** Addresses at which parents were found, as `address:port`. */
  readonly #parentAddresses = new BoundedMap<string, true>(maxParentAddresses);

  constructor(options: ProxyChainOptions) {
    this.#options = options;
  }

  async connect(permit: Permit, options: ConnectOptions): Promise<net.Socket> {
    const { direct, routes, guard } = this.#options;
    const { destination } = permit;
    if (permit.direction === "inbound") return direct.connect(permit, options);
    await this.#learnParents(destination, options.signal);
    this.#refuseParents(destination, []);
    const way = routes.decide(destination);
    // Limits of addresses want an address, so a permit with such limits is never left to the parent's resolver.
    if (way !== "direct" && way.connectBy === "name" && permit.addressLimits.length === 0) {
      guard.judgeUnresolved(destination);
      return this.#through(way, destination, [destination.host], options);
    }
    const { addressLimits, caller } = permit;
    const vetted = await guard.vet(destination, options.signal, addressLimits, caller);
    this.#refuseParents(destination, vetted);
    return this.#reach(destination, vetted, options);
  }

  async confirm(permit: Permit, captured: IpAddress, signal: AbortSource): Promise<void> {
    const { direct, routes } = this.#options;
    const way = routes.decide(permit.destination);
    const isOurs = way === "direct" || way.connectBy === "address" || permit.destination.isAddress;
    if (isOurs) await direct.confirm(permit, captured, signal);
  }

  /** The services that the operator's file names use the same routes. */
  async connectOperator(destination: Destination, signal: AbortSource): Promise<net.Socket> {
    const { routes, guard } = this.#options;
    const way = routes.decide(destination);
    if (way !== "direct" && way.connectBy === "name") {
      return this.#through(way, destination, [destination.host], { signal });
    }
    const vetted = await guard.vetOperator(destination, signal);
    return this.#reach(destination, vetted, { signal });
  }

  absoluteForm(permit: Permit): AbsoluteForm | undefined {
    const { destination } = permit;
    const form = permit.direction === "inbound" ? undefined : this.#formFor(destination);
    if (form === undefined) return undefined;
    if (permit.addressLimits.length > 0 && !destination.isAddress) return undefined;
    this.#refuseParents(destination, []);
    this.#options.guard.judgeUnresolved(destination, permit.addressLimits);
    return form;
  }

  connectOperatorSocket(path: string, signal: AbortSignal): Promise<net.Socket> {
    return this.#options.direct.connectOperatorSocket(path, signal);
  }

  absoluteFormOperator(destination: Destination): AbsoluteForm | undefined {
    return this.#formFor(destination);
  }

  /** A connection to a parent itself, TLS included. */
  async dialParent(parent: ParentProxy, options: ConnectOptions): Promise<net.Socket> {
    const { guard, trust, connectTimeoutMs } = this.#options;
    const { destination, kind } = parent;
    let addresses: readonly IpAddress[];
    try {
      addresses = await guard.vetOperator(destination, options.signal);
    } catch (error) {
      throw ofParent(parent, "dns", error);
    }
    this.#remember(destination, addresses);
    const { signal, reader } = options;
    // Behind TLS the bytes of the socket are not those of the tunnel.
    const plain = kind !== "https" && reader !== undefined ? { signal, reader } : { signal };
    let socket: net.Socket;
    try {
      socket = await dialFirst(destination, addresses, connectTimeoutMs, plain);
    } catch (error) {
      throw ofParent(parent, "tcp", error);
    }
    if (kind !== "https") return socket;
    try {
      return await trust.secure(socket, destination);
    } catch (error) {
      throw ofParent(parent, "tls", error);
    }
  }

  /** Requests in absolute form need no tunnel, and squid's default rules refuse one to port 80 (docs/adr). */
  #formFor(destination: Destination): ParentAbsoluteForm | undefined {
    if (destination.scheme !== "http") return undefined;
    const way = this.#options.routes.decide(destination);
    if (way === "direct" || way.kind === "socks5") return undefined;
    // A parent takes the host from the target and not from Host: the address of a name cannot stand there.
    if (way.connectBy === "address" && !destination.isAddress) return undefined;
    let form = this.#forms.get(way);
    if (form === undefined) {
      form = new ParentAbsoluteForm(way, (signal) =>
        this.#counted(this.dialParent(way, { signal })),
      );
      this.#forms.set(way, form);
    }
    return form;
  }

  async #reach(
    destination: Destination,
    vetted: readonly IpAddress[],
    options: ConnectOptions,
  ): Promise<net.Socket> {
    const { routes, connectTimeoutMs } = this.#options;
    const way = routes.decide(destination);
    const near = way === "direct" ? vetted : routes.directAmong(destination, vetted);
    if (way === "direct" || near.length > 0)
      return dialFirst(destination, near, connectTimeoutMs, options);
    // IPv4 first: a parent without IPv6 is more usual than one without IPv4.
    const ordered = [...vetted].sort((a, b) => a.version - b.version).slice(0, maxAddressesTried);
    return this.#through(way, destination, ordered.map(String), options);
  }

  /** A tunnel to the first of the hosts to which the parent can open one. */
  async #through(
    parent: ParentProxy,
    destination: Destination,
    hosts: readonly string[],
    options: ConnectOptions,
  ): Promise<net.Socket> {
    const [host = destination.host, ...others] = hosts;
    try {
      return await this.#counted(this.#tunnel(parent, host, destination.port, options));
    } catch (error) {
      const isItsResponse =
        error instanceof ProxyError &&
        error.code === "upstream.proxy-refused" &&
        error.hop === "connect";
      if (others.length === 0 || !isItsResponse) throw error;
      return this.#through(parent, destination, others, options);
    }
  }

  async #tunnel(
    parent: ParentProxy,
    host: string,
    port: number,
    options: ConnectOptions,
  ): Promise<net.Socket> {
    const socket = await this.dialParent(parent, options);
    const dialogue: Dialogue =
      parent.kind === "socks5"
        ? new Socks5Dialogue(parent, host, port)
        : new ConnectDialogue(parent, host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`);
    try {
      await converse(socket, dialogue, {
        ...options,
        timeoutMs: this.#options.tunnelTimeoutMs,
      });
      return socket;
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }

  async #counted(dial: Promise<net.Socket>): Promise<net.Socket> {
    try {
      return await dial;
    } catch (error) {
      if (error instanceof ProxyError && error.hop !== undefined)
        this.#options.onFailure?.(error.hop);
      throw error;
    }
  }

  /** An agent that could reach a parent itself would bypass every rule. */
  #refuseParents(destination: Destination, addresses: readonly IpAddress[]): void {
    const isParent =
      this.#options.routes.parents.some((parent) => parent.destination.equals(destination)) ||
      [destination.host, ...addresses.map(String)].some((address) =>
        this.#parentAddresses.has(`${address}:${destination.port}`),
      );
    if (!isParent) return;
    throw new ProxyError(
      "upstream.address-forbidden",
      `${destination.authority} is an upstream proxy of this proxy: agents do not speak to it themselves`,
    );
  }

  /** Parents are known by their addresses once they were dialled; one at the same port may not have been yet. */
  async #learnParents({ port }: Destination, signal: AbortSource): Promise<void> {
    for (const { destination } of this.#options.routes.parents) {
      if (destination.port !== port || destination.isAddress) continue;
      // A name that cannot be looked up cannot be told from the destination: that is a refusal.
      this.#remember(destination, await this.#options.guard.vetOperator(destination, signal));
    }
  }

  #remember({ port }: Destination, addresses: readonly IpAddress[]): void {
    for (const address of addresses)
      this.#parentAddresses.set(`${address.toString()}:${port}`, true);
  }
}

/** Parents are few; their names may move from address to address. */
const maxParentAddresses = 1_024;
