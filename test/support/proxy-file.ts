/** Files for the proxy that were written for a pod, checked where there is none. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CertificateAuthoritySource } from "../../src/tlsbridge/authority-source.ts";
import { TestAuthority } from "./certs.ts";
import { type Ended, runProgram } from "./program.ts";

/** A directory that stands for the volumes of a pod: CA, TLS, passwords, policy. */
export class PodFiles {
  readonly directory = mkdtempSync(join(tmpdir(), "authbridge-pod-"));

  static async make(): Promise<PodFiles> {
    const files = new PodFiles();
    await CertificateAuthoritySource.open({ directory: files.path("ca"), generate: true });
    const authority = await TestAuthority.create("clients");
    const { cert, key } = await authority.server(["gateway.test"]);
    files.write("tls/tls.crt", cert);
    files.write("tls/tls.key", key);
    files.write("tls/ca.crt", authority.caPem);
    for (const name of ["billing", "research"]) files.write(`callers/${name}`, "password");
    return files;
  }

  path(...parts: string[]): string {
    return join(this.directory, ...parts);
  }

  write(name: string, text: string): void {
    mkdirSync(join(this.directory, name, ".."), { recursive: true });
    writeFileSync(this.path(name), text);
  }

  /** `authbridge-proxy check` of a file and of what a pod has beside it. */
  async check(data: Readonly<Record<string, string>>): Promise<Ended> {
    for (const [name, text] of Object.entries(data)) this.write(`etc/${name}`, this.#here(text));
    return runProgram(["check", "--config", this.path("etc", "config.yaml")]);
  }

  close(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }

  #here(text: string): string {
    return text
      .replaceAll(/\/etc\/authbridge-(ca|tls|callers)/g, (_all, volume: string) =>
        this.path(volume),
      )
      .replaceAll("/etc/authbridge", this.path("etc"));
  }
}
