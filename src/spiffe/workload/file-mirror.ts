/** Writes the SVIDs to files, for programs beside this one that know nothing of a Workload API. */
import { join } from "node:path";
import { messageOf } from "../../errors.ts";
import { writeAtomically } from "../../files/atomic-file.ts";
import type { JwtSource } from "../jwt-source.ts";
import type { X509Source } from "../x509-source.ts";

/** What is mirrored, and where to. */
export interface FileMirrorOptions {
  readonly directory: string;
  readonly x509: X509Source;
  /** The one audience whose token is mirrored; absent where nothing asks for tokens. */
  readonly jwt?: { readonly source: JwtSource; readonly audience: string } | undefined;
  readonly clock: { now(): number };
  /** Called for every failure to write or to get what is to be written. */
  onProblem(this: void, problem: string): void;
}

/** Names of the Go program, which took them from spiffe-helper. */
const names = {
  svid: "svid.pem",
  key: "svid_key.pem",
  bundle: "svid_bundle.pem",
  token: "jwt_svid.token",
} as const;

/** There is a private key among them, and a token that others would believe. */
const mode = 0o600;
const retryMs = 5_000;
const shortestMs = 1_000;
const longestTimerMs = 2 ** 31 - 1;

/** Follows the sources until it is closed. The files stay: whoever reads them may outlive this process. */
export class FileMirror {
  readonly #options: FileMirrorOptions;
  #writing: Promise<void> = Promise.resolve();
  #isBehind = false;
  #unsubscribe: (() => void) | undefined;
  #renewal: NodeJS.Timeout | undefined;
  #isClosed = false;

  constructor(options: FileMirrorOptions) {
    this.#options = options;
  }

  /** Begins; later calls do nothing. */
  begin(): void {
    if (this.#unsubscribe !== undefined || this.#isClosed) return;
    this.#unsubscribe = this.#options.x509.onChange(() => this.#changed());
    if (this.#options.x509.current() !== undefined) this.#changed();
    if (this.#options.jwt !== undefined) void this.#renewToken();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#unsubscribe?.();
    clearTimeout(this.#renewal);
    await this.#writing;
  }

  /** One set is written at a time, and then the newest one that there is. */
  #changed(): void {
    if (this.#isBehind) return;
    this.#isBehind = true;
    this.#writing = this.#writing.then(async () => {
      this.#isBehind = false;
      await this.#attempt(() => this.#writeSvid());
    });
  }

  async #writeSvid(): Promise<void> {
    const { x509 } = this.#options;
    const svid = x509.current();
    if (svid === undefined) return;
    const bundle = x509.bundle(svid.trustDomain) ?? [];
    // The certificate comes last: who waits for it finds the key that belongs to it.
    await this.#write(names.bundle, bundle.join(""));
    await this.#write(names.key, svid.privateKey.reveal());
    await this.#write(names.svid, svid.certificateChain);
  }

  async #renewToken(): Promise<void> {
    const { jwt, clock } = this.#options;
    if (jwt === undefined) return;
    let afterMs = retryMs;
    await this.#attempt(async () => {
      const { token, expiresAt } = await jwt.source.token(jwt.audience);
      await this.#write(names.token, token.reveal());
      afterMs = Math.max(shortestMs, (expiresAt - clock.now()) / 2);
    });
    if (this.#isClosed) return;
    const waitMs = Math.min(longestTimerMs, afterMs);
    this.#renewal = setTimeout(() => void this.#renewToken(), waitMs).unref();
  }

  #write(name: string, content: string): Promise<void> {
    return writeAtomically(join(this.#options.directory, name), content, mode);
  }

  async #attempt(write: () => Promise<void>): Promise<void> {
    try {
      await write();
    } catch (error) {
      if (!this.#isClosed) this.#options.onProblem(messageOf(error));
    }
  }
}
