/** The listeners of the data plane: which are open, where, and how they end. */
import type { Socket } from "node:net";
import type { LoadedConfig } from "../config/load.ts";
import type { Config, ListenerConfig } from "../config/presets.ts";
import { surfaceAddresses, type SurfaceName } from "../config/surfaces.ts";
import { messageOf, ProxyError } from "../errors.ts";
import { ForwardSurface } from "../listener/forward.ts";
import type { BindAddress } from "../listener/bind.ts";
import { Listener } from "../listener/listener.ts";
import { SocksPort } from "../listener/socks.ts";
import type { PeerFrontOptions } from "../listener/peer-front.ts";
import { type FindBackend, ReverseSurface, reverseSessions } from "../listener/reverse.ts";
import type { TlsMaterial } from "../listener/tls-front.ts";
import { TransparentInboundListener } from "../listener/transparent-inbound.ts";
import type { PeerGate } from "../mtls/peer-gate.ts";
import { loadOriginalDestinations } from "../net/kernel/original-destination.ts";
import { OwnDials } from "../net/own-dials.ts";
import type { Runtime } from "../proxy/flow/runtime.ts";
import type { SurfaceServices } from "../proxy/exchange/arrival.ts";
import type { HttpHandlers, HttpLimits } from "../proxy/exchange/http-server.ts";
import { AskedTunnels } from "../proxy/tunnel/asked.ts";
import type { BridgeServer } from "../proxy/tunnel/bridge-server.ts";
import type { Logger } from "../telemetry/log.ts";
import type { OwnListeners } from "../upstream/own-listeners.ts";
import { FileWatch, readSmallFile } from "../files/watched-file.ts";
import {
  bindAddressOf,
  type BoundAddresses,
  type Crowd,
  listenerLimits,
  sharedAddress,
} from "./listen-options.ts";
import { inboundGate, inboundTrust } from "./mutual-tls.ts";
import { bindWide, TransparentSurface } from "./transparent-surface.ts";

/** What surfaces are made of. */
export interface DataSurfaceParts {
  readonly loaded: LoadedConfig;
  readonly services: SurfaceServices;
  readonly bridge: BridgeServer;
  readonly ownListeners: OwnListeners;
  readonly crowd?: Crowd | undefined;
}

/** Opens and closes them. */
export class DataSurfaces {
  readonly #parts: DataSurfaceParts;
  readonly #config: Config;
  readonly transparent: TransparentSurface;
  readonly #listeners: Pick<Listener, "connections" | "close">[] = [];
  #inboundDials: OwnDials | undefined;
  #forward: Listener | undefined;
  /** Of the reverse proxy, where it speaks mutual TLS. */
  readonly #gate: PeerGate | undefined;
  #renewal: TlsRenewal | undefined;

  constructor(parts: DataSurfaceParts) {
    this.#parts = parts;
    const { loaded, services } = parts;
    this.#config = loaded.config;
    this.#gate = inboundGate(loaded.config, services.runtimes.runtime, services.recorder);
    this.transparent = new TransparentSurface({
      ...parts,
      config: loaded.config,
      isWritten: (key) =>
        loaded.isWritten(key === "egress_enforcement" ? [key] : ["listener", key]),
    });
  }

