/** Keep-alive connections to origins: one pool per destination, dialled through the Upstream only. */
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { ProxyError } from "../errors.ts";
import type { ResponseHandler } from "../http/response-handler.ts";
import type { Destination } from "../net/destination.ts";
import type { Places } from "../net/places.ts";
import { StallWatch } from "../net/stall-watch.ts";
import type { Direction } from "../pipeline/flow.ts";
import type { Permit } from "../pipeline/pipeline.ts";
import type { ClientCertificate } from "../pipeline/plugin.ts";
import type { Dial } from "./dial.ts";
import { Http2Origin } from "./http2-origin.ts";
import { maxResponseFields } from "./http2-session.ts";
import { absoluteTarget } from "./absolute-form.ts";
import { Demand, onceClosed, OriginAdmission } from "./origin-admission.ts";
import { OriginProtocols } from "./origin-protocols.ts";
import type { OriginTls } from "./origin-tls.ts";
import { ParentResponse } from "./parent-response.ts";
import { ClientPool } from "../wire/client-pool.ts";
import type { OutgoingRequest, AbsoluteForm, Upstream } from "./upstream.ts";

/** Limits of a connection to an origin. Milliseconds; 0 means none. */
export interface OriginPoolsOptions {
  readonly upstream: Upstream;
  readonly tls: OriginTls;
  readonly connectTimeoutMs: number;
  readonly responseTimeoutMs: number;
  readonly streamIdleTimeoutMs: number;
  readonly maxHeaderBytes: number;
  /** Places for the requests of each direction. */
  readonly places: Readonly<Record<Direction, Places>>;
  /** Connections, idle ones included, above which idle ones are closed. */
  readonly maxConnections: number;
  /** HTTP/2 with https origins: where a request needs it, always, or never. It costs a third of the throughput. */
  readonly http2: "auto" | "on" | "off";
  /** Called with every step of every dial. */
  readonly onDial?: ((dial: Dial) => void) | undefined;
}

/** The connections to one destination. */
export interface Connections {
  readonly count: number;
  /** Those that carry no request. */
  readonly idle: number;
  /** Whether idle ones have a place as well. */
  readonly isPlaced: boolean;
  dispatch(permit: Permit, request: OutgoingRequest, handler: ResponseHandler): void;
  /** Lets running requests finish. */
  retire(): void;
  destroy(): Promise<void>;
}

/** The tries of one request: where it failed over kept connections, those beside the dead one may be dead, too. */
export interface Attempt {
  over?: Connections;
}

interface Entry {
  connections: Connections;
  /** The newest permit for this destination: proof for the dials that its connections make on their own. */
  permit: Permit;
  /** What its connections show; those that showed another one are let go. */
  certificate: ClientCertificate | undefined;
  lastUsed: number;
  /** Requests that wait for one of its connections. */
  readonly demand: Demand;
}

/** More destinations than this at once, and idle ones are closed. */
const maxOrigins = 1_024;
/** Node servers close idle connections after 5 s: stay below, so that a request rarely meets a closing one. */
const keepAliveTimeoutMs = 4_000;
/** The longest keep-alive time of an origin that is relied on. */
const keepAliveMaxTimeoutMs = 30_000;

/** The HTTP client for agent traffic of one generation. */
export class OriginPools {
  /** What it says of faults. */
  readonly tls: OriginTls;
  readonly #options: OriginPoolsOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #closing = new AbortController();
  readonly #admission: OriginAdmission;
  readonly #protocols = new OriginProtocols();
  readonly #watch: StallWatch;
  #uses = 0;
  #sockets = 0;

  constructor(options: OriginPoolsOptions) {
    this.#options = options;
    this.tls = options.tls;
    const limits = [options.responseTimeoutMs, options.streamIdleTimeoutMs];
    const shortest = Math.min(keepAliveTimeoutMs, ...limits.filter((limit) => limit > 0));
    this.#watch = new StallWatch(Math.max(20, Math.min(500, shortest / 4)));
    this.#admission = new OriginAdmission(options.places, () => this.#closeIdle(true));
  }

