/** A Keycloak server: the distribution that `KEYCLOAK_HOME` names, with its database in memory, on loopback. */
import { type ChildProcess, spawn } from "node:child_process";
import { copyFile, mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { eventually } from "./eventually.ts";
import { freePort } from "./free-port.ts";

/** What the server is given at its start. */
export interface KeycloakOptions {
  readonly home: string;
  /** The export that it imports. */
  readonly realmFile: string;
  readonly realm: string;
  /** A JDK's memory is small here: it is one server with one realm. */
  readonly env?: Readonly<Record<string, string>>;
  readonly features?: readonly string[];
  /** Files in PEM; the client's certificate is trusted, too. */
  readonly tls?: { readonly cert: string; readonly key: string; readonly trusted: string };
}

/** An object of the admin API. */
export type Representation = Readonly<Record<string, unknown>>;

const startLimitMs = 600_000;
const admin = { username: "admin", password: "admin" };

/** A running server and what its administrator and its users do. */
export class Keycloak {
  /** The end of its log. */
  readonly lines: string[] = [];
  readonly #options: KeycloakOptions;
  readonly #port: number;
  readonly #tlsPort: number;
  #child: ChildProcess | undefined;

  private constructor(options: KeycloakOptions, port: number, tlsPort: number) {
    this.#options = options;
    this.#port = port;
    this.#tlsPort = tlsPort;
  }

  static async start(options: KeycloakOptions): Promise<Keycloak> {
    const server = new Keycloak(options, await freePort(), await freePort());
    await server.up();
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  get secureUrl(): string {
    return `https://127.0.0.1:${this.#tlsPort}`;
  }

  get issuer(): string {
    return `${this.url}/realms/${this.#options.realm}`;
  }

  get tokenPath(): string {
    return `/realms/${this.#options.realm}/protocol/openid-connect/token`;
  }

  /** Starts it; with its database in memory, it then has new keys and none of the administrator's changes. */
  async up(): Promise<void> {
    const { home, realmFile, realm, env = {}, features = [], tls } = this.#options;
    const folder = join(home, "data/import");
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder, { recursive: true });
    await copyFile(realmFile, join(folder, `${realm}-realm.json`));
    const args = [
      "start-dev",
      "--db=dev-mem",
      "--import-realm",
      "--http-host=127.0.0.1",
      `--http-port=${this.#port}`,
      // Tokens name one issuer, whichever port they were asked for at.
      `--hostname=${this.url}`,
      `--http-management-port=${await freePort()}`,
      ...(features.length === 0 ? [] : [`--features=${features.join(",")}`]),
      ...(tls === undefined
        ? []
        : [
            `--https-port=${this.#tlsPort}`,
            `--https-certificate-file=${tls.cert}`,
            `--https-certificate-key-file=${tls.key}`,
            "--https-client-auth=request",
            `--truststore-paths=${tls.trusted}`,
          ]),
    ];
    const child = spawn(join(home, "bin/kc.sh"), args, {
      env: {
        ...process.env,
        JAVA_OPTS_KC_HEAP: "-Xms128m -Xmx640m",
        KC_BOOTSTRAP_ADMIN_USERNAME: admin.username,
        KC_BOOTSTRAP_ADMIN_PASSWORD: admin.password,
        ...env,
      },
      stdio: ["ignore", "pipe", "pipe"],
      // The script starts a JVM: the group is what ends.
      detached: true,
    });
    this.#child = child;
    let isOver = false;
    child.once("exit", () => (isOver = true));
    this.lines.length = 0;
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        this.lines.push(line);
        if (this.lines.length > 200) this.lines.shift();
      });
    }
    await eventually(() => {
      if (isOver) return true;
      return this.lines.some((line) => line.includes("Listening on:"));
    }, startLimitMs);
    if (isOver) throw new Error(`Keycloak did not start:\n${this.lines.join("\n")}`);
  }

  async down(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child?.pid === undefined || child.exitCode !== null) return;
    const ended = new Promise((resolve) => child.once("close", resolve));
    process.kill(-child.pid, "SIGKILL");
    await ended;
  }

  close(): Promise<void> {
    return this.down();
  }

  /** A user's access token, as the user interface gets it. */
  async login(username: string, clientId = "ui"): Promise<string> {
    return this.#token(this.issuer, { username, password: username, client_id: clientId });
  }

  /** What the realm has below this path. */
  async list(path: string): Promise<Representation[]> {
    return (await this.#admin("GET", path)) as Representation[];
  }

  async create(path: string, body: Representation): Promise<void> {
    await this.#admin("POST", path, body);
  }

  /** Changes the client with this id; members of `attributes` are added to those that there are. */
  async changeClient(clientId: string, change: Representation): Promise<void> {
    const [client] = await this.list(`/clients?clientId=${clientId}`);
    if (client === undefined) throw new Error(`no client ${clientId}`);
    const attributes = {
      ...(client["attributes"] as object),
      ...(change["attributes"] as object | undefined),
    };
    await this.#admin("PUT", `/clients/${String(client["id"])}`, {
      ...client,
      ...change,
      attributes,
    });
  }

  /** Signs with a new key from now on; the old ones stay published. */
  async rotateKeys(priority: number): Promise<void> {
    await this.create("/components", {
      name: `rotated-${priority}`,
      providerId: "rsa-generated",
      providerType: "org.keycloak.keys.KeyProvider",
      config: { priority: [String(priority)], enabled: ["true"], active: ["true"] },
    });
  }

  async #admin(method: string, path: string, body?: Representation): Promise<unknown> {
    const token = await this.#token(`${this.url}/realms/master`, {
      ...admin,
      client_id: "admin-cli",
    });
    const response = await fetch(`${this.url}/admin/realms/${this.#options.realm}${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text === "" ? undefined : JSON.parse(text);
  }

  async #token(issuer: string, form: Readonly<Record<string, string>>): Promise<string> {
    const response = await fetch(`${issuer}/protocol/openid-connect/token`, {
      method: "POST",
      body: new URLSearchParams({ grant_type: "password", ...form }),
    });
    const answer = (await response.json()) as { access_token?: string };
    if (answer.access_token === undefined) throw new Error(JSON.stringify(answer));
    return answer.access_token;
  }
}
