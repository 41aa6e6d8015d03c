/** Programs that call through a proxy, and a policy that tells them apart by their executables. */
import { copyFileSync, mkdtempSync, realpathSync, rmSync, symlinkSync } from "node:fs";
import { execFileSync } from "node:child_process";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";

/** Entries of the policy, by the host that each one opens. */
const hosts = ["open", "curl", "copy", "glob", "ancestor", "link"] as const;

/** One of the hosts. */
export type IdentityHost = (typeof hosts)[number];

/** One program: its command line for one request, which prints the status. */
export type Program = (proxy: string, url: string) => readonly string[];

const nodeClient = `
  const [proxy, url] = process.argv.slice(1).map((text) => new URL(text));
  require("node:http").get({ host: proxy.hostname, port: proxy.port, agent: false, path: url.href, headers: { Host: url.host } },
    (answer) => { process.stdout.write(String(answer.statusCode)); answer.resume(); });`;

/** Where curl is; undefined when it is not installed. */
export function curlPath(): string | undefined {
  try {
    return realpathSync(execFileSync("sh", ["-c", "command -v curl"], { encoding: "utf8" }).trim());
  } catch {
    return undefined;
  }
}

/** A folder with a copy of curl and a link to it, and the programs that use them. */
export class IdentityCases {
  readonly folder = realpathSync(mkdtempSync(join(tmpdir(), "identity-")));
  readonly programs: Readonly<Record<"curl" | "node" | "copy", Program>>;
  readonly #curl: string;

  constructor(curl: string) {
    this.#curl = curl;
    copyFileSync(curl, join(this.folder, "agent-tool"));
    symlinkSync(curl, join(this.folder, "fetch"));
    const asCurl =
      (path: string): Program =>
      (proxy, url) => [path, "-s", "-o", "/dev/null", "-w", "%{http_code}", "-x", proxy, url];
    this.programs = {
      curl: asCurl(curl),
      copy: asCurl(join(this.folder, "agent-tool")),
      node: (proxy, url) => [process.execPath, "-e", nodeClient, proxy, url],
    };
  }

  /** The file of a proxy that judges by executable; every host is an origin on loopback. */
  config(listen: string, originPort: number): string {
    const binaries: Readonly<Record<IdentityHost, readonly string[]>> = {
      open: [],
      curl: [this.#curl],
      copy: [join(this.folder, "agent-tool")],
      glob: ["**"],
      // Everything here is started by Node.
      ancestor: [realpathSync(process.execPath)],
      link: [join(this.folder, "fetch")],
    };
    const entries = hosts.map((host) => [
      host,
      {
        endpoints: [{ host: `${host}.test`, port: originPort }],
        ...(binaries[host].length === 0
          ? {}
          : { binaries: binaries[host].map((path) => ({ path })) }),
      },
    ]);
    return stringify({
      listener: {
        roles: ["forward"],
        forward_proxy_addr: listen,
        session_api_addr: "127.0.0.1:0",
        health_addr: "127.0.0.1:0",
      },
      stats: { address: "127.0.0.1:0" },
      egress: {
        allow_ips: ["127.0.0.0/8"],
        hosts: Object.fromEntries(hosts.map((host) => [`${host}.test`, ["127.0.0.1"]])),
      },
      pipeline: {
        outbound: {
          default: "deny",
          plugins: [
            { name: "egress-policy", config: { network_policies: Object.fromEntries(entries) } },
          ],
        },
      },
    });
  }

  close(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** What each program gets where it can be identified. */
export const identified: Readonly<
  Record<keyof IdentityCases["programs"], Readonly<Record<IdentityHost, string>>>
> = {
  curl: { open: "200", curl: "200", copy: "403", glob: "200", ancestor: "200", link: "200" },
  copy: { open: "200", curl: "403", copy: "200", glob: "200", ancestor: "200", link: "403" },
  node: { open: "200", curl: "403", copy: "403", glob: "200", ancestor: "200", link: "403" },
};

/** What every program gets where it cannot. */
export const unidentified: Readonly<Record<IdentityHost, string>> = {
  open: "200",
  curl: "403",
  copy: "403",
  glob: "403",
  ancestor: "403",
  link: "403",
};

/** Asks for every host with one program. */
export async function statuses(
  program: Program,
  proxy: string,
  originPort: number,
  run: (command: readonly string[]) => Promise<string>,
): Promise<Record<string, string>> {
  const answers: Record<string, string> = {};
  for (const host of hosts) {
    answers[host] = await run(program(proxy, `http://${host}.test:${originPort}/`));
  }
  return answers;
}
