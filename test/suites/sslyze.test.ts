/**
 * The TLS that listeners offer, judged by sslyze, whose program `SSLYZE` names; skipped where there is none.
 * `.ci/suites/sslyze` installs it and runs this file.
 */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { owner } from "../support/owner.ts";
import { PeerFiles } from "../support/peer-files.ts";
import { ProxyProcess, settings } from "../support/proxy.ts";
import type { Settings } from "../support/program.ts";
import { SpiffeAuthority } from "../support/spiffe-authority.ts";
import { TlsOrigin } from "../support/tls-origin.ts";
import { TunnelRelay, tunnelThrough } from "../support/tunnel-relay.ts";

const program = process.env["SSLYZE"] ?? "";
const own = owner();

/** A listener, how it is reached, and which of Mozilla's configurations it has. */
interface Place {
  readonly target: string;
  readonly ca: string;
  readonly profile: "modern" | "intermediate";
  readonly args?: readonly string[];
  /** Files that `args` name. */
  readonly files?: Readonly<Record<string, string>>;
}

/** What sslyze found, and the words of its comparison with the configuration. */
interface Scan {
  readonly found: Record<string, unknown>;
  readonly text: string;
}

async function scan({ target, ca, profile, args = [], files = {} }: Place): Promise<Scan> {
  const directory = await mkdtemp(join(tmpdir(), "sslyze-"));
  try {
    await writeFile(join(directory, "ca.pem"), ca);
    for (const [name, text] of Object.entries(files)) await writeFile(join(directory, name), text);
    const text = await new Promise<string>((resolve) => {
      const all = ["--json_out", "found.json", "--certinfo_ca_file", "ca.pem", ...args];
      const options = { cwd: directory, maxBuffer: 1 << 24 };
      const asked = [...all, "--mozilla_config", profile, target];
      execFile(program, asked, options, (_error, stdout, stderr) => resolve(stdout + stderr));
    });
    const report = JSON.parse(await readFile(join(directory, "found.json"), "utf8")) as {
      readonly server_scan_results: readonly [{ readonly scan_result: Record<string, unknown> }];
    };
    return { found: report.server_scan_results[0].scan_result, text };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const start = (over: Settings): Promise<ProxyProcess> => own(ProxyProcess.start(settings(over)));

async function forwardPlace(keyType: "ecdsa-p256" | "rsa-2048"): Promise<Place> {
  const authority = await TestAuthority.create();
  const { cert, key } = await authority.server(["localhost", "127.0.0.1"], { keyType });
  const directory = await mkdtemp(join(tmpdir(), "sslyze-server-"));
  await own({ close: () => rm(directory, { recursive: true, force: true }) });
  const [certFile, keyFile] = [join(directory, "tls.crt"), join(directory, "tls.key")];
  await writeFile(certFile, cert);
  await writeFile(keyFile, key);
  const { forward } = await start({
    listener: { forward_proxy_tls: { cert_file: certFile, key_file: keyFile } },
  });
  return { target: `localhost:${forward.port}`, ca: authority.caPem, profile: "intermediate" };
}

async function bridgePlace(keyType: "ecdsa-p256" | "rsa-2048"): Promise<Place> {
  const authority = await TestAuthority.create();
  const origin = await own(TlsOrigin.start(await authority.server(["localhost"])));
  const proxy = await own(
    BridgeProxy.start({
      ports: [origin.port],
      originCa: authority.caPem,
      bridge: { key_type: keyType },
      names: ["localhost"],
    }),
  );
  // Its own CONNECT has no Host field, and is refused.
  const relay = await own(
    TunnelRelay.start(() => tunnelThrough(proxy.forward, origin.at("localhost"))),
  );
  return { target: `localhost:${relay.port}`, ca: proxy.ca, profile: "intermediate" };
}

async function mutualPlace(): Promise<Place> {
  const trust = SpiffeAuthority.create();
  const { spiffe } = await PeerFiles.write(trust.svid("/ns/team/sa/agent"), [trust]);
  const peer = trust.svid("/ns/team/sa/peer");
  const { reverse } = await start({
    listener: { roles: ["reverse"], reverse_proxy_backend: "http://127.0.0.1:9" },
    mtls: { mode: "strict" },
    spiffe,
  });
  return {
    target: `localhost:${reverse.port}`,
    ca: trust.caPem,
    profile: "modern",
    args: ["--cert", "peer.pem", "--key", "peer.key"],
    files: { "peer.pem": peer.cert, "peer.key": peer.key },
  };
}

const places: Readonly<Record<string, () => Promise<Place>>> = {
  "the forward port with an ECDSA certificate": () => forwardPlace("ecdsa-p256"),
  "the forward port with an RSA certificate": () => forwardPlace("rsa-2048"),
  "the bridge with ECDSA certificates": () => bridgePlace("ecdsa-p256"),
  "the bridge with RSA certificates": () => bridgePlace("rsa-2048"),
  "the reverse port inside mutual TLS": mutualPlace,
};

describe.skipIf(program === "")("sslyze", () => {
  const scans = new Map<string, Scan>();
  beforeAll(async () => {
    await Promise.all(
      Object.entries(places).map(async ([name, open]) => {
        scans.set(name, await scan(await open()));
      }),
    );
  }, 240_000);

  const resultOf = (name: string, command: string): unknown =>
    (scans.get(name)?.found[command] as { readonly result: unknown } | undefined)?.result;

  test.each(Object.keys(places))("on %s", (name) => {
    const { text = "" } = scans.get(name) ?? {};
    const issues = [...text.matchAll(/^ {8}\* (\w+): (.*)$/gm)].map(([, id, why]) => [id, why]);
    const isMutual = name.includes("mutual");
    if (!isMutual) expect(text).toContain("OK - Compliant.");
    // What is said of the certificates of the test, which have no names.
    expect(issues.filter(([id]) => !isMutual || id?.startsWith("certificate_") !== true)).toEqual(
      [],
    );
  });

  test.each(Object.keys(places))("on %s: nothing that is known for its faults", (name) => {
    expect(resultOf(name, "session_renegotiation")).toMatchObject({
      is_vulnerable_to_client_renegotiation_dos: false,
    });
    expect(resultOf(name, "tls_compression")).toEqual({ supports_compression: false });
    expect(resultOf(name, "heartbleed")).toEqual({ is_vulnerable_to_heartbleed: false });
    expect(resultOf(name, "openssl_ccs_injection")).toEqual({
      is_vulnerable_to_ccs_injection: false,
    });
    const { robot_result: robot } = resultOf(name, "robot") as { readonly robot_result: string };
    expect(robot).toMatch(/^NOT_VULNERABLE/);
    for (const version of ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"])
      expect(resultOf(name, `${version}_cipher_suites`), version).toMatchObject({
        accepted_cipher_suites: [],
      });
  });
});
