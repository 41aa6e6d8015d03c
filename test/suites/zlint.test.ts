/**
 * The certificates of the bridge, read by zlint, whose program `ZLINT` names; skipped where there is none.
 * `.ci/suites/zlint` builds it and runs this file.
 */
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { beforeAll, describe, expect, test } from "vitest";
import {
  CertificateAuthority,
  generateAuthority,
  leafValidity,
} from "../../src/tlsbridge/certificate-authority.ts";
import { type KeyType, makeKeyPair, toPem } from "../../src/tlsbridge/x509.ts";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { owner } from "../support/owner.ts";
import { TlsOrigin } from "../support/tls-origin.ts";

const program = process.env["ZLINT"] ?? "";
const own = owner();
const run = promisify(execFile);
const dayMs = 86_400_000;

/** What zlint says of every leaf, and why it stays. */
const ofLeaves: Readonly<Record<string, string>> = {
  e_sub_cert_certificate_policies_missing: "the policies of the web's authorities do not hold here",
  e_sub_cert_cert_policy_empty: "as above",
  e_sub_cert_aia_missing: "there is no server of the authority to ask: trust is by its file alone",
  w_sub_cert_aia_does_not_contain_issuing_ca_url: "as above",
  w_ext_subject_key_identifier_not_recommended_subscriber: "RFC 5280 section 4.2.1.2 recommends it",
};
const common: Readonly<Record<string, string>> = {
  w_subject_common_name_included: "clients that know no alternative names read it",
};
const reserved: Readonly<Record<string, string>> = {
  e_ext_san_contains_reserved_ip: "agents also speak to addresses of their own networks",
  e_subject_contains_reserved_ip: "as above",
};
const unofficial: Readonly<Record<string, string>> = {
  e_dnsname_not_valid_tld: "agents also speak to names that the public DNS does not have",
};
const underscore: Readonly<Record<string, string>> = {
  e_underscore_not_permissible_in_dnsname:
    "names of services inside clusters have them, and clients accept them",
  w_dnsname_underscore_in_trd: "as above",
  w_rfc_dnsname_underscore_in_trd: "as above",
};
const ofLongLived: Readonly<Record<string, string>> = {
  e_missing_crl_distrib_point: "nobody is asked whether a leaf was revoked: the lives are short",
};
const ofAuthorities: Readonly<Record<string, string>> = {
  e_ca_country_name_missing: "the authority of one proxy is no organisation",
  e_ca_organization_name_missing: "as above",
};
const ofRoot: Readonly<Record<string, string>> = {
  w_root_ca_basic_constraints_path_len_constraint_field_present:
    "it may sign leaves only, which clients that look at it hold it to",
};

/** Lints that a certificate does not pass, without the ones that only inform. */
async function findings(pem: string): Promise<string[]> {
  const directory = await mkdtemp(join(tmpdir(), "zlint-"));
  try {
    const file = join(directory, "certificate.pem");
    await writeFile(file, pem);
    const { stdout } = await run(program, [file]);
    const results = Object.entries(JSON.parse(stdout) as Record<string, { result: string }>);
    expect(results.length).toBeGreaterThan(300);
    return results
      .filter(([, { result }]) => !["pass", "NA", "NE", "info"].includes(result))
      .map(([name]) => name)
      .toSorted();
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const namesOf = (...groups: Readonly<Record<string, string>>[]): string[] =>
  groups.flatMap((group) => Object.keys(group)).toSorted();

const label = "a".repeat(60);
const leaves = [
  ["a name", "api.example.com", [common]],
  ["a name of one label", "localhost", [common, unofficial]],
  ["a name that the public DNS does not have", "agent.team.svc", [common, unofficial]],
  ["a name beyond ASCII", "xn--bcher-kva.example.com", [common]],
  ["a name with an underscore", "a_b.example.com", [common, underscore]],
  ["a name of 64 characters", `${label.slice(0, 52)}.example.com`, [common]],
  ["a name of 65 characters", `${label.slice(0, 53)}.example.com`, []],
  ["a name of 253 characters", `${`${label}.`.repeat(3)}${"b".repeat(58)}.example.com`, []],
  ["an address of IPv4", "192.0.2.1", [common, reserved]],
  ["a public address of IPv4", "8.8.8.8", [common]],
  ["an address of IPv6", "2001:db8::1", [common, reserved]],
  ["a public address of IPv6", "2606:4700::1111", [common]],
] as const;

describe.skipIf(program === "")("zlint", () => {
  let authority: CertificateAuthority;
  beforeAll(async () => {
    authority = await CertificateAuthority.ephemeral(Date.now());
  });

  async function leaf(name: string, key: KeyType, lifetimeMs: number): Promise<string> {
    const { publicKey } = await makeKeyPair(key);
    const validity = leafValidity(authority, Date.now(), lifetimeMs);
    return authority.issuer.leafTemplate(publicKey).issue([name], validity);
  }

  describe.each(["ecdsa-p256", "rsa-2048"] as const)("on a leaf of %s", (key) => {
    test.each(leaves)("for %s", async (_what, name, expected) => {
      expect(await findings(await leaf(name, key, dayMs))).toEqual(namesOf(ofLeaves, ...expected));
    });
  });

  test("on a leaf that lives longer", async () => {
    expect(await findings(await leaf("api.example.com", "ecdsa-p256", 90 * dayMs))).toEqual(
      namesOf(ofLeaves, common, ofLongLived),
    );
  });

  test("on the authority that the bridge generates", async () => {
    const { certificatePem } = await generateAuthority(Date.now());
    expect(await findings(certificatePem)).toEqual(namesOf(ofAuthorities, ofRoot));
  });

  test("on what a running proxy shows and writes", async () => {
    const origins = await TestAuthority.create();
    const names = ["api.allowed.test", "127.0.0.1"];
    const origin = await own(TlsOrigin.start(await origins.server(names)));
    const proxy = await own(BridgeProxy.start({ ports: [origin.port], originCa: origins.caPem }));
    for (const [host, expected] of [
      ["api.allowed.test", [common, unofficial]],
      ["127.0.0.1", [common, reserved]],
    ] as const) {
      const socket = await proxy.tls(origin.at(host));
      const { raw } = socket.getPeerCertificate();
      socket.destroy();
      expect(await findings(toPem("CERTIFICATE", raw))).toEqual(namesOf(ofLeaves, ...expected));
    }
    expect(await findings(proxy.ca)).toEqual(namesOf(ofAuthorities, ofRoot));
  });
});