  /** Sends a request that a pipeline permitted; the handler gets the outcome. A second try uses new connections. */
  dispatch(
    permit: Permit,
    request: OutgoingRequest,
    handler: ResponseHandler,
    attempt: Attempt = {},
  ): void {
    // A connection that becomes something else wants a tunnel through a parent (RFC 6455 section 4.1).
    const isHttp1 = request.upgrade === undefined && request.priorKnowledge !== true;
    const form = isHttp1 ? this.#options.upstream.absoluteForm(permit) : undefined;
    if (form === undefined) {
      if (this.#prefersHttp2(permit.destination, request)) {
        // Many of its streams share a connection: that is what holds the place.
        this.#entryFor(permit, true, attempt).connections.dispatch(permit, request, handler);
        return;
      }
      this.#admission.request(permit, permit.destination.authority, handler, (placed) => {
        const { connections, demand } = this.#entryFor(permit, false, attempt);
        connections.dispatch(permit, request, placed.await(demand));
      });
      return;
    }
    this.#admission.request(permit, form.label, handler, (placed) => {
      const { connections, demand } = this.#parentEntryFor(permit, form, attempt);
      connections.dispatch(
        permit,
        {
          ...request,
          path: absoluteTarget(permit.destination, request.path),
          headers: [...request.headers, ...form.fields()],
        },
        new ParentResponse(form, placed.await(demand)),
      );
    });
  }

  /** Requests to these destinations get new connections; running ones finish on theirs. */
  renew(isMeant: (permit: Permit) => boolean): void {
    for (const [key, entry] of this.#entries) {
      if (!isMeant(entry.permit)) continue;
      this.#entries.delete(key);
      entry.connections.retire();
    }
  }

  /** Open connections, for a gauge. */
  get connections(): number {
    let total = 0;
    for (const { connections } of this.#entries.values()) total += connections.count;
    return total;
  }

  /** Closes idle connections at once and the others after their requests. */
  async close(): Promise<void> {
    this.#closing.abort();
    const closing = [...this.#entries.values()].map(({ connections }) => connections.destroy());
    this.#entries.clear();
    await Promise.allSettled(closing);
    this.#watch.close();
  }

  #entryFor(permit: Permit, http2: boolean, attempt: Attempt): Entry {
    const { destination, direction, addressLimits } = permit;
    // A connection that was dialled under other limits may end at an address that these do not allow.
    const limits = addressLimits.length === 0 ? "" : ` ${addressLimits.join(";")}`;
    const key = `${direction} ${http2 ? "h2 " : ""}${destination.origin}${limits}`;
    return this.#entryOf(key, permit, attempt, (entry) =>
      http2
        ? this.#http2Connections(destination)
        : this.#http1Connections(() =>
            this.#open(entry.permit, this.#signalOf(entry.demand.signal), false),
          ),
    );
  }

  /** Connections to a parent, shared by the destinations behind it. */
  #parentEntryFor(permit: Permit, form: AbsoluteForm, attempt: Attempt): Entry {
    return this.#entryOf(`parent ${form.label}`, permit, attempt, ({ demand }) =>
      this.#http1Connections(() => this.#counted(form.connect(this.#signalOf(demand.signal)))),
    );
  }

  #entryOf(
    key: string,
    permit: Permit,
    attempt: Attempt,
    make: (entry: Omit<Entry, "connections">) => Connections,
  ): Entry {
    this.#uses += 1;
    const certificate = this.tls.certificateFor(permit.destination);
    let entry = this.#entries.get(key);
    if (entry === undefined) {
      if (this.#entries.size >= maxOrigins) this.#drop(({ lastUsed }) => 1 / lastUsed);
      const begun = { permit, certificate, lastUsed: this.#uses, demand: new Demand() };
      entry = Object.assign(begun, { connections: make(begun) });
      this.#entries.set(key, entry);
    } else if (entry.connections === attempt.over || entry.certificate !== certificate) {
      entry.connections.retire();
      entry.connections = make(entry);
      entry.certificate = certificate;
    }
    entry.permit = permit;
    entry.lastUsed = this.#uses;
    attempt.over = entry.connections;
    return entry;
  }

  #http1Connections(open: () => Promise<Socket>): Connections {
    const { responseTimeoutMs, streamIdleTimeoutMs, maxHeaderBytes } = this.#options;
    const pool = new ClientPool({
      open,
      watch: this.#watch,
      limits: {
        responseTimeoutMs,
        streamIdleTimeoutMs,
        maxHeaderBytes,
        maxHeaders: maxResponseFields,
        idleTimeoutMs: keepAliveTimeoutMs,
        maxIdleTimeoutMs: keepAliveMaxTimeoutMs,
      },
    });
    return {
      get count() {
        return pool.count;
      },
      get idle() {
        return pool.idle;
      },
      isPlaced: false,
      dispatch: (_permit, request, handler) => pool.dispatch(request, handler),
      retire: () => pool.retire(),
      destroy: () => {
        pool.destroy();
        return Promise.resolve();
      },
    };
  }

  #http2Connections(destination: Destination): Connections {
    const origin = new Http2Origin({
      ...this.#options,
      authority: destination.authority,
      scheme: destination.scheme === "https" ? "https" : "http",
      idleTimeoutMs: keepAliveMaxTimeoutMs,
      watch: this.#watch,
      open: (permit, given) => {
        const signal = this.#signalOf(given);
        return this.#admission.connection(permit, signal, () => this.#open(permit, signal, true));
      },
    });
    return {
      get count() {
        return origin.connections;
      },
      get idle() {
        return origin.idle;
      },
      isPlaced: true,
      dispatch: (permit, request, handler) => origin.dispatch(permit, request, handler),
      retire: () => origin.retire(),
      destroy: async () => origin.destroy(),
    };
  }

  #prefersHttp2(destination: Destination, request: OutgoingRequest): boolean {
    // An upgrade is a thing of HTTP/1.1.
    if (request.upgrade !== undefined) return false;
    // Without TLS there is no negotiation (RFC 9113 section 3.2).
    if (destination.scheme !== "https") return request.priorKnowledge === true;
    const { http2 } = this.#options;
    if (http2 !== "auto") return http2 === "on";
    return request.needsHttp2 || this.#protocols.isHttp2Only(destination.authority);
  }

  #signalOf(signal: AbortSignal): AbortSignal {
    return AbortSignal.any([this.#closing.signal, signal]);
  }

  async #open(permit: Permit, signal: AbortSignal, http2: boolean): Promise<Socket> {
    const { destination } = permit;
    if (destination.scheme !== "https") return this.#connect(permit, signal, http2);
    const isAuto = this.#options.http2 === "auto";
    if (http2) {
      try {
        return await this.#secured(permit, signal, "h2");
      } catch (error) {
        // The pool may have noted HTTP/2 for an origin that speaks HTTP/1.1 by now.
        this.#protocols.forget(destination.authority);
        throw error;
      }
    }
    if (!isAuto) return this.#secured(permit, signal, "http/1.1");
    return this.#protocols.http1(destination.authority, (protocol) =>
      this.#secured(permit, signal, protocol),
    );
  }

  #connect(permit: Permit, signal: AbortSignal, http2 = false): Promise<Socket> {
    const { upstream } = this.#options;
    return this.#counted(
      this.#timed(permit, "connect", () => upstream.connect(permit, { signal, http2 })),
    );
  }

  /** Idle connections hold no place, so they make room for a new one where there are too many of them. */
  async #counted(dial: Promise<Socket>): Promise<Socket> {
    if (this.#sockets >= this.#options.maxConnections) this.#closeIdle(false);
    const socket = await dial;
    this.#sockets += 1;
    onceClosed(socket, () => {
      this.#sockets -= 1;
    });
    return socket;
  }

  async #secured(
    permit: Permit,
    signal: AbortSignal,
    protocol: "http/1.1" | "h2",
  ): Promise<TLSSocket> {
    const { tls } = this;
    tls.checkCertificate(permit.destination);
    const socket = await this.#connect(permit, signal);
    return this.#timed(permit, "tls", () => tls.secure(socket, permit.destination, protocol));
  }

  /** Reports how long a step of a dial took, however it ended. */
  async #timed<T>(permit: Permit, phase: Dial["phase"], step: () => Promise<T>): Promise<T> {
    const { onDial } = this.#options;
    if (onDial === undefined) return step();
    const { direction, flowId, destination } = permit;
    const dial = { direction, flowId, phase, startedAt: performance.now(), host: destination.host };
    try {
      const made = await step();
      onDial(dial);
      return made;
    } catch (error) {
      onDial({ ...dial, error: error instanceof ProxyError ? error.code : "internal.fault" });
      throw error;
    }
  }

  /** Drops the destination that has the most idle connections. */
  #closeIdle(isForPlace: boolean): void {
    this.#drop(({ connections: { idle, isPlaced } }) => (isForPlace && !isPlaced ? 0 : idle));
  }

  /** Drops the destination with the highest rank, if one is above 0; its running requests finish. */
  #drop(rank: (entry: Entry) => number): void {
    let first: [key: string, entry: Entry] | undefined;
    let highest = 0;
    for (const [key, entry] of this.#entries) {
      const own = rank(entry);
      if (own > highest) [highest, first] = [own, [key, entry]];
    }
    if (first === undefined) return;
    this.#entries.delete(first[0]);
    first[1].connections.retire();
  }
}
