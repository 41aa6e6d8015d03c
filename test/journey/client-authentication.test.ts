/** How the proxy proves itself to a token endpoint that checks: every method, with files that change under it. */
import { generateKeyPairSync, type KeyObject, X509Certificate } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { beforeAll, describe, expect, test } from "vitest";
import { leafCertificate, selfSignedCertificate } from "../support/client-certificate.ts";
import { TestAuthority } from "../support/certs.ts";
import { eventually } from "../support/eventually.ts";
import { get } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { runWith, type Settings } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { type ProvenCall, StrictIdp } from "../support/strict-idp.ts";

const own = owner();
const spiffeId = "spiffe://example.org/agent";
const secret = "a:b c%+/&=~!";

const keys = {
  RS256: generateKeyPairSync("rsa", { modulusLength: 2048 }),
  PS256: generateKeyPairSync("rsa", { modulusLength: 2048 }),
  ES256: generateKeyPairSync("ec", { namedCurve: "P-256" }),
  ES384: generateKeyPairSync("ec", { namedCurve: "P-384" }),
  EdDSA: generateKeyPairSync("ed25519"),
} as const;
type Algorithm = keyof typeof keys;
const algorithms = Object.keys(keys) as Algorithm[];
const next = generateKeyPairSync("ec", { namedCurve: "P-256" });

const ofAuthority = leafCertificate("agent", [{ type: 6, value: spiffeId }]);
const selfSigned = selfSignedCertificate("lonely");
const stranger = leafCertificate("stranger", [{ type: 6, value: spiffeId }]);

const pem = (key: KeyObject): string => key.export({ format: "pem", type: "pkcs8" }).toString();
const jwk = (key: KeyObject, more: object): Record<string, unknown> => ({
  ...key.export({ format: "jwk" }),
  use: "sig",
  ...more,
});

let target: HttpOrigin;
let users: StubIdp;
let idp: StrictIdp;
let proxy: ProxyProcess;

/** One instance of token-exchange for each client, which has a host of its own. */
function clientOf(name: string, identity: Settings): Settings {
  return {
    name: "token-exchange",
    id: name,
    config: {
      token_url: idp.tokenUrl,
      no_token_policy: "deny",
      identity: { client_id: name, ...identity },
      routes: {
        file: "none.yaml",
        rules: [
          {
            host: `${name}.test`,
            target_audience: name,
            resource: `https://${name}.test/api`,
            issued_audiences: "any",
          },
        ],
      },
    },
  };
}

beforeAll(async () => {
  const authority = await TestAuthority.create();
  target = await own(HttpOrigin.launch());
  users = await own(StubIdp.start());
  idp = await own(
    StrictIdp.start({
      server: await authority.server(),
      clientCa: ofAuthority.ca,
      clients: [
        {
          client_id: "post",
          client_secret: secret,
          token_endpoint_auth_method: "client_secret_post",
        },
        {
          client_id: "basic",
          client_secret: secret,
          token_endpoint_auth_method: "client_secret_basic",
        },
        ...algorithms.map((alg) => ({
          client_id: `key-${alg.toLowerCase()}`,
          token_endpoint_auth_method: "private_key_jwt" as const,
          token_endpoint_auth_signing_alg: alg,
          jwks: { keys: [jwk(keys[alg].publicKey, { alg, kid: `${alg}-1` })] },
        })),
        {
          client_id: "rotating",
          token_endpoint_auth_method: "private_key_jwt",
          jwks: {
            keys: [
              jwk(keys.ES256.publicKey, { kid: "first" }),
              jwk(next.publicKey, { kid: "second" }),
            ],
          },
        },
        {
          client_id: "certified",
          token_endpoint_auth_method: "tls_client_auth",
          tls_client_auth_san_uri: spiffeId,
        },
        {
          client_id: "lonely",
          token_endpoint_auth_method: "self_signed_tls_client_auth",
          jwks: {
            keys: [
              jwk(new X509Certificate(selfSigned.cert).publicKey, {
                x5c: [new X509Certificate(selfSigned.cert).raw.toString("base64")],
              }),
            ],
          },
        },
      ],
    }),
  );
  const plugins = [
    clientOf("post", { type: "client-secret", client_secret: secret }),
    clientOf("basic", {
      type: "client-secret",
      client_secret: secret,
      client_auth_method: "client_secret_basic",
    }),
    ...algorithms.map((alg) =>
      clientOf(`key-${alg.toLowerCase()}`, {
        type: "private-key-jwt",
        signing_key_file: `${alg}.pem`,
        signing_key_id: `${alg}-1`,
        signing_algorithm: alg,
        assertion_lifetime: "30s",
        jwt_audience: idp.issuer,
      }),
    ),
    clientOf("rotating", { type: "private-key-jwt", signing_key_file: "rotating.jwk" }),
    clientOf("certified", {
      type: "tls-client-auth",
      client_certificate_file: "certified.crt",
      client_certificate_key_file: "certified.key",
    }),
    clientOf("lonely", {
      type: "tls-client-auth",
      client_certificate_file: "lonely.crt",
      client_certificate_key_file: "lonely.key",
    }),
  ];
  const names = plugins.map(({ id }) => `${String(id)}.test`);
  proxy = await own(
    ProxyProcess.start(
      merge(
        settings({
          egress: { hosts: Object.fromEntries(names.map((name) => [name, ["127.0.0.1"]])) },
          tls_bridge: { upstream_ca_bundle: "idp-ca.pem" },
        }),
        outbound(...plugins),
      ),
      {
        files: {
          "idp-ca.pem": authority.caPem,
          "rotating.jwk": JSON.stringify(keys.ES256.privateKey.export({ format: "jwk" })).replace(
            "{",
            '{"kid":"first",',
          ),
          ...Object.fromEntries(algorithms.map((alg) => [`${alg}.pem`, pem(keys[alg].privateKey)])),
          "certified.crt": ofAuthority.cert,
          "certified.key": ofAuthority.key,
          "lonely.crt": selfSigned.cert,
          "lonely.key": selfSigned.key,
        },
      },
    ),
  );
});

