/** Where stand-ins for credentials are looked for, entry by entry, and what the proxy does not see of that. */
import { type PlaceConfig, shownPlace } from "../../plugins/credentials/place-config.ts";
import type { Config } from "../../config/presets.ts";
import { type Finding, pass } from "./report.ts";

/** One entry of a pipeline. */
interface Entry {
  readonly plugin: string;
  readonly instance: string;
  readonly config: unknown;
}

interface Placing {
  readonly places?: readonly PlaceConfig[] | undefined;
  readonly routes?: {
    readonly rules: readonly { host: string; places?: readonly PlaceConfig[] }[];
  };
}

/** A finding for an entry that opens places, and for each of its rules that does. */
export function placesOf(
  { plugin, instance, config: given }: Entry,
  config: Pick<Config, "tls_bridge">,
): Finding[] {
  if (plugin !== "static-inject" && plugin !== "token-exchange") return [];
  // The assembler parsed the configuration with the schema of the plugin of this name.
  const { places, routes } = given as Placing;
  const opened = [
    ...(places === undefined ? [] : [{ of: instance, places }]),
    ...(routes?.rules ?? []).flatMap(({ host, places: own }) =>
      own === undefined ? [] : [{ of: `${instance}, ${host}`, places: own }],
    ),
  ];
  const unseen =
    config.tls_bridge.mode === "enabled"
      ? ""
      : "; in plain HTTP only, as tls_bridge.mode is not enabled and HTTPS goes by unseen";
  return opened.map(({ of, places: list }) =>
    pass(`${of}: ${list.map(shownBound).join(", ")}${unseen}`),
  );
}

function shownBound(place: PlaceConfig): string {
  const bounds = [...(place.hosts ?? []), ...(place.paths ?? [])];
  return bounds.length === 0 ? shownPlace(place) : `${shownPlace(place)} (${bounds.join(" ")})`;
}
