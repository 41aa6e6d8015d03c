/** The X.509-SVID and the bundles of this workload, as the agent streams them. */
import { HeldX509 } from "../held-x509.ts";
import type { X509Source, X509Svid } from "../x509-source.ts";
import { leadsTo, readBundle, readSvid, shown } from "../x509-svid.ts";
import { trustDomainOf } from "../spiffe-id.ts";
import type { AgentOptions } from "./agent.ts";
import { AgentStream } from "./agent-stream.ts";
import { readX509Response, type X509Response } from "./messages.ts";

/** Agents renew an SVID at half of its life. One that has not by then is asked again. */
const patience = 0.75;

/** Opens the stream with the first question, and holds the last good response until the SVID expires. */
export class X509Stream implements X509Source {
  readonly #options: AgentOptions;
  readonly #stream: AgentStream;
  readonly #held = new HeldX509();
  #problemWithBundles: string | undefined;

  constructor(options: AgentOptions) {
    this.#options = options;
    this.#stream = new AgentStream({
      ...options,
      method: "FetchX509SVID",
      item: "x509_svid",
      take: (message) => {
        const { expiresAt } = this.#take(readX509Response(message));
        return (expiresAt - options.clock.now()) * patience;
      },
    });
  }

  current(): X509Svid | undefined {
    this.begin();
    const { svid } = this.#held;
    return svid !== undefined && this.#options.clock.now() < svid.expiresAt ? svid : undefined;
  }

  bundle(trustDomain: string): readonly string[] | undefined {
    this.begin();
    return this.#held.bundles.get(trustDomain);
  }

  trustDomains(): readonly string[] {
    this.begin();
    return [...this.#held.bundles.keys()];
  }

  notReady(): string | undefined {
    if (this.current() !== undefined) return undefined;
    const reason = this.#stream.problem ?? "the agent has not sent an X.509-SVID yet";
    const { svid } = this.#held;
    if (svid === undefined) return reason;
    return `the X.509-SVID has expired at ${new Date(svid.expiresAt).toISOString()}; ${reason}`;
  }

  /** Of the SVID that was received last, in milliseconds since the epoch. Nothing is dialled. */
  get expiresAt(): number | undefined {
    return this.#held.svid?.expiresAt;
  }

  onChange(listener: () => void): () => void {
    this.begin();
    return this.#stream.onChange(listener);
  }

  /** Opens the stream, if it is not open. */
  begin(): void {
    this.#stream.begin();
  }

  close(): Promise<void> {
    return this.#stream.close();
  }

  /** Uses a response whole, or throws an Error. One that cannot be read leaves everything as it was. */
  #take({ svids, federatedBundles }: X509Response): X509Svid {
    const [first] = svids;
    if (first === undefined) throw new Error("the agent sent no X.509-SVID");
    const svid = readSvid(first, this.#options.clock.now());
    if (typeof svid === "string")
      throw new Error(`the X.509-SVID ${shown(first.spiffeId ?? "")} is refused: ${svid}`);
    const own = readBundle(first.bundle);
    if (typeof own === "string")
      throw new Error(`the bundle of ${svid.trustDomain} is refused: ${own}`);
    const bundles = new Map([[svid.trustDomain, own]]);
    for (const other of svids.slice(1)) this.#add(bundles, other.spiffeId ?? "", other.bundle);
    for (const [name, bytes] of federatedBundles) this.#add(bundles, name, bytes);
    if (leadsTo(svid, own)) {
      this.#replace(svid, bundles);
      return svid;
    }
    // An authority that was taken back must not stay trusted; nobody would take what it has signed.
    this.#replace(undefined, bundles);
    throw new Error(
      `the X.509-SVID ${svid.spiffeId} is refused: no authority of the bundle of its trust domain has signed it`,
    );
  }

  /** A bundle that is broken leaves its trust domain untrusted, and the others as they are. */
  #add(bundles: Map<string, readonly string[]>, name: string, bytes: Buffer): void {
    const domain = trustDomainOf(/^spiffe:\/\/[^/]*/.exec(name)?.[0] ?? name);
    const read = domain === undefined ? "its name is no trust domain" : readBundle(bytes);
    if (domain === undefined || typeof read === "string") {
      const problem = `the bundle of ${shown(name)} is refused: ${String(read)}`;
      this.#options.observer.failed("x509_bundle", problem, problem !== this.#problemWithBundles);
      this.#problemWithBundles = problem;
      return;
    }
    if (!bundles.has(domain)) bundles.set(domain, read);
  }

  #replace(svid: X509Svid | undefined, bundles: Map<string, readonly string[]>): void {
    const { observer } = this.#options;
    this.#held.replace(svid, bundles, ({ isOtherSvid, domains }) => {
      if (isOtherSvid && svid !== undefined) {
        const { spiffeId, expiresAt } = svid;
        observer.rotated("x509_svid", { spiffeId, expires: new Date(expiresAt).toISOString() });
      }
      for (const trustDomain of domains) {
        const authorities = bundles.get(trustDomain)?.length ?? 0;
        observer.rotated("x509_bundle", { trustDomain, authorities });
      }
      this.#stream.changed();
    });
  }
}
