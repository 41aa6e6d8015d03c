import { createHash } from "node:crypto";
import { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { describe, expect, test } from "vitest";
import { CallerAuthentication } from "../../../../src/proxy/flow/caller-authentication.ts";

const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
const basic = (text: string): string => `Basic ${Buffer.from(text).toString("base64")}`;
const plain = new Socket();

const passwords: Readonly<Record<string, string>> = { alice: "secret", bob: "a:b" };
const certificates: Readonly<Record<string, string>> = {
  "spiffe://site/agent": "agent",
  "agent.test": "named",
};
const callers = new CallerAuthentication(
  {
    passwordDigest: (name) => {
      const password = passwords[name];
      return password === undefined ? undefined : digest(password);
    },
    byCertificateName: (name) => certificates[name],
    has: (name) => name in passwords,
  },
  "site",
);

/** A TLS connection as the caller's certificate makes it. */
function secured(subjectaltname: string | undefined, authorized = true): TLSSocket {
  const socket = new TLSSocket(new Socket());
  Object.assign(socket, { authorized, getPeerCertificate: () => ({ subjectaltname }) });
  return socket;
}

function refusalOf(socket: Socket, credentials: string | undefined): unknown {
  try {
    return callers.authenticate(socket, credentials);
  } catch (error) {
    return error;
  }
}

describe("credentials", () => {
  test.each([
    ["a name and a password", basic("alice:secret"), "alice"],
    ["a password with a colon", basic("bob:a:b"), "bob"],
    [
      "another spelling of the scheme",
      basic("alice:secret").replace("Basic ", "bAsIC   "),
      "alice",
    ],
  ])("%s name the caller", (_what, credentials, name) => {
    expect(callers.authenticate(plain, credentials)).toBe(name);
  });

  test.each([
    ["no credentials", undefined],
    ["a wrong password", basic("alice:Secret")],
    ["a name that nobody has", basic("carol:secret")],
    ["no password", basic("alice")],
    ["no name", basic(":secret")],
    ["another scheme", basic("alice:secret").replace("Basic", "Bearer")],
    ["no Base64", "Basic alice:secret"],
    ["more than any name and password need", basic(`alice:${"x".repeat(1_024)}`)],
  ])("%s: 407 with a challenge", (_what, credentials) => {
    expect(refusalOf(plain, credentials)).toMatchObject({
      code: "auth.caller-unknown",
      headers: { "Proxy-Authenticate": 'Basic realm="site", charset="UTF-8"' },
    });
  });

  test.each([basic("alice"), basic(":secret"), "Digest x"])(
    "%s: what is missing",
    (credentials) => {
      expect(String(refusalOf(plain, credentials))).toContain(
        "is not Basic with a name and a password",
      );
    },
  );

  test("that are wrong do not tell which half is", () => {
    const [name, password] = [basic("carol:secret"), basic("alice:wrong")].map((credentials) =>
      String(refusalOf(plain, credentials)),
    );
    expect(name).toBe(password);
  });
});

describe("a certificate", () => {
  test.each([
    ["a URI", "DNS:other.test, URI:spiffe://site/agent", "agent"],
    ["a DNS name", "DNS:agent.test", "named"],
  ])("names its caller by %s, whatever the credentials say", (_what, names, caller) => {
    expect(callers.authenticate(secured(names), basic("alice:wrong"))).toBe(caller);
  });

  test.each([
    ["is not verified", secured("DNS:agent.test", false)],
    ["names nobody", secured("DNS:other.test")],
    ["has no names", secured(undefined)],
    ["has a quoted name, which could imitate another", secured('email:"x, DNS:agent.test, y"')],
    ["has the name as another kind", secured("email:agent.test")],
  ])("that %s leaves the credentials to decide", (_what, socket) => {
    expect(callers.authenticate(socket, basic("alice:secret"))).toBe("alice");
    expect(refusalOf(socket, undefined)).toMatchObject({ code: "auth.caller-unknown" });
  });
});

test("a connection goes on while its caller is known, and never without a name", () => {
  expect(["alice", "carol", undefined].map((name) => callers.knows(name))).toEqual([
    true,
    false,
    false,
  ]);
});
