import { expect, test } from "vitest";
import { automaticNoProxy } from "../../../../src/app/chaining/automatic-no-proxy.ts";
import { upstreamProxySchema } from "../../../../src/config/upstream-proxy-schema.ts";

const entries = (block: object): string[] =>
  automaticNoProxy(upstreamProxySchema.parse({ automatic_no_proxy: block }).automatic_no_proxy);

test("the block alone stands for what every cluster needs", () => {
  expect(entries({})).toEqual(["localhost", "127.0.0.1", ".svc", ".cluster.local"]);
  expect(automaticNoProxy(undefined)).toEqual([]);
});

test("the networks, the API server and the cloud are added in OpenShift's spelling", () => {
  const found = entries({
    service_network: "172.30.0.0/16",
    cluster_network: ["10.128.0.0/14", "fd01::/48"],
    machine_network: "10.0.0.0/16",
    cluster_domain: "demo.example.com",
    api_server: "https://172.30.0.1:443",
    metadata: true,
    region: "eu-west-1",
    extra: [".apps.demo.example.com"],
  });
  expect(found.slice(4)).toEqual([
    "172.30.0.0/16",
    "10.128.0.0/14",
    "fd01::/48",
    "10.0.0.0/16",
    "api-int.demo.example.com",
    "172.30.0.1",
    "169.254.169.254",
    ".eu-west-1.compute.internal",
    ".apps.demo.example.com",
  ]);
});

test("neither the ingress domain nor the public API is among them", () => {
  const found = entries({ cluster_domain: "demo.example.com" });
  expect(found).not.toContain("api.demo.example.com");
  expect(found).not.toContain(".demo.example.com");
});

test("the first region of AWS has names of its own", () => {
  expect(entries({ cluster: false, region: "us-east-1" })).toEqual([".ec2.internal"]);
});
