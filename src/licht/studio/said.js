// What the service says, for people: its validator's words made plain, and what it says often in German too.
import { settings } from "./state.js";

/** As the service writes it: [English, German]. */
const PLAIN = {
  "{field}: Input should be less than or equal to {n}": ["At most {n}.", "Höchstens {n}."],
  "{field}: Input should be greater than or equal to {n}": ["At least {n}.", "Mindestens {n}."],
  "{field}: Input should be a valid integer, got a number with a fractional part": ["A whole number.", "Eine ganze Zahl."],
};

/** As the service writes it: German. */
export const GERMAN = {
  "Content Moderated: {reason}; ask for something else": "Das Bild verstößt gegen die Regeln dieses Dienstes ({reason}); wünschen Sie etwas anderes",
  "Insufficient credits": "Die Credits reichen nicht",
  "Request Moderated: {name}: {reason}; use another picture": "Ein Bild verstößt gegen die Regeln dieses Dienstes ({reason}); nehmen Sie ein anderes",
  "Request Moderated: {reason}; ask for something else": "Das verstößt gegen die Regeln dieses Dienstes ({reason}); wünschen Sie etwas anderes",
  "characters.{name}: has neither images nor a description; give it one of them": "@{name} hat weder Bilder noch eine Beschreibung; geben Sie eines davon",
  "frame {n} mentions @{name}; the characters are: {known}": "Bild {n} nennt @{name}; die Figuren sind: {known}",
  "no ranker is configured to choose between several candidates: one was drawn": "Niemand ist eingestellt, der unter mehreren Bildern wählt: Es wurde eines gezeichnet",
  "the mask is black all over: nothing would change; paint white what may": "Nichts ist bemalt: Es würde sich nichts ändern",
  "the picture has more than {n} bytes; make it smaller": "Das Bild hat mehr als {n} Bytes; verkleinern Sie es",
  "the picture is damaged and cannot be decoded; save it again": "Das Bild ist beschädigt; speichern Sie es neu",
  "the picture is not PNG, JPEG or WebP; save it as one": "Das Bild ist weder PNG noch JPEG noch WebP; speichern Sie es als eines davon",
  "the picture is {size} px; at most {n} pixels are taken": "Das Bild hat {size} px; höchstens {n} Pixel gehen",
  "the picture is {size} px; use at least {n} px a side": "Das Bild hat {size} px; mindestens {n} px je Seite müssen es sein",
  "the structured prompt is empty; describe at least the scene": "Der strukturierte Prompt ist leer; beschreiben Sie wenigstens die Szene",
  "there is no such series; check the id": "Diese Geschichte gibt es nicht mehr",
  "{active} jobs of this key are active and {limit} are allowed; wait for one to end": "{active} Aufträge dieses Schlüssels laufen, {limit} dürfen es sein; warten Sie, bis einer fertig ist",
  "{count} references are kept and {most} are allowed; delete some": "{count} Referenzen sind aufbewahrt, {most} dürfen es sein; löschen Sie einige",
  "{given} pictures were given and {route} takes {most}: the first ones were used": "{given} Bilder waren gegeben, {route} nimmt {most}: Die ersten wurden verwendet",
  "{name} is distilled and takes no guidance scale: it was left out": "{name} ist destilliert und nimmt keine Führung: Sie wurde weggelassen",
  "{name} was trained up to {largest}: drawn at {native}, enlarged to {size}": "{name} wurde bis {largest} trainiert: mit {native} gezeichnet, auf {size} vergrößert",
};

const PLACE = /\{(\w+)\}/g;

function fitted(pattern, message) {
  const literal = pattern.replace(/[.*+?^$()|[\]\\]/g, "\\$&");
  return new RegExp(`^${literal.replace(PLACE, "(?<$1>.+?)")}$`, "s").exec(message);
}

const filled = (text, places) => text.replace(PLACE, (whole, name) => places?.[name] ?? whole);

/** `message` of the service as this page says it: as it came, where no row fits. */
export function said(message) {
  const german = settings.get().language === "de";
  for (const [pattern, [english, other]] of Object.entries(PLAIN)) {
    const found = fitted(pattern, message);
    if (found) return filled(german ? other : english, found.groups);
  }
  for (const [pattern, text] of german ? Object.entries(GERMAN) : []) {
    const found = fitted(pattern, message);
    if (found) return filled(text, found.groups);
  }
  return message;
}
