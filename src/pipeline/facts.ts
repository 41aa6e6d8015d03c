/** The views of a message that parsers leave for the record and for later plugins, by name. */

declare const viewed: unique symbol;

/** The name of a view; the compiler knows what is found under it. */
export type FactKey<T> = string & { readonly [viewed]: T };

/** Names a view. Its writer and its readers use the same key. */
export function factKey<T>(name: string): FactKey<T> {
  return name as FactKey<T>;
}

/** A map from names to views; what stands under a name that is no key is unknown. */
export interface Facts extends Map<string, unknown> {
  get<T>(key: FactKey<T>): T | undefined;
  get(name: string): unknown;
  set<T>(key: FactKey<T>, view: NoInfer<T>): this;
  set<Name extends string>(name: Name extends FactKey<unknown> ? never : Name, view: unknown): this;
}
