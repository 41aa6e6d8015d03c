/** A connection or request that `explain`, `policy test` and their command lines ask about. */

/** What is asked about, as an author writes it. */
export interface ProbeSource {
  /** `host:port` of a CONNECT. */
  readonly connect?: string | undefined;
  /** An absolute URL instead: `http:` is a plain request, `https:` a CONNECT and the request in it. */
  readonly url?: string | undefined;
  readonly method?: string | undefined;
  readonly path?: string | undefined;
  /** Its fields in order; a name may come again. */
  readonly headers?: readonly (readonly [name: string, value: string])[] | undefined;
  /** Text of the body. */
  readonly body?: string | undefined;
  /** Path of the caller's executable; a caller without one is not identified. */
  readonly binary?: string | undefined;
  /** Executables of its ancestors, nearest first. */
  readonly ancestors?: readonly string[] | undefined;
  /** Authenticated name of the agent. */
  readonly caller?: string | undefined;
}
