/** `trust_bundle_file`: what agents have to trust, in one file that is always whole. */
import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { messageOf } from "../../errors.ts";
import type { Logger } from "../../telemetry/log.ts";
import { writeAtomically } from "../../files/atomic-file.ts";
import { distinct, pemBlocks } from "../trust/bundle.ts";
import type { ChainPlan } from "./plan.ts";

/** Writes the file of the generation that serves, and again when the bridge gets another authority. */
export class TrustBundleFile {
  readonly #log: Logger;
  #plan: ChainPlan | undefined;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Rejects with an Error when the file cannot be written; the plan before stays in force then. */
  async write(plan: ChainPlan | undefined, caPem: string | undefined): Promise<void> {
    if (plan?.trustBundleFile !== undefined) await writeBundle(plan.trustBundleFile, plan, caPem);
    this.#plan = plan;
  }

  /** The bridge signs with another authority. */
  rotated(caPem: string): void {
    const plan = this.#plan;
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
