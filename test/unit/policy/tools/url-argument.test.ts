import { expect, test } from "vitest";
import { AddressSet } from "../../../../src/net/address.ts";
import { privatePlace } from "../../../../src/policy/tools/url-argument.ts";

const nothing = { addresses: new AddressSet(), hosts: new Set<string>() };

test.each([
  "http://169.254.169.254/metadata",
  "http://2852039166/",
  "http://0xa9fea9fe/",
  "http://0251.0376.0251.0376/",
  "http://169.254.43518/",
  "http://169.254.169.254.:80/",
  "http://[::ffff:169.254.169.254]/",
  "http://[::ffff:a9fe:a9fe]/",
  "http://[64:ff9b::a9fe:a9fe]/",
  "http://[fd00:ec2::254]/",
  "http://user:pw@169.254.169.254/",
  "http://api.weather.gov@169.254.169.254/",
  "http:169.254.169.254",
  "http:/169.254.169.254",
  "http:\\\\169.254.169.254\\",
  "//169.254.169.254/",
  "\\\\169.254.169.254\\x",
  "\u0000 http://169.254.169.254",
  "ht\ntp://169.254.169.254",
  "http://169.254.\t169.254/",
  "HTTP://１６９.254.169.254/",
  "http://169。254。169。254/",
  "ws://127.0.0.1/",
  "ftp://10.0.0.1/",
  "gopher://127.0.0.1:6379/_x",
  "redis://2130706433:6379/0",
  "http://127.1/",
  "http://0/",
  "http://localhost:8080/",
  "http://a.localhost/",
  "http://metadata.google.internal/",
  "http://METADATA/",
  "169.254.169.254/latest/meta-data",
  "10.0.0.1:8080",
  "[::1]:80/",
  "file:///etc/passwd",
  " FI\nLE:///etc/passwd",
])("%j leads to no public place", (text) => {
  expect(privatePlace(text, nothing)).toBeDefined();
});

test.each([
  "https://api.weather.gov/",
  "http://8.8.8.8/",
  "http://[2606:4700::1111]/",
  "see http://169.254.169.254/ in the manual",
  "1.2.3.4",
  "10.0.0.1",
  "v10.0.0.1/x",
  "10:30",
  "a/b",
  "localhost",
  "",
])("%j is let alone", (text) => {
  expect(privatePlace(text, nothing)).toBeUndefined();
});

test("what the rule names is let alone", () => {
  const exceptions = {
    addresses: AddressSet.parse(["10.0.0.0/8"]),
    hosts: new Set(["localhost", "file:"]),
  };
  const texts = ["http://10.9.8.7/", "http://localhost/", "file:///a"];
  expect(texts.map((text) => privatePlace(text, exceptions))).toEqual([
    undefined,
    undefined,
    undefined,
  ]);
  expect(privatePlace("http://192.168.0.1/", exceptions)).toBe("a private address");
});
