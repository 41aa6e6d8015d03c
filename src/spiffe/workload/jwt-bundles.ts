/** The key sets of trust domains, as the agent streams them. */
import { ProxyError } from "../../errors.ts";
import type { JwtBundleSource } from "../jwt-bundle-source.ts";
import { trustDomainOf } from "../spiffe-id.ts";
import { shown } from "../x509-svid.ts";
import type { AgentOptions } from "./agent.ts";
import { AgentStream } from "./agent-stream.ts";
import { readJwtBundles } from "./messages.ts";

/** A key set says nothing of its end. One that the agent has not spoken of for so long is asked for again. */
const patienceMs = 10 * 60_000;
/** As for the key sets of issuers: keys that nobody has vouched for since are no longer believed. */
const maxAgeMs = 24 * 3_600_000;

/** Opens the stream with the first question, and holds the last good response. */
export class JwtBundles implements JwtBundleSource {
  readonly #options: AgentOptions;
  readonly #stream: AgentStream;
  #keySets: ReadonlyMap<string, Buffer> = new Map();
  #receivedAt = Number.NEGATIVE_INFINITY;

  constructor(options: AgentOptions) {
    this.#options = options;
    this.#stream = new AgentStream({
      ...options,
      method: "FetchJWTBundles",
      item: "jwt_bundle",
      take: (message) => {
        this.#take(readJwtBundles(message));
        return patienceMs;
      },
    });
  }

  async keySet(trustDomain: string): Promise<Buffer> {
    this.#stream.begin();
    await this.#stream.settled;
    const age = this.#options.clock.now() - this.#receivedAt;
    const known = age < maxAgeMs ? this.#keySets.get(trustDomain) : undefined;
    if (known !== undefined) return known;
    const { problem = `the agent has sent no keys of the trust domain ${shown(trustDomain)}` } =
      this.#stream;
    throw new ProxyError("upstream.unreachable", problem);
  }

  close(): Promise<void> {
    return this.#stream.close();
  }

  #take(bundles: ReadonlyMap<string, Buffer>): void {
    const keySets = new Map<string, Buffer>();
    for (const [name, bytes] of bundles) {
      const domain = trustDomainOf(name);
      if (domain === undefined)
        throw new Error(`the agent sent keys of "${shown(name)}", which is no trust domain`);
      const before = this.#keySets.get(domain);
      if (before?.equals(bytes) === true) keySets.set(domain, before);
      else {
        keySets.set(domain, Buffer.from(bytes));
        this.#options.observer.rotated("jwt_bundle", { trustDomain: domain });
      }
    }
    this.#keySets = keySets;
    this.#receivedAt = this.#options.clock.now();
    this.#stream.changed();
  }
}
