/** The session API as the page asks it: relative paths of its own origin, and the secret where one is wanted. */

const secretKey = "authbridge-secret";

/** Asks, and asks the user for the secret when the server does. */
export class Api {
  #secret = sessionStorage.getItem(secretKey) ?? "";
  /** @type {Promise<string> | undefined} */
  #asking;
  /** @type {() => Promise<string>} */
  #askSecret;

  /** @param {() => Promise<string>} askSecret */
  constructor(askSecret) {
    this.#askSecret = askSecret;
  }

  /**
   * The answer of a path as JSON; undefined where the server does not have it.
   *
   * @param {string} path
   * @returns {Promise<any>}
   */
  async get(path) {
    const response = await this.open(path);
    return response.status === 404 ? undefined : response.json();
  }

  /**
   * The response of a path; rejects for failures other than 404.
   *
   * @param {string} path
   * @param {Record<string, string>} [headers]
   * @returns {Promise<Response>}
   */
  async open(path, headers = {}) {
    for (;;) {
      const authorization = this.#secret === "" ? {} : { Authorization: `Bearer ${this.#secret}` };
      const response = await fetch(path, {
        headers: { ...headers, .../** @type {Record<string, string>} */ (authorization) },
        cache: "no-store",
      });
      if (response.ok || response.status === 404) return response;
      if (response.status !== 401) throw new Error(`${path}: ${response.status}`);
      await this.#renewSecret();
    }
  }

  /**
   * Posts a form; the response as JSON, whatever its status says.
   *
   * @param {string} path
   * @param {Record<string, string>} form
   * @returns {Promise<any>}
   */
  async post(path, form) {
    for (;;) {
      const response = await fetch(path, {
        method: "POST",
        headers: { Authorization: `Bearer ${this.#secret}` },
        body: new URLSearchParams(form),
        cache: "no-store",
      });
      // Without a secret it is not asked for, where the session API has none; and nothing is decided.
      if (response.status !== 401) return response.json();
      await this.#renewSecret();
    }
  }

  /** One question for all requests that were refused. */
  async #renewSecret() {
    this.#asking ??= this.#askSecret().finally(() => {
      this.#asking = undefined;
    });
    this.#secret = await this.#asking;
    sessionStorage.setItem(secretKey, this.#secret);
  }
}
