/** `trust_bundle_file`: what agents have to trust, in one file that is always whole. */
import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { messageOf } from "../../errors.ts";
import type { Logger } from "../../telemetry/log.ts";
import { writeAtomically } from "../../files/atomic-file.ts";
import { distinct, pemBlocks } from "../trust/bundle.ts";
import type { ChainPlan } from "./plan.ts";

/** What is in the file. */
interface Content {
  readonly plan: ChainPlan | undefined;
  readonly caPem: string | undefined;
}

/** Writes the file of the generation that serves, and again when the bridge gets another authority. */
export class TrustBundleFile {
  readonly #log: Logger;
  #written: Content | undefined;
  /** What serves: a candidate that is dropped leaves nothing of itself in the file. */
  #served: Content | undefined;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Rejects with an Error when the file cannot be written; the plan before stays in force then. */
  async write(plan: ChainPlan | undefined, caPem: string | undefined): Promise<void> {
    if (plan?.trustBundleFile !== undefined) await writeBundle(plan.trustBundleFile, plan, caPem);
    this.#written = { plan, caPem };
  }

  /** What was written last serves. */
  accepted(): void {
    this.#served = this.#written;
  }

  /** What was written last is not going to serve. Rejects as {@link write} does. */
  async dropped(): Promise<void> {
    if (this.#served !== undefined) await this.write(this.#served.plan, this.#served.caPem);
  }

  /** The bridge signs with another authority. */
  rotated(caPem: string): void {
    this.#served &&= { ...this.#served, caPem };
    this.#written &&= { ...this.#written, caPem };
    const plan = this.#written?.plan;
    const file = plan?.trustBundleFile;
    if (plan === undefined || file === undefined) return;
    writeBundle(file, plan, caPem).catch((error: unknown) =>
      this.#log.error({ file, error: messageOf(error) }, "the trust bundle could not be written"),
    );
  }
}

async function writeBundle(
  file: string,
  { roots, trustedCa }: ChainPlan,
  caPem: string | undefined,
): Promise<void> {
  const certificates = [...pemBlocks(caPem ?? ""), ...trustedCa, ...roots.flatMap(pemBlocks)];
  await mkdir(dirname(file), { recursive: true });
  await writeAtomically(file, distinct(certificates).join(""), 0o644);
}
