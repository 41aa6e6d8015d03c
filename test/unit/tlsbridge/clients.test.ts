import { execFile, spawnSync } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer as createHttpServer } from "node:http";
import { request } from "node:https";
import type { Server } from "node:net";
import { createServer } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { authorityFromFiles, readAuthorityFiles } from "../../../src/tlsbridge/authority-files.ts";
import { LeafMinter } from "../../../src/tlsbridge/leaf-minter.ts";
import { Terminator } from "../../../src/tlsbridge/terminator.ts";
import type { KeyType } from "../../../src/tlsbridge/x509.ts";
import { TestAuthority } from "../../support/certs.ts";

const run = promisify(execFile);
const has = (tool: string): boolean => spawnSync(tool, ["--version"]).status === 0;

const python = `
import socket, ssl, sys
port, ca, name = int(sys.argv[1]), sys.argv[2], sys.argv[3]
context = ssl.create_default_context(cafile=ca)
context.verify_flags |= ssl.VERIFY_X509_STRICT
with socket.create_connection(("127.0.0.1", port)) as raw:
    with context.wrap_socket(raw, server_hostname=name) as tls:
        tls.sendall(b"GET /secret HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
        print(b"".join(iter(lambda: tls.recv(4096), b"")).decode())
`;

describe.each<[string, KeyType, KeyType, string]>([
  ["ECDSA, below an intermediate", "ecdsa-p256", "ecdsa-p256", "api.test"],
  ["RSA, below an intermediate", "rsa-2048", "rsa-2048", "api.test"],
  ["ECDSA, for an address", "ecdsa-p256", "ecdsa-p256", "127.0.0.1"],
  [
    "ECDSA, for a name beyond a common name",
    "ecdsa-p256",
    "ecdsa-p256",
    `${"a".repeat(61)}.b.test`,
  ],
])("a client that trusts only ca.crt accepts the leaf: %s", (_case, caKey, keyType, name) => {
  let server: Server;
  let port: number;
  let ca: string;

  beforeAll(async () => {
    const root = await TestAuthority.create("root", caKey);
    const directory = await (await root.intermediate("between", caKey)).write();
    ca = join(directory, "ca.crt");
    await writeFile(join(directory, "client.py"), python);
    const files = await readAuthorityFiles(directory);
    const current = await authorityFromFiles(files, Date.now());
    const terminator = new Terminator(await LeafMinter.create({ current }, { keyType }));
    const http = createHttpServer((_request, response) => response.end("OK-SECRET"));
    server = createServer((socket) => {
      void terminator.terminate(socket, { name }).then((result) => {
        if (result.kind === "terminated") http.emit("connection", result.tlsSocket);
      });
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    port = typeof address === "object" ? (address?.port ?? 0) : 0;
  });
  afterAll(() => {
    server.close();
  });

  test("node", async () => {
    const { readFile } = await import("node:fs/promises");
    const options = {
      ca: await readFile(ca),
      port,
      host: "127.0.0.1",
      path: "/secret",
      agent: false,
    };
    const sent = request({
      ...options,
      ...(name === "127.0.0.1" ? {} : { servername: name }),
    }).end();
    const [response] = await once(sent, "response");
    expect(String((await once(response, "data"))[0])).toBe("OK-SECRET");
  });

  test.skipIf(!has("curl"))("curl", async () => {
    const trust = ["-sS", "--cacert", ca, "--http1.1", "--noproxy", "*"];
    const target = ["--resolve", `${name}:${port}:127.0.0.1`, `https://${name}:${port}/secret`];
    expect((await run("curl", [...trust, ...target])).stdout).toBe("OK-SECRET");
  });

  test.skipIf(!has("python3"))("python, strict", async () => {
    const script = join(ca, "..", "client.py");
    const { stdout } = await run("python3", [script, String(port), ca, name]);
    expect(stdout).toContain("OK-SECRET");
  });

  test.skipIf(spawnSync("openssl", ["version"]).status !== 0)("openssl, strict", async () => {
    const check =
      name === "127.0.0.1" ? ["-verify_ip", name] : ["-verify_hostname", name, "-servername", name];
    const target = ["s_client", "-connect", `127.0.0.1:${port}`, "-CAfile", ca, "-x509_strict"];
    const child = run("openssl", [...target, ...check, "-verify_return_error", "-brief"]);
    child.child.stdin?.end();
    const { stdout, stderr } = await child;
    expect(stdout + stderr).toContain("Verification: OK");
  });
});
