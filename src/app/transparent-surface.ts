/** The transparent listener of one process: open, switched off, or not possible here, and what that means for readiness. */
import type { Socket } from "node:net";
import { durationMs } from "../duration.ts";
import { parseListenAddress } from "../config/listen-address.ts";
import type { Config } from "../config/presets.ts";
import { surfaceKey } from "../config/surfaces.ts";
import { messageOf } from "../errors.ts";
import type { BindAddress } from "../listener/bind.ts";
import { TransparentListener, type TransparentOptions } from "../listener/transparent.ts";
import { loadOriginalDestinations } from "../net/kernel/original-destination.ts";
import { OwnDials } from "../net/own-dials.ts";
import type { BridgeServer } from "../proxy/tunnel/bridge-server.ts";
import type { SurfaceServices } from "../proxy/exchange/arrival.ts";
import type { OwnListeners } from "../upstream/own-listeners.ts";
import { bindAddressOf, type Crowd, listenerLimits, sharedAddress } from "./listen-options.ts";

/** What it is made of. */
export interface TransparentSurfaceParts {
  readonly config: Config;
  readonly services: SurfaceServices;
  readonly bridge: BridgeServer;
  readonly ownListeners: OwnListeners;
  readonly crowd?: Crowd | undefined;
  /** Whether the file itself has the key. */
  isWritten(this: void, key: "transparent_proxy_addr" | "egress_enforcement"): boolean;
}

/** How it is. */
export type TransparentState =
  | { readonly kind: "off" }
  | { readonly kind: "bound"; readonly address: BindAddress }
  | { readonly kind: "unavailable"; readonly reason: string };

/** Opens and closes it. */
export class TransparentSurface {
  readonly #parts: TransparentSurfaceParts;
  #listener: TransparentListener | undefined;
  /** Of connections that something else accepted. */
  #adopter: TransparentListener | undefined;
  #ownDials: OwnDials | undefined;
  #state: TransparentState = { kind: "off" };

  constructor(parts: TransparentSurfaceParts) {
    this.#parts = parts;
  }

  get state(): TransparentState {
    return this.#state;
  }

  get connections(): number {
    return (this.#listener?.connections ?? 0) + (this.#adopter?.connections ?? 0);
  }

  /** Rejects with `listener.unavailable` only where the file names an address that is taken. */
  async open(): Promise<void> {
    const { config, services, crowd } = this.#parts;
    const { transparent_proxy_addr: address } = config.listener;
    const { log, metrics } = services.recorder;
    metrics.gauge("transparent_listener_up", () => (this.#state.kind === "bound" ? 1 : 0));
    if (address === undefined) return;
    this.#state = await this.#openAt(address);
    if (this.#state.kind !== "unavailable") return;
    // The first thread has said it, where it has none either.
    if (crowd?.bound !== undefined && crowd.bound.transparent === undefined) return;
    const { reason } = this.#state;
    const line = { key: surfaceKey("transparent"), address, reason };
    log[this.#isRequired ? "error" : "warn"](
      line,
      `the transparent listener is not open: ${reason}; redirected connections are refused by the kernel`,
    );
  }

  /** Why the process must get no traffic: the file says that capture is enforced, and nothing captured can be served. */
  notReady(): string | undefined {
    return this.#isRequired ? this.note() : undefined;
  }

  /** What a probe should say although the process is ready. */
  note(): string | undefined {
    return this.#state.kind === "unavailable"
      ? `transparent listener not open: ${this.#state.reason}`
      : undefined;
  }

  async close(deadlineMs: number): Promise<void> {
    await Promise.all([this.#listener?.close(deadlineMs), this.#adopter?.close(deadlineMs)]);
    this.#ownDials?.close();
  }

  /** Serves a connection that was accepted in another network namespace, in place of its destination. */
  adopt(socket: Socket): void {
    // There the kernel redirects nothing, and its addresses are none of ours.
    const elsewhere = { originals: { of: () => undefined }, ownDials: { has: () => false } };
    this.#adopter ??= this.#make(elsewhere);
    this.#adopter.adopt(socket);
  }

  #make(facts: Pick<TransparentOptions, "originals" | "ownDials">): TransparentListener {
    const { config, services, bridge, crowd } = this.#parts;
    const { pin, sniff_timeout: timeout, opaque_ports: ports } = config.listener.transparent;
    return new TransparentListener(services, bridge, {
      ...facts,
      pin,
      sniffTimeoutMs: durationMs(timeout),
      opaquePorts: new Set(ports),
      limits: listenerLimits(config, crowd?.connections("transparent")),
    });
  }

  /** A default that cannot be had (another system, a port that is taken) is no fault of the operator's file. */
  get #isRequired(): boolean {
    const { config, isWritten } = this.#parts;
    return config.egress_enforcement === "enforce-redirect" && isWritten("egress_enforcement");
  }

  async #openAt(text: string): Promise<TransparentState> {
    const { ownListeners, isWritten, crowd } = this.#parts;
    const originals = await loadOriginalDestinations();
    if (typeof originals === "string") return { kind: "unavailable", reason: originals };
    const ownDials = new OwnDials();
    const make = (): TransparentListener => this.#make({ originals, ownDials });
    try {
      const { listener, address } = await bindWide(make, text, { crowd });
      this.#listener = listener;
      this.#ownDials = ownDials;
      ownListeners.add(address.host, address.port);
      return { kind: "bound", address };
    } catch (error) {
      ownDials.close();
      if (isWritten("transparent_proxy_addr")) throw error;
      return { kind: "unavailable", reason: messageOf(error) };
    }
  }
}

/** An address without a host takes both families: connections over IPv6 are redirected, too. */
export async function bindWide<L extends Pick<TransparentListener, "bind">>(
  make: () => L,
  text: string,
  {
    surface = "transparent",
    crowd,
  }: {
    readonly surface?: "transparent" | "transparent_inbound";
    readonly crowd?: Crowd | undefined;
  } = {},
): Promise<{ readonly listener: L; readonly address: BindAddress }> {
  const wanted = sharedAddress(bindAddressOf(text, surface), surface, crowd);
  // What another thread has bound has a host.
  const isFirst = wanted.shared !== "next";
  const isWide = isFirst && parseListenAddress(text)?.host === undefined;
  if (isWide) {
    const listener = make();
    try {
      return { listener, address: await listener.bind({ ...wanted, host: "::" }) };
    } catch (error) {
      if (!isWithoutIpv6(error)) throw error;
    }
  }
  const listener = make();
  return { listener, address: await listener.bind(wanted) };
}

function isWithoutIpv6(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : undefined;
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
  return code === "EAFNOSUPPORT" || code === "EADDRNOTAVAIL";
}
