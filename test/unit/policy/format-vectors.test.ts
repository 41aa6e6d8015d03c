/** The shared vectors that are about targets, addresses and first bytes: each against the part that reads them. */
import { describe, expect, test } from "vitest";
import { canonicalTarget } from "../../../src/http/canonical-target.ts";
import { AddressSet, classifyAddress, parseAddress } from "../../../src/net/address.ts";
import { parseAbsoluteTarget, parseAuthority } from "../../../src/net/destination.ts";
import { parseTableEnd } from "../../../src/net/kernel/socket-table.ts";
import { Cancellation } from "../../../src/pipeline/cancellation.ts";
import { AddressGuard } from "../../../src/upstream/address-guard.ts";
import { OwnListeners } from "../../../src/upstream/own-listeners.ts";
import vectors from "../../golden/policy/vectors.json" with { type: "json" };

interface Case {
  readonly id: string;
  readonly ask: string;
  readonly facts: Readonly<Record<string, unknown>>;
  readonly expect: Readonly<Record<string, unknown>>;
}

const cases = vectors.cases as unknown as readonly Case[];
const asking = (ask: string): readonly Case[] => cases.filter((one) => one.ask === ask);

/** Vectors that are not in the file, and where they are instead. */
const elsewhere: Readonly<Record<string, string>> = {
  "identity-pr10-030": "patterns never match <unresolved> here, '**' included",
  "identity-relaxed-033": "no switch ignores the binaries of a file",
  "identity-relaxed-035": "no switch ignores the binaries of a file",
  "ssrf-ip-257": "6to4 of loopback is loopback here: test/security/bypass-parity.test.ts",
  "ssrf-ip-259": "multicast is refused here: test/security/bypass-parity.test.ts",
  "ssrf-ip-261": "0.0.0.0/8 is refused here: test/security/bypass-parity.test.ts",
  "ssrf-destination-292":
    "there is no supervisor that names a gateway: egress.allow_ips names addresses",
  "ssrf-destination-294":
    "there is no supervisor that names a gateway: egress.allow_ips names addresses",
  "http-ingress-320": "test/journey/malformed.test.ts",
  "http-ingress-322": "test/journey/malformed.test.ts",
  "http-ingress-324": "an https URL to the forward port is a request with TLS to its origin here",
  "http-ingress-326": "limits.max_header_bytes: test/journey/malformed.test.ts",
  "authority-353": "test/security/four-names.test.ts",
  "tunnel-protocol-355":
    "test/security/hostile-tls.test.ts: what is not TLS is refused where it would be judged",
  "smuggling-347": "the parser reads two spaces as one, and the request goes out with one",
  "tunnel-protocol-357": "a ClientHello is read whole: test/unit/net/sniff.test.ts",
  "tunnel-protocol-359": "a ClientHello is read whole: test/unit/net/sniff.test.ts",
  "tunnel-protocol-361": "a ClientHello is read whole: test/unit/net/sniff.test.ts",
  "deny-body-363":
    "refusals have the form of the AuthBridge contract: test/unit/proxy/flow/reply.test.ts",
  "deny-body-365":
    "refusals have the form of the AuthBridge contract: test/unit/proxy/flow/reply.test.ts",
  "procfs-369": "test/unit/net/kernel/peer-process.test.ts: both addresses match",
  "procfs-371": "test/unit/net/kernel/peer-process.test.ts: ' (deleted)'",
  "procfs-373": "test/unit/net/kernel/peer-process.test.ts: different processes share the socket",
  "tofu-375": "test/unit/net/kernel/peer-process.test.ts: another executable than at first",
  "tofu-377": "test/unit/net/kernel/peer-process.test.ts: an unchanged file is read once",
};

test("every vector is a case, or says where it is", () => {
  expect(new Set(cases.map(({ id }) => id)).size + Object.keys(elsewhere).length).toBe(215);
});

describe("targets", () => {
  test.each(asking("target"))("$id", ({ facts, expect: expected }) => {
    const { target, repeat, length, allowEncodedSlash } = facts;
    const text =
      typeof target === "string" ? target : `/${String(repeat).repeat(Number(length) - 1)}`;
    expect(canonicalTarget(text, { allowEncodedSlash: allowEncodedSlash === true })).toMatchObject(
      expected,
    );
  });

  test.each(asking("authority"))("$id: $facts.text", ({ facts, expect: expected }) => {
    const parse = (): unknown => {
      const { host, port } = parseAuthority(String(facts["text"]), "tcp");
      return { host, port };
    };
    if (expected["isRefused"] === true) expect(parse).toThrow();
    else expect(parse()).toEqual(expected);
  });

  test.each(asking("url"))("$id: $facts.text", ({ facts, expect: expected }) => {
    const parse = (): unknown => {
      const { destination, path } = parseAbsoluteTarget(String(facts["text"]));
      const { scheme, host, port } = destination;
      return { scheme, host, port, path };
    };
    if (expected["isRefused"] === true) expect(parse).toThrow();
    else expect(parse()).toEqual(expected);
  });
});

describe("addresses", () => {
  /** The format knows three classes; ours are finer, and reserved ones are closed as the file alone can open them. */
  const classOf = (text: string): string => {
    const address = parseAddress(text);
    const kind = address === undefined ? "none" : classifyAddress(address);
    if (kind === "public") return "public";
    return ["private", "reserved", "broadcast"].includes(kind) ? "internal" : "always-blocked";
  };

  test.each(asking("class"))("$id: $facts.address", ({ facts, expect: expected }) => {
    expect(classOf(String(facts["address"]))).toBe(expected["class"]);
  });

  test.each(asking("dial"))("$id: $facts.host", async ({ facts, expect: expected }) => {
    const { host, port, resolved, allowedIps } = facts;
    const guard = new AddressGuard({
      resolver: { resolve: () => Promise.resolve(resolved as readonly string[]) },
      ownListeners: new OwnListeners(),
      allowIps: new AddressSet(),
      privateNetworks: "deny",
    });
    const limits = allowedIps === undefined ? [] : [AddressSet.parse(allowedIps as string[])];
    const destination = parseAuthority(`${String(host)}:${String(port)}`, "tcp");
    const isDialled = await guard.vet(destination, new Cancellation(), limits).then(
      () => true,
      () => false,
    );
    expect(isDialled).toBe(expected["isDialled"]);
  });

  test.each(asking("proc-address"))("$id: $facts.field", ({ facts, expect: expected }) => {
    const end = parseTableEnd(String(facts["field"]));
    expect(`${end?.address}:${end?.port}`).toBe(expected["address"]);
  });
});
