/** Places in the target of a request: parameters of the query, segments of the path. */
import { shownPlace } from "./place-config.ts";
import { decoded, type Find } from "./place.ts";

/** Parameters of one name. */
export const findQuery: Find = ({ path }, place, recognise) => {
  const name = (place.query ?? "").toLowerCase();
  let standIn: string | undefined;
  eachParameter(path, (parameter, value) => {
    if (parameter.toLowerCase() === name && recognise(value, { place })) standIn ??= value;
    return undefined;
  });
  if (standIn === undefined) return [];
  return [
    {
      shown: shownPlace(place),
      isInUrl: true,
      standIn,
      fits: () => true,
      fill: (to, credential) => {
        const encoded = encodeURIComponent(credential);
        const fill = (parameter: string, value: string): string | undefined =>
          parameter.toLowerCase() === name && value === standIn ? encoded : undefined;
        to.attachToPath(eachParameter(to.sentPath, fill));
      },
    },
  ];
};

/** Gives parameters another value where `put` returns one; every other byte stays as it came. */
function eachParameter(
  target: string,
  put: (name: string, value: string) => string | undefined,
): string {
  const mark = target.indexOf("?");
  if (mark === -1) return target;
  return `${target.slice(0, mark)}?${eachMember(target.slice(mark + 1), put)}`;
}

/** The same for text of the form that queries and forms have. */
export function eachMember(
  text: string,
  put: (name: string, value: string) => string | undefined,
): string {
  const members = text.split("&").map((member) => {
    const equals = member.indexOf("=");
    if (equals === -1) return member;
    const name = member.slice(0, equals);
    const written = put(decoded(name), decoded(member.slice(equals + 1)));
    return written === undefined ? member : `${name}=${written}`;
  });
  return members.join("&");
}

/** Segments of the path that fit the pattern. */
export const findSegment: Find = ({ path }, place, recognise) => {
  const [before = "", after = ""] = (place.path_segment ?? "").split("*");
  const read = (segment: string): string | undefined => {
    const text = decoded(segment);
    const isLongEnough = text.length > before.length + after.length;
    const fits = isLongEnough && text.startsWith(before) && text.endsWith(after);
    return fits ? text.slice(before.length, text.length - after.length) : undefined;
  };
  const standIn = segmentsOf(path)
    .segments.map(read)
    .find((text) => text !== undefined && recognise(text, { place }));
  if (standIn === undefined) return [];
  return [
    {
      shown: shownPlace(place),
      isInUrl: true,
      standIn,
      // A dot segment would be another path.
      fits: (value) => !["", ".", ".."].includes(`${before}${value}${after}`),
      fill: (to, value) => {
        const { segments, query } = segmentsOf(to.sentPath);
        const encoded = encodeURIComponent(value).replace(/%(?:3A|40)/g, decodeURIComponent);
        const filled = segments.map((segment) =>
          read(segment) === standIn ? `${before}${encoded}${after}` : segment,
        );
        to.attachToPath(filled.join("/") + query);
      },
    },
  ];
};

function segmentsOf(target: string): { readonly segments: string[]; readonly query: string } {
  const mark = target.indexOf("?");
  const path = mark === -1 ? target : target.slice(0, mark);
  return { segments: path.split("/"), query: target.slice(path.length) };
}
