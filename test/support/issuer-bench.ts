/** What a plugin needs that speaks to an issuer: a stub of one, dependencies, and a folder for its files. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { StubIdp } from "./idp.ts";
import { PluginBench } from "./plugin-bench.ts";

/** For one test. */
export class IssuerBench {
  readonly idp: StubIdp;
  readonly bench = new PluginBench();
  readonly folder = mkdtempSync(join(tmpdir(), "issuer-"));

  private constructor(idp: StubIdp) {
    this.idp = idp;
  }

  static async start(): Promise<IssuerBench> {
    return new IssuerBench(await StubIdp.start());
  }

  async close(): Promise<void> {
    rmSync(this.folder, { recursive: true });
    await this.idp.close();
  }
}