let counter = 0;

interface Exchanged {
  readonly status: number;
  readonly authorization: string | undefined;
  readonly proof: ProvenCall | undefined;
}

/** A call for a user who has not called before, so that no token is remembered. */
async function call(name: string): Promise<Exchanged> {
  const path = `/${name}-${(counter += 1)}`;
  const before = idp.granted.length;
  const token = await users.token({ claims: { sub: path } });
  const { status } = await get(proxy.forward, `http://${name}.test:${target.port}${path}`, {
    Authorization: `Bearer ${token}`,
  });
  const [request] = target.requestsFor(path);
  return { status, authorization: request?.header("authorization"), proof: idp.granted[before] };
}

const fingerprintOf = (text: string): string => new X509Certificate(text).fingerprint256;

describe("a token endpoint that checks its clients", () => {
  test.each(["post", "basic"])(
    "takes a secret of odd characters by client_secret_%s",
    async (name) => {
      const { authorization, proof } = await call(name);
      expect(authorization, idp.refused.join()).toBe(`Bearer ${name}-for-${name}`);
      expect(proof).toMatchObject({
        method: `client_secret_${name}`,
        resource: `https://${name}.test/api`,
      });
    },
  );

  test.each(algorithms)("takes assertions signed with %s, each of them once", async (alg) => {
    const name = `key-${alg.toLowerCase()}`;
    const ids = new Set<unknown>();
    for (let count = 0; count < 2; count += 1) {
      const { authorization, proof } = await call(name);
      expect(authorization, idp.refused.join()).toBe(`Bearer ${name}-for-${name}`);
      const { header, jti, iat = 0, exp, ...claims } = proof?.assertion ?? { header: {} };
      expect(header).toEqual({ alg, kid: `${alg}-1`, typ: "JWT" });
      expect(claims).toEqual({ iss: name, sub: name, aud: idp.issuer });
      expect(exp).toBe(iat + 30);
      ids.add(jti);
    }
    expect(ids.size).toBe(2);
  });

  test("sees another key as soon as the file has it", async () => {
    expect((await call("rotating")).proof?.assertion?.header).toMatchObject({ kid: "first" });
    const text = JSON.stringify({ kid: "second", ...next.privateKey.export({ format: "jwk" }) });
    await writeFile(proxy.path("rotating.jwk"), text);
    await eventually(async () => {
      const { status, proof } = await call("rotating");
      expect(status).toBe(200);
      return proof?.assertion?.header.kid === "second";
    }, 10_000);
  });

  test("sees a certificate of its authority (tls_client_auth), and the one that replaces it", async () => {
    const { authorization, proof } = await call("certified");
    expect(authorization, idp.refused.join()).toBe("Bearer certified-for-certified");
    expect(proof).toMatchObject({
      method: "tls_client_auth",
      fingerprint: fingerprintOf(ofAuthority.cert),
    });
    const renewed = ofAuthority.renew("agent", [{ type: 6, value: spiffeId }]);
    // The new certificate first: for a moment it stands beside the old key, and the old pair stays in use.
    await writeFile(proxy.path("certified.crt"), renewed.cert);
    await eventually(async () => {
      expect((await call("certified")).status).toBe(200);
      return proxy.logs.some(({ problem }) => /certificate of another key/.test(String(problem)));
    }, 10_000);
    await writeFile(proxy.path("certified.key"), renewed.key);
    await eventually(async () => {
      const { status, proof: latest } = await call("certified");
      expect(status).toBe(200);
      return latest?.fingerprint === fingerprintOf(renewed.cert);
    }, 10_000);
  });

  test("sees a self-signed certificate that it knows (self_signed_tls_client_auth)", async () => {
    const { authorization, proof } = await call("lonely");
    expect(authorization, idp.refused.join()).toBe("Bearer lonely-for-lonely");
    expect(proof).toMatchObject({
      method: "self_signed_tls_client_auth",
      fingerprint: fingerprintOf(selfSigned.cert),
    });
  });

  test("refuses the certificate of a stranger, which is no fault of the caller", async () => {
    await writeFile(proxy.path("lonely.crt"), stranger.cert);
    await writeFile(proxy.path("lonely.key"), stranger.key);
    await eventually(async () => (await call("lonely")).status === 503, 10_000);
    const line = await proxy.log(
      ({ msg, plugin }) => msg === "token endpoint refused" && plugin === "lonely",
    );
    expect(line).toMatchObject({ error: "invalid_client", refusal: "registration" });
  });

  test("leaves no key and no secret in the log", () => {
    expect(proxy.stderr).not.toContain("PRIVATE KEY");
    expect(proxy.stderr).not.toContain(secret);
  });
});

