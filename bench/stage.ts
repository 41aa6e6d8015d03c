/** What stands around the measured proxies: a work directory, the origin, the IdP, and free ports. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Child } from "./child.ts";
import { portOf } from "./ready.ts";

const HERE = import.meta.dirname;
const ORIGIN_CA = "origin-ca.crt";

/** Ports that were free a moment ago, all different. */
export async function freePorts(count: number): Promise<readonly number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer();
      await new Promise<void>((resolve) => {
        server.listen(0, "127.0.0.1", resolve);
      });
      return server;
    }),
  );
  const ports = servers.map(portOf);
  await Promise.all(
    servers.map(async (server) => {
      await new Promise((resolve) => server.close(resolve));
    }),
  );
  return ports;
}

export class Stage {
  readonly directory: string;
  readonly originHttp: number;
  readonly originRaw: number;
  readonly originTls: number;
  /** The file with the authority of its certificate. */
  readonly originCa: string;
  readonly idp: number;
  readonly token: string;
  readonly #children: readonly Child[];
  #serial = 0;

  private constructor(
    directory: string,
    ports: { http: number; raw: number; tls: number; idp: number },
    token: string,
    children: readonly Child[],
  ) {
    this.directory = directory;
    this.originHttp = ports.http;
    this.originRaw = ports.raw;
    this.originTls = ports.tls;
    this.originCa = join(directory, ORIGIN_CA);
    this.idp = ports.idp;
    this.token = token;
    this.#children = children;
  }

  static async open(): Promise<Stage> {
    const directory = mkdtempSync(join(tmpdir(), "authbridge-bench-"));
    const start = (name: string): Child =>
      new Child("bench", join(directory, `${name}.log`), process.execPath, [
        join(HERE, `${name}.ts`),
        join(directory, ORIGIN_CA),
      ]);
    const origin = start("origin");
    const idp = start("idp");
    const { http = 0, raw = 0, tls = 0 } = await origin.ports();
    const { http: idpPort = 0 } = await idp.ports();
    const minted = await fetch(`http://127.0.0.1:${idpPort}/mint`);
    const { token } = (await minted.json()) as { token: string };
    return new Stage(directory, { http, raw, tls, idp: idpPort }, token, [origin, idp]);
  }

  /** A fresh place for one peer's files. */
  place(name: string): string {
    this.#serial += 1;
    const place = join(this.directory, `${this.#serial}-${name}`);
    mkdirSync(place, { mode: 0o777 });
    return place;
  }

  /** Copies a file of bench/config into `place` with every `${NAME}` replaced. */
  configure(
    file: string,
    place: string,
    values: Readonly<Record<string, string | number>>,
  ): string {
    const text = readFileSync(join(HERE, "config", file), "utf8");
    const filled = text.replace(/\$\{(\w+)\}/g, (_all, name: string) => {
      const value = values[name];
      if (value === undefined) {
        throw new Error(`${file}: no value for ${name}`);
      }
      return String(value);
    });
    const path = join(place, file);
    writeFileSync(path, filled);
    return path;
  }

  /** How often the IdP was asked so far. */
  async idpCalls(): Promise<{ jwks: number; token: number }> {
    const answer = await fetch(`http://127.0.0.1:${this.idp}/calls`);
    return (await answer.json()) as { jwks: number; token: number };
  }

  async close(): Promise<void> {
    await Promise.all(this.#children.map(async (child) => await child.stop()));
    rmSync(this.directory, { recursive: true, force: true });
  }
}
