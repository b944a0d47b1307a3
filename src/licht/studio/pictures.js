// Pictures: showing one that needs the key, keeping a file as a reference, choosing from what is there.
import { html, useEffect, useState, AskFirst, Button, Dialog, Drop } from "./ui.js";
import { dataUri, get, pictureOf, post } from "./api.js";
import { complain, remove } from "./jobs.js";
import { lasting } from "./state.js";
import { t } from "./text.js";

/** A picture by its `image` ("reference:ID", "job:ID"), or by an address that may run out. */
export function Picture({ image, url, alt, ...rest }) {
  const [source, setSource] = useState(url || null);
  const load = () => {
    if (!image) return;
    pictureOf(image).then(setSource, () => setSource(null));
  };
  useEffect(() => {
    setSource(url || null);
    if (!url) load();
  }, [image, url]);
  return html`<img ...${rest} alt=${alt} src=${source || undefined} decoding="async" onError=${url && source === url ? load : undefined} />`;
}

/** Keep a file with the service. Returns an entry for the tray. */
export async function keep(blob, name) {
  const told = await post("/v1/references", { image: await dataUri(blob), name: name.slice(0, 100) });
  return { image: `reference:${told.id}`, name: told.name, width: told.width, height: told.height };
}

/** Keep files one after the other; what is wrong with one does not hold up the others. */
export async function keepAll(files, on) {
  for (const file of files) {
    try {
      on(await keep(file, file.name || t("pasted")));
    } catch (error) {
      complain(error);
    }
  }
}

export const entryOf = (picture) => ({ image: `job:${picture.id}`, name: "", width: picture.width, height: picture.height });

/** Choose one picture: from the gallery, from what is kept, or from a file. */
export function Picker({ title, onPick, onClose }) {
  const [shown, setShown] = useState(null);
  useEffect(() => {
    Promise.all([get("/v1/gallery?limit=60"), get("/v1/references")])
      .then(([gallery, references]) => setShown({ drawn: lasting(gallery.pictures), kept: references.references }))
      .catch((error) => { complain(error); onClose(); });
  }, []);
  const pick = (entry) => { onPick(entry); onClose(); };
  const files = (given) => keepAll(given.slice(0, 1), pick);
  return html`<${Dialog} title=${title} onClose=${onClose} wide>
    <${Drop} onFiles=${files} multiple=${false} label=${t("Choose a file")} class="band">${t("Drop a picture here, or choose a file")}<//>
    ${shown && [["drawn", t("Drawn")], ["kept", t("Kept references")]].map(([name, heading]) => shown[name].length > 0 && html`<section key=${name}>
      <h3>${heading}</h3>
      <div class="picks">${shown[name].map((each) => {
        const entry = name === "drawn" ? entryOf(each) : { image: `reference:${each.id}`, name: each.name, width: each.width, height: each.height };
        const told = each.prompt ? promptText(each.prompt) : each.name;
        return html`<button type="button" key=${each.id} title=${told} aria-label=${told} onClick=${() => pick(entry)}><${Picture} image=${entry.image} url=${each.url} alt="" loading="lazy" /></button>`;
      })}</div></section>`)}
  <//>`;
}

/** A prompt as one line of text. */
export const promptText = (prompt) => (typeof prompt === "string" ? prompt : JSON.stringify(prompt));

/** A button that opens the picker. */
export function PickButton({ label, title, onPick, icon = "gallery", kind }) {
  const [open, setOpen] = useState(false);
  return html`<${Button} icon=${icon} kind=${kind} onClick=${() => setOpen(true)}>${label}<//>
    ${open && html`<${Picker} title=${title} onPick=${onPick} onClose=${() => setOpen(false)} />`}`;
}

/** Deletes a picture, after asking. */
export function DeleteButton({ id, onGone = () => {}, ...button }) {
  const go = () => remove(id).then(onGone, (error) => { complain(error); return false; });
  return html`<${AskFirst} ...${button} icon="trash" label=${t("Delete")} title=${t("Delete this picture?")} text=${t("It is removed from the service for good.")} action=${t("Delete")} onDo=${go} />`;
}
