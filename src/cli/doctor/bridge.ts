/** The bridge at work: one request through a proxy of the doctor's own to an origin of the doctor's own. */
import https from "node:https";
import type { AddressInfo } from "node:net";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Config } from "../../config/presets.ts";
import { CertificateAuthority } from "../../tlsbridge/certificate-authority.ts";
import { LeafMinter } from "../../tlsbridge/leaf-minter.ts";
import { connectThrough, getOver, verifiedTls } from "./connect.ts";
import { type Finding, fail, pass } from "./report.ts";
import { OwnInstance } from "../own-instance.ts";
import { writeProbeFile } from "../own-file.ts";

/** RFC 6761 section 6.4: no name below it exists anywhere. */
const originName = "origin.invalid";
const greeting = "opened and forwarded";

/** `config` has its listeners on free ports; `caPem` is what clients trust. */
export async function probeBridge(
  directory: string,
  config: Config,
  caPem: string,
  signal: AbortSignal,
): Promise<Finding> {
  const origin = await startOrigin();
  let instance: OwnInstance | undefined;
  try {
    const roots = join(directory, "origin-ca.crt");
    await writeFile(roots, origin.caPem);
    const probe = await writeProbeFile(directory, "bridge", bridgeOnly(config, origin.port, roots));
    instance = await OwnInstance.start(probe);
    const { forward } = instance.addresses;
    if (forward === undefined) throw new TypeError("the probe opens a forward proxy");
    return await request(forward, origin.port, caPem, signal);
  } finally {
    origin.close();
    await instance?.close();
  }
}

async function request(
  proxy: { readonly host: string; readonly port: number },
  port: number,
  caPem: string,
  signal: AbortSignal,
): Promise<Finding> {
  const { status, socket } = await connectThrough({ proxy, host: originName, port, signal });
  const broken = (what: string): Finding =>
    fail(`a request through the bridge: ${what}`, "see tls_bridge in the file and docs/trust.md");
  try {
    if (status !== 200) return broken(`CONNECT was answered ${status}`);
    const secured = await verifiedTls(socket, originName, caPem, signal);
    if (typeof secured === "string")
      return broken(`the certificate does not verify against ca.crt: ${secured}`);
    const response = await getOver(secured, `${originName}:${port}`, signal);
    if (response.status !== 200 || response.body !== greeting)
      return broken(`the answer is ${response.status}`);
    const protocol = secured.getProtocol() ?? "TLS";
    return pass(
      `a request went through the bridge to an origin and back (${protocol}, verified against ca.crt)`,
    );
  } finally {
    socket.destroy();
  }
}

/** The bridge of the file between a client and the origin, and nothing that would judge them. */
function bridgeOnly(whole: Config, port: number, originRoots: string): Config {
  const { audit: _audit, ...config } = whole;
  const { state } = config;
  return {
    ...config,
    // The instance that tries the whole file runs meanwhile, and has the files that it was given.
    state: state.store === "file" ? { ...state, store: "memory", path: undefined } : state,
    listener: { ...config.listener, roles: ["forward"], skip_hosts: [] },
    pipeline: {
      inbound: { plugins: [], default: "deny" },
      outbound: { plugins: [], default: "allow" },
    },
    egress: { ...config.egress, allow_ips: ["127.0.0.1"], hosts: { [originName]: ["127.0.0.1"] } },
    session: { ...config.session, enabled: false },
    tls_bridge: {
      ...config.tls_bridge,
      ports: [port],
      passthrough_hosts: [],
      upstream_ca_bundle: originRoots,
    },
    plugin_modules: [],
  };
}

interface Origin {
  readonly port: number;
  readonly caPem: string;
  close(): void;
}

async function startOrigin(): Promise<Origin> {
  const authority = await CertificateAuthority.ephemeral(Date.now());
  const minter = await LeafMinter.create({ current: authority });
  const context = await minter.contextFor(originName);
  const server = https.createServer(
    { SNICallback: (_name, done) => done(null, context) },
    (_request, response) => response.end(greeting),
  );
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    caPem: authority.caPem,
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}
