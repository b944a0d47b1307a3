// Everything that this key has drawn: searched, kept dear, deleted, compared.
import { html, useEffect, useState, Button, Empty, Icon, Switch } from "./ui.js";
import { call, connection, get } from "./api.js";
import { deleted, lasting, pair, sketches, useStore } from "./state.js";
import { t } from "./text.js";
import { complain } from "./jobs.js";
import { Picture, promptText } from "./pictures.js";
import { Viewer } from "./viewer.js";

const PAGE = 36;
const PAUSE_MS = 250;

function useGallery(search, favourite) {
  const [state, setState] = useState({ pictures: null, next: null });
  const { up } = useStore(connection);
  const [turn, setTurn] = useState(0);
  const gone = useStore(deleted);
  const ask = (before) => {
    const query = new URLSearchParams({ limit: PAGE, ...(search && { search }), ...(favourite && { favourite: "true" }), ...(before && { before }) });
    return get(`/v1/gallery?${query}`);
  };
  useEffect(() => {
    if (!up) return undefined;
    let over = false;
    const timer = setTimeout(() => ask(null).then((told) => !over && setState(told)).catch(complain), search ? PAUSE_MS : 0);
    return () => { over = true; clearTimeout(timer); };
  }, [search, favourite, turn, gone, up]);
  const more = () => ask(state.next).then((told) => setState({ pictures: [...state.pictures, ...told.pictures], next: told.next })).catch(complain);
  const passing = useStore(sketches);
  const pictures = state.pictures && lasting(state.pictures, passing);
  return { ...state, pictures, more, again: () => setTurn((now) => now + 1), set: setState };
}

export function Gallery() {
  const [search, setSearch] = useState("");
  const [favourite, setFavourite] = useState(false);
  const [open, setOpen] = useState(null);
  const [choosing, setChoosing] = useState(null);
  const gallery = useGallery(search.trim(), favourite);
  const pick = (picture) => {
    if (!choosing) return setOpen(picture.id);
    if (choosing.some((each) => each.id === picture.id)) return setChoosing(choosing.filter((each) => each.id !== picture.id));
    const next = [...choosing, picture];
    if (next.length < 2) return setChoosing(next);
    setChoosing(null);
    return pair.set(next);
  };
  const love = async (picture) => {
    try {
      const told = await call(picture.favourite ? "DELETE" : "PUT", `/v1/gallery/${picture.id}/favourite`);
      gallery.set({ next: gallery.next, pictures: gallery.pictures.map((each) => (each.id === told.id ? told : each)) });
    } catch (error) {
      complain(error);
    }
  };
  return html`<header class="view-head"><h1>${t("Gallery")}</h1>
      <div class="search"><${Icon} name="search" /><input type="search" aria-label=${t("Search in prompts")} placeholder=${t("Search in prompts")} value=${search} onInput=${(event) => setSearch(event.target.value)} /></div>
      <${Switch} icon="heart" label=${t("Favourites")} checked=${favourite} onChange=${setFavourite} />
      <${Switch} icon="compare" label=${t("Compare two")} checked=${choosing !== null} onChange=${(on) => setChoosing(on ? [] : null)} />
    </header>
    ${choosing && html`<p class="hint" role="status">${choosing.length ? t("Now choose the second picture.") : t("Choose the first picture.")}</p>`}
    ${gallery.pictures && gallery.pictures.length === 0 && html`<${Empty} title=${search || favourite ? t("Nothing found.") : t("No pictures yet.")}><a class="button primary" href="#/create">${t("Draw one")}</a><//>`}
    ${gallery.pictures && html`<ul class="grid">${gallery.pictures.map((picture) => html`<li key=${picture.id} class=${choosing?.some((each) => each.id === picture.id) ? "chosen" : ""}>
      <button type="button" class="open" onClick=${() => pick(picture)} aria-label=${promptText(picture.prompt)}>
        <${Picture} image=${`job:${picture.id}`} url=${picture.url} alt="" loading="lazy" width=${picture.width} height=${picture.height} /></button>
      <${Button} class="love" icon="heart" filled=${picture.favourite} label=${picture.favourite ? t("No favourite any more") : t("Favourite")} aria-pressed=${String(picture.favourite)} onClick=${() => love(picture)} />
      <p>${promptText(picture.prompt)}</p></li>`)}</ul>`}
    ${gallery.next && html`<div class="more"><${Button} kind="secondary" onClick=${gallery.more}>${t("Show more")}<//></div>`}
    ${open && html`<${Viewer} id=${open} onClose=${() => setOpen(null)} onChange=${gallery.again} />`}`;
}
