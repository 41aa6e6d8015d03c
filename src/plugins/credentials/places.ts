/** Looks for stand-ins in the places that the file opens, each bound to its hosts and paths, and fills them. */
import { HostMatcher } from "../../pattern/host-pattern.ts";
import type { Glob } from "../../pattern/glob.ts";
import { plainPath } from "../../pattern/path-pattern.ts";
import { type Decision, deny, type Message, type RequestContext } from "../../pipeline/plugin.ts";
import {
  findForm,
  findInMessage,
  findJson,
  findMeta,
  isBodyOf,
  type MessagePlace,
  UnreadableBody,
} from "./body-places.ts";
import { findBasic, findHeader, findProtocol } from "./field-places.ts";
import { bodyKinds, pathGlobOf, type PlaceConfig, placeKinds, shownPlace } from "./place-config.ts";
import type { Find, Place, Recognise } from "./place.ts";
import { findQuery, findSegment } from "./target-places.ts";

const finders: Readonly<Record<(typeof placeKinds)[number], Find>> = {
  header: findHeader,
  basic: findBasic,
  query: findQuery,
  path_segment: findSegment,
  form: findForm,
  json: findJson,
  mcp_meta: findMeta,
  websocket_protocol: findProtocol,
  // There is no message before the upgrade.
  websocket_first_message: () => [],
};

interface Compiled {
  readonly config: PlaceConfig;
  readonly find: Find;
  readonly isInBody: boolean;
  readonly hosts: HostMatcher | undefined;
  readonly paths: readonly Glob[] | undefined;
}

/** What a request has in place of a credential, or the refusal of one whose body cannot be searched. */
export type Found =
  | { readonly kind: "found"; readonly places: readonly Place[] }
  | { readonly kind: "unreadable"; readonly refusal: Decision };

/** The places of one plugin instance, or of one route. */
export class Places {
  readonly #places: readonly Compiled[];
  /** Whether some place is in a body, so that bodies have to be read. */
  readonly needBodies: boolean;

  constructor(places: readonly PlaceConfig[]) {
    this.#places = places.map((config) => {
      const kind = placeKinds.find((one) => config[one] !== undefined) ?? "header";
      return {
        config,
        find: finders[kind],
        isInBody: bodyKinds.has(kind),
        hosts: config.hosts && new HostMatcher(config.hosts),
        paths: config.paths?.map(pathGlobOf),
      };
    });
    this.needBodies = this.#places.some(({ isInBody }) => isInBody);
  }

  find(context: RequestContext, recognise: Recognise): Found {
    try {
      const places = this.#boundTo(context).flatMap(({ config, find }) =>
        find(context, config, recognise),
      );
      return { kind: "found", places };
    } catch (error) {
      if (!(error instanceof UnreadableBody)) throw error;
      const message = `the body cannot be searched for the stand-in of a credential: ${error.message}`;
      const denial = { code: "request.malformed", message };
      return { kind: "unreadable", refusal: deny("unreadable_body", denial) };
    }
  }

  /** Whether a field of these places holds something, whatever it is. */
  holdsOther(context: RequestContext): boolean {
    return this.#boundTo(context).some(
      ({ config: { header } }) =>
        header !== undefined &&
        header.toLowerCase() !== "authorization" &&
        context.headers.has(header),
    );
  }

  wantsBody(context: RequestContext): boolean {
    if (!this.needBodies || !context.hasBody) return false;
    return this.#boundTo(context).some(
      ({ isInBody, config }) => isInBody && isBodyOf(config, context),
    );
  }

  /** Whether the stand-in may come in the first message of this WebSocket. */
  awaitMessage(context: RequestContext): boolean {
    return context.upgrade?.toLowerCase() === "websocket" && this.#inMessages(context).length > 0;
  }

  findInMessage(
    context: RequestContext,
    message: Message,
    recognise: Recognise,
  ): MessagePlace | undefined {
    for (const { config } of this.#inMessages(context)) {
      const found = findInMessage(message, config, recognise);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** The places for this message, in words. */
  shown(context: RequestContext): string {
    return this.#boundTo(context)
      .map(({ config }) => shownPlace(config))
      .join(", ");
  }

  #inMessages(context: RequestContext): readonly Compiled[] {
    return this.#boundTo(context).filter(
      ({ config }) => config.websocket_first_message !== undefined,
    );
  }

  #boundTo({ destination, path }: RequestContext): readonly Compiled[] {
    return this.#places.filter(({ hosts, paths }) => {
      if (hosts?.matches(destination.host) === false) return false;
      if (paths === undefined) return true;
      const plain = plainPath(path);
      return plain !== undefined && paths.some((glob) => glob.matches(plain));
    });
  }
}

/** Fills the places, and lets nothing of the response repeat what is in those that `isConcealed` names. */
export function fillPlaces(
  context: RequestContext,
  places: readonly Place[],
  value: string,
  conceal: { readonly isConcealed: (place: Place) => boolean; readonly onFound: () => void },
): void {
  for (const place of places) {
    place.fill(context, value);
    if (!conceal.isConcealed(place)) continue;
    context.conceal(value, place.standIn, conceal.onFound);
    const encoded = place.encoded?.(value);
    if (encoded !== undefined) context.conceal(...encoded, conceal.onFound);
  }
}