  /** Connections of clients that are open now. */
  get connections(): number {
    const { transparent } = this;
    return this.#listeners.reduce(
      (sum, listener) => sum + listener.connections,
      transparent.connections,
    );
  }

  /** Rejects with `listener.unavailable`; what was bound before stays open until {@link close}. */
  async open(): Promise<BoundAddresses> {
    const { transparent } = this;
    const { ownListeners, crowd } = this.#parts;
    const makers: { readonly [Name in SurfaceName]?: () => Listener } = {
      reverse: () => this.#makeReverse(),
      forward: () => this.#makeForward(),
      socks: () => this.#makeSocks(),
    };
    const addresses: { [Name in SurfaceName]?: BindAddress } = {};
    for (const { name, address } of surfaceAddresses(this.#config)) {
      const listener = makers[name]?.();
      if (listener === undefined) continue;
      const wanted = sharedAddress(bindAddressOf(address, name), name, crowd);
      const bound = await listener.bind(wanted);
      this.#listeners.push(listener);
      if (name === "forward") this.#forward = listener;
      ownListeners.add(bound.host, bound.port);
      addresses[name] = bound;
    }
    const inbound = await this.#openInbound();
    if (inbound !== undefined) addresses.transparent_inbound = inbound;
    await transparent.open();
    const { state } = transparent;
    return state.kind === "bound" ? { ...addresses, transparent: state.address } : addresses;
  }

  /** Serves a connection that something else accepted, as if its surface had. */
  adopt(surface: "forward" | "captured", socket: Socket): void {
    if (surface === "captured") this.transparent.adopt(socket);
    else if (this.#forward === undefined) socket.destroy();
    else this.#forward.adopt(socket);
  }

  /** Judges peers by a generation that was swapped in, those that are connected first. */
  judgePeers(config: Config, runtime: Runtime): void {
    const trust = inboundTrust(config, runtime);
    if (trust !== undefined) this.#gate?.use(trust);
  }

  /** Stops accepting and lets running exchanges finish until the deadline. */
  async close(deadlineMs: number): Promise<void> {
    this.#renewal?.close();
    this.#gate?.close();
    this.#inboundDials?.close();
    const listeners = [...this.#listeners, this.transparent];
    await Promise.all(listeners.map((listener) => listener.close(deadlineMs)));
  }

  /** Nothing reaches the agent without it, so that a kernel or a port that cannot be had is a fault. */
  async #openInbound(): Promise<BindAddress | undefined> {
    const { services, bridge, ownListeners, crowd } = this.#parts;
    const { transparent_inbound_addr: text, inbound_passthrough_ports: ports = [] } =
      this.#config.listener;
    if (text === undefined) return undefined;
    const originals = await loadOriginalDestinations();
    if (typeof originals === "string") {
      const message = `listener.inbound_interception: transparent is not possible here: ${originals}`;
      throw new ProxyError("listener.unavailable", message);
    }
    const ownDials = new OwnDials();
    this.#inboundDials = ownDials;
    const make = (): TransparentInboundListener =>
      new TransparentInboundListener(services, bridge, {
        originals,
        limits: listenerLimits(this.#config, crowd?.connections("transparent_inbound")),
        passthroughPorts: new Set(ports),
        isLocal: (address) => ownListeners.isLocal(address),
        isOwn: (address, port) => ownListeners.owns(address, port),
        ownDials,
        makeHttp: (behind) => ({
          listener: this.#makeReverse(behind),
          readsTls: this.#config.mtls !== undefined,
        }),
      });
    const { listener, address } = await bindWide(make, text, {
      surface: "transparent_inbound",
      crowd,
    });
    this.#listeners.push(listener);
    ownListeners.add(address.host, address.port);
    return address;
  }

  #makeReverse(behind?: FindBackend): Listener {
    const peers = this.#gate;
    const { mtls } = this.#config;
    const { services, crowd } = this.#parts;
    // What another listener has accepted has its place there.
    const places = behind === undefined ? crowd?.connections("reverse") : undefined;
    const options = { peers, ...(behind === undefined ? {} : { behind }) };
    const limits = listenerLimits(this.#config, places);
    const surface = new ReverseSurface(services, limits, options);
    if (mtls === undefined) return this.#make(surface, limits);
    // Without it the port would be open to everybody.
    if (peers === undefined) throw new ProxyError("internal.fault", "mtls without an identity");
    const http2 = reverseSessions(services, limits, options);
    return this.#make(surface, limits, { kind: "peers", gate: peers, mode: mtls.mode, http2 });
  }

  #makeForward(): Listener {
    const { services, bridge, crowd } = this.#parts;
    const { forward_proxy_tls: files, forward_proxy_socks: socks } = this.#config.listener;
    const limits = listenerLimits(this.#config, crowd?.connections("forward"));
    const surface = new ForwardSurface(services, bridge, { limits, socks });
    if (files === undefined) return this.#make(surface, limits);
    const listener = this.#make(surface, limits, readTlsMaterial(files));
    this.#renewal = new TlsRenewal(files, listener, services.recorder.log);
    return listener;
  }

  #makeSocks(): Listener {
    const { services, bridge, crowd } = this.#parts;
    const limits = listenerLimits(this.#config, crowd?.connections("socks"));
    const surface = new SocksPort(services, new AskedTunnels(services, bridge), limits);
    return this.#make(surface, limits);
  }

  #make(
    handlers: HttpHandlers,
    limits: HttpLimits,
    material?: TlsMaterial | PeerFrontOptions,
  ): Listener {
    return new Listener(handlers, limits, this.#parts.services, material);
  }
}

type Files = NonNullable<ListenerConfig["forward_proxy_tls"]>;

/** Quiet time after a change: the files of a pair are rarely written in one step. */
const debounceMs = 250;

/** Reads all of them; throws ProxyError `listener.unavailable` that names the key. */
export function readTlsMaterial(files: Files): TlsMaterial {
  const read = (key: keyof Files, path: string): string => {
    try {
      return readSmallFile(path);
    } catch (error) {
      const message = `listener.forward_proxy_tls.${key}: ${messageOf(error)}`;
      throw new ProxyError("listener.unavailable", message, { cause: error });
    }
  };
  const { client_ca_file: clientCa } = files;
  return {
    kind: "certificate",
    cert: read("cert_file", files.cert_file),
    key: read("key_file", files.key_file),
    ...(clientCa === undefined ? {} : { clientCa: read("client_ca_file", clientCa) }),
  };
}

/** Gives changed files to the listener; what is no good is logged and the last good material stays. */
export class TlsRenewal {
  readonly #watches: readonly FileWatch[];

  constructor(files: Files, listener: Listener, log: Logger) {
    const renew = (): void => {
      try {
        listener.renewTls(readTlsMaterial(files));
        log.info({ cert_file: files.cert_file }, "the forward proxy uses the changed certificate");
      } catch (error) {
        const problem = messageOf(error);
        log.error({ problem }, "changed certificate not used, the last good one stays");
      }
    };
    const failed = (error: Error): void => {
      log.error({ problem: error.message }, "listener.forward_proxy_tls is no longer watched");
    };
    const paths = [files.cert_file, files.key_file, files.client_ca_file];
    this.#watches = paths
      .filter((path) => path !== undefined)
      .map((path) => new FileWatch(path, debounceMs, renew, failed));
  }

  close(): void {
    for (const watch of this.#watches) watch.close();
  }
}
