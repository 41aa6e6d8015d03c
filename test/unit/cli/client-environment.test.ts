import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { clientEnvironment } from "../../../src/cli/client-environment.ts";
import { parseProxyOption, proxyOfFile, proxyUrl } from "../../../src/cli/proxy-address.ts";
import { parseConfig } from "../../../src/config/load.ts";

const trust = { caFile: "/ca/ca.crt", bundleFile: "/ca/b.crt", javaStoreFile: "/ca/b.jks" };

function environment(files: typeof trust | undefined) {
  return Object.fromEntries(clientEnvironment({ host: "127.0.0.1", port: 8081 }, files));
}

test("variables that add to a client's roots name the CA, those that replace them the bundle", () => {
  const variables = environment(trust);
  const adding = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];
  const replacing = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "npm_config_cafile",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
  ];
  expect(adding.map((name) => variables[name])).toEqual(adding.map(() => trust.caFile));
  expect(replacing.map((name) => variables[name])).toEqual(replacing.map(() => trust.bundleFile));
});

test("the proxy is there in both spellings, and only loopback goes around it", () => {
  const variables = environment(trust);
  for (const name of ["HTTP_PROXY", "https_proxy", "all_proxy", "npm_config_https_proxy"])
    expect(variables[name]).toBe("http://127.0.0.1:8081");
  expect(variables["NO_PROXY"]).toBe(variables["no_proxy"]);
  expect(variables["no_proxy"]?.split(",")).toEqual(["localhost", "127.0.0.1", "::1"]);
});

test("no list of hosts that go around the proxy has a bracketed address, here and in the manifests", () => {
  const variables = environment(trust);
  for (const name of ["NO_PROXY", "no_proxy", "npm_config_noproxy"])
    expect(variables[name]).not.toContain("[");
  for (const file of [
    "deploy/helm/authbridge-proxy/templates/_pod.tpl",
    "deploy/kustomize/overlays/sidecar/agent.yaml",
  ])
    expect(readFileSync(file, "utf8")).not.toMatch(/::1,\s*\[|\[::1\],/);
});

test("without a bridge nothing about trust is set", () => {
  const names = Object.keys(environment(undefined));
  expect(names.filter((name) => /CERT|CA_|CAINFO|CAFILE/i.test(name))).toEqual([]);
  expect(environment(undefined)["JAVA_TOOL_OPTIONS"]).not.toContain("trustStore");
});

test("Java's options survive a path with spaces, and are left out for one that nothing can quote", () => {
  const spaced = environment({ ...trust, javaStoreFile: "/my ca/b.jks" });
  expect(spaced["JAVA_TOOL_OPTIONS"]).toContain('"-Djavax.net.ssl.trustStore=/my ca/b.jks"');
  const hopeless = environment({ ...trust, javaStoreFile: `/a'b"c d.jks` });
  expect(hopeless).not.toHaveProperty("JAVA_TOOL_OPTIONS");
});

test.each([
  [":8081", { host: "127.0.0.1", port: 8081 }],
  ["0.0.0.0:3128", { host: "127.0.0.1", port: 3128 }],
  ["[::]:3128", { host: "::1", port: 3128 }],
  ["10.1.2.3:80", { host: "10.1.2.3", port: 80 }],
  ["localhost:8081", { host: "localhost", port: 8081 }],
])("a client reaches the listener %s", (text, wanted) => {
  expect(proxyOfFile(configWith(`roles: [forward]\n  forward_proxy_addr: "${text}"`))).toEqual(
    wanted,
  );
});

test("a listener without a fixed port, or none at all, needs words", () => {
  expect(proxyOfFile(configWith('roles: [forward]\n  forward_proxy_addr: ":0"'))).toMatch(
    /no fixed port/,
  );
  const reverse = "roles: [reverse]\n  reverse_proxy_backend: http://127.0.0.1:1";
  expect(proxyOfFile(configWith(reverse))).toMatch(/no forward proxy/);
});

test.each([
  ["http://proxy.example:8081", "http://proxy.example:8081"],
  ["http://proxy.example/", "http://proxy.example:80"],
  ["http://[fd00::1]:8081", "http://[fd00::1]:8081"],
  ["https://gateway", "https://gateway:443"],
])("--proxy %s", (text, wanted) => {
  const address = parseProxyOption(text);
  expect(typeof address === "string" ? address : proxyUrl(address)).toBe(wanted);
});

test.each([
  "proxy:8081",
  "socks5://proxy:1",
  "http://u:p@proxy:1",
  "http://proxy:1/x",
  "http://p:0",
  "",
])("--proxy %j is refused", (text) => {
  expect(parseProxyOption(text)).toMatch(/^--proxy must be a URL/);
});

function configWith(listener: string) {
  const loaded = parseConfig(Buffer.from(`listener:\n  ${listener}\n`), "test.yaml");
  if (loaded.kind === "rejected")
    throw new Error(loaded.problems.map(({ message }) => message).join("\n"));
  return loaded.config;
}
