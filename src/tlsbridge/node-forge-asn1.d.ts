/** The part of node-forge that the bridge uses: its index loads every cipher it has (19 ms), this file 3 ms. */
declare module "node-forge/lib/asn1.js" {
  import type forge from "node-forge";

  const asn1: typeof forge.asn1;
  export default asn1;
}
