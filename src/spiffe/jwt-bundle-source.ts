/** The keys that JWT-SVIDs of others are verified with, by their trust domain; wherever they come from. */
export interface JwtBundleSource {
  /**
   * The JSON Web Key Set of a trust domain as it is now, such as `example.org`. Nothing is dialled before the first call.
   *
   * Rejects with ProxyError `upstream.unreachable`, whose message says what the Workload API answered.
   */
  keySet(trustDomain: string): Promise<Buffer>;
}
