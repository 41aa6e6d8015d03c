import { afterEach, expect, test } from "vitest";
import { DoctorReport, findingLine } from "../../../../src/cli/doctor/report.ts";
import { buildServices } from "../../../../src/cli/doctor/services.ts";
import { parseConfig } from "../../../../src/config/load.ts";
import { StubIdp } from "../../../support/idp.ts";

let idp: StubIdp | undefined;

afterEach(async () => {
  await idp?.close();
  idp = undefined;
});

/** Verdict and words of every service check of a file for this provider. */
async function examine(
  provider: Pick<StubIdp, "issuer" | "tokenUrl">,
  change: (text: string) => string = (text) => text,
): Promise<{ readonly lines: readonly string[]; readonly problems: readonly string[] }> {
  const text = change(`listener:
  reverse_proxy_backend: http://127.0.0.1:1
pipeline:
  inbound:
    plugins:
      - name: jwt-validation
        config: { issuer: "${provider.issuer}", audience: agent }
  outbound:
    plugins:
      - name: token-exchange
        config:
          token_url: "${provider.tokenUrl}"
          identity: { type: client-secret, client_id: me, client_secret: hunter2-hunter2 }
`);
  const loaded = parseConfig(Buffer.from(text), "test.yaml");
  if (loaded.kind === "rejected")
    throw new Error(loaded.problems.map(({ message }) => message).join("\n"));
  const services = await buildServices(loaded);
  const lines: string[] = [];
  const report = new DoctorReport((finding) => void lines.push(findingLine(finding)));
  try {
    for (const check of services.checks)
      await report.check(check.name, 10_000, (signal) => check.run(signal));
  } finally {
    await services.close();
  }
  return { lines, problems: services.problems };
}

test("a key set with keys and a token endpoint that refuses nobody's request both pass", async () => {
  idp = await StubIdp.start();
  idp.tokenReplies.push({ status: 401, body: { error: "invalid_client" } });
  const { lines } = await examine(idp);
  expect(lines.map((line) => line.slice(0, 4))).toEqual(["pass", "pass"]);
  const [call] = idp.tokenCalls;
  expect(call?.authorization).toBeUndefined();
  expect(call?.form.has("client_secret")).toBe(false);
  expect(lines.join("")).not.toContain("hunter2");
});

test("the places of stand-ins are listed, and that HTTPS goes by unseen without the bridge", async () => {
  idp = await StubIdp.start();
  const { lines, problems } = await examine(
    idp,
    (text) => `${text}          places: [{ header: x-api-key }]
          routes:
            rules:
              - { host: git.test, places: [{ basic: password, paths: [/x.git/**] }] }
`,
  );
  expect(problems).toEqual([]);
  const shown = lines.filter((line) => line.includes("places"));
  expect(shown).toHaveLength(2);
  expect(shown[0]).toMatch(/^pass .*token-exchange: header x-api-key; .*tls_bridge\.mode/);
  expect(shown[1]).toContain("token-exchange, git.test: basic password (/x.git/**)");
});

test("an empty key set and a page that is no endpoint fail with what to set", async () => {
  idp = await StubIdp.start();
  idp.jwksReplies.push({ body: { keys: [] } });
  idp.tokenReplies.push({ status: 404, body: "not here" });
  const { lines } = await examine(idp);
  expect(lines[0]).toMatch(/^FAIL {2}jwks .*no key that verifies signatures.*jwks_url/);
  expect(lines[1]).toMatch(/^FAIL {2}token .*answered 404.*token_url/);
});

test("credentials of files are looked for", async () => {
  idp = await StubIdp.start();
  const { lines } = await examine(idp, (text) =>
    text.replace(
      /identity: .*/,
      'identity: { type: private-key-jwt, client_id: me, signing_key_file: "/not-there/key.pem" }',
    ),
  );
  expect(lines[1]).toMatch(/^FAIL {2}identity .*key\.pem: the file does not exist.*identity names/);
});

test("a provider that is not there fails both, within their limits", async () => {
  const gone = await StubIdp.start();
  const { origin } = gone;
  await gone.close();
  const { lines } = await examine({ issuer: `${origin}/r`, tokenUrl: `${origin}/t` });
  expect(lines.map((line) => line.slice(0, 4))).toEqual(["FAIL", "FAIL"]);
});

test("a plugin that does not take its configuration is a problem with its place", async () => {
  idp = await StubIdp.start();
  const { problems } = await examine(idp, (text) => text.replace("audience: agent", "audiense: a"));
  expect(problems).toHaveLength(1);
  expect(problems[0]).toContain("pipeline.inbound.plugins[0].config.audiense");
});
