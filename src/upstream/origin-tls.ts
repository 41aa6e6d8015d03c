/** TLS to origins for requests of agents: with the certificate that the file has for a host, where an origin asks for one. */
import type net from "node:net";
import type tls from "node:tls";
import { ProxyError } from "../errors.ts";
import type { Destination } from "../net/destination.ts";
import type { ClientCertificate } from "../pipeline/plugin.ts";
import type { OriginTrust } from "./origin-trust.ts";

/** A certificate that a host is shown, and what names it. */
interface ShownCertificate {
  /** The key of the file. */
  readonly key: string;
  /** Another certificate is another object; undefined while there is none. */
  current(): ClientCertificate | undefined;
  problem(): string;
}

/** The certificates by host. */
export interface ShownCertificates {
  find(host: string): ShownCertificate | undefined;
}

/** Secures connections to origins; no host sees the certificate of another one. */
export class OriginTls {
  readonly #trust: OriginTrust;
  readonly #certificates: ShownCertificates | undefined;

  constructor(trust: OriginTrust, certificates?: ShownCertificates) {
    this.#trust = trust;
    this.#certificates = certificates;
  }

  /** What a connection to the destination would show now. */
  certificateFor(destination: Destination): ClientCertificate | undefined {
    return this.#shown(destination)?.current();
  }

  /** Rejects, before anything is dialled, where what is to be shown is not there. */
  checkCertificate(destination: Destination): void {
    const shown = this.#shown(destination);
    if (shown === undefined || shown.current() !== undefined) return;
    const message = `${destination.authority} is to be shown the certificate of ${shown.key}, and that cannot be used: ${shown.problem()}`;
    throw new ProxyError("upstream.tls", message, { hop: "tls" });
  }

  /** As {@link OriginTrust.secure}. */
  secure(socket: net.Socket, destination: Destination, protocol: string): Promise<tls.TLSSocket> {
    const certificate = this.certificateFor(destination);
    return this.#trust.secure(socket, destination, [protocol], certificate);
  }

  /** As {@link OriginTrust.explained}. */
  explained(fault: ProxyError, destination: Destination): ProxyError {
    return this.#trust.explained(fault, destination, this.#shown(destination)?.key);
  }

  /** As {@link OriginTrust.answered}. */
  answered(destination: Destination): void {
    this.#trust.answered(destination);
  }

  #shown({ scheme, host }: Destination): ShownCertificate | undefined {
    return scheme === "https" ? this.#certificates?.find(host) : undefined;
  }
}