describe("check", () => {
  const refused = async (
    identity: Settings,
    files: Readonly<Record<string, string>> = {},
    more: Settings = {},
  ): Promise<string> => {
    const config = {
      token_url: "https://idp.test/token",
      identity: { client_id: "c", ...identity },
      ...more,
    };
    const file = merge(settings(), outbound({ name: "token-exchange", config }));
    const { code, stderr } = await runWith("check", file, { files });
    expect(code, stderr).toBe(2);
    expect(stderr).not.toContain("BEGIN");
    return stderr;
  };
  const tls = {
    type: "tls-client-auth",
    client_certificate_file: "tls.crt",
    client_certificate_key_file: "tls.key",
  };

  test("names the keys that tls-client-auth needs", async () => {
    const half = { ...tls, client_certificate_file: undefined, send_client_id: false };
    const text = await refused(half);
    expect(text).toMatch(/identity\.client_certificate_file: is required/);
    expect(text).toMatch(/identity\.send_client_id: has to be true/);
  });

  test("names the file with the certificate of another key, or with none", async () => {
    const files = { "tls.crt": ofAuthority.cert, "tls.key": stranger.key };
    expect(await refused(tls, files)).toMatch(
      /identity\.client_certificate_file: tls\.crt: it is the certificate of another key/,
    );
    expect(await refused(tls, { ...files, "tls.crt": "nothing" })).toMatch(
      /identity\.client_certificate_file: tls\.crt: it is not a certificate/,
    );
    expect(await refused(tls, { ...files, "tls.key": ofAuthority.cert })).toMatch(
      /identity\.client_certificate_key_file: tls\.key: it is no private key/,
    );
  });

  test("wants https where a certificate is to be shown", async () => {
    const rules = [{ host: "a.test", token_url: "http://other.test/token" }];
    const text = await refused(tls, {}, { token_url: "http://idp.test/token", routes: { rules } });
    expect(text).toMatch(/config\.token_url: must be an https:\/\/ address/);
    expect(text).toMatch(/routes\.rules\[0\]\.token_url: must be an https:\/\/ address/);
  });

  test("refuses a lifetime that no provider takes", async () => {
    const identity = { type: "private-key-jwt", signing_key_file: "k", assertion_lifetime: "2h" };
    expect(await refused(identity)).toMatch(/identity\.assertion_lifetime: must be at most/);
  });
});
