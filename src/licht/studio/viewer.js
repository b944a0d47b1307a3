// One picture, large: how it was made, and what can be done with it.
import { html, useEffect, useState, Button, Dialog, Notice } from "./ui.js";
import { call, fileOf, get, save } from "./api.js";
import { draft, pair } from "./state.js";
import { said } from "./said.js";
import { t } from "./text.js";
import { addReference, complain, editPicture, reuse, submit } from "./jobs.js";
import { DeleteButton, entryOf, Picture, promptText } from "./pictures.js";
import { Diff } from "./diff.js";
import { seconds } from "./plan.js";

const SUFFIX = { png: "png", jpeg: "jpg", webp: "webp" };
const NAMES = { png: "PNG", jpeg: "JPEG", webp: "WebP" };
const SEEDS = 2 ** 32;

function Facts({ picture }) {
  const rows = [
    [t("Model"), picture.model],
    [t("Weights"), picture.weights],
    [t("Seed"), picture.seed],
    [t("Size"), `${picture.width} × ${picture.height}`],
    [t("Steps"), picture.steps],
    [t("Guidance"), picture.guidance],
    [t("Took"), picture.duration === null ? null : seconds(picture.duration)],
    [t("Cost"), t("{n} credits", { n: picture.cost })],
    [t("Drawn"), new Date(picture.created_at * 1000).toLocaleString()],
  ].filter(([, value]) => value !== null && value !== undefined);
  return html`<dl class="facts">${rows.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

/** The file as it was signed, or the same pixels as another kind of file, signed anew with the first as its parent. */
function Download({ picture }) {
  const own = picture.media_type.replace("image/", "");
  const take = (format) => async () => {
    try {
      save(await fileOf(picture.id, format === own ? null : format), `licht-${picture.seed}.${SUFFIX[format]}`);
    } catch (error) {
      complain(error);
    }
  };
  const others = Object.keys(SUFFIX).filter((format) => format !== own);
  return html`<div class="download"><${Button} kind="primary" icon="download" onClick=${take(own)}>${t("Download {format}", { format: NAMES[own] })}<//>
    ${others.map((format) => html`<${Button} key=${format} aria-label=${t("Download {format}", { format: NAMES[format] })} onClick=${take(format)}>${NAMES[format]}<//>`)}</div>`;
}

export function Viewer({ id, onClose, onChange = () => {} }) {
  const [picture, setPicture] = useState(null);
  const [diff, setDiff] = useState(false);
  useEffect(() => { get(`/v1/gallery/${id}`).then(setPicture).catch((error) => { complain(error); onClose(); }); }, [id]);
  if (!picture) return null;
  const leave = (action) => () => { action(); onClose(); };
  const favourite = async () => {
    try {
      setPicture({ ...picture, ...(await call(picture.favourite ? "DELETE" : "PUT", `/v1/gallery/${id}/favourite`)), recipe: picture.recipe });
      onChange();
    } catch (error) {
      complain(error);
    }
  };
  const vary = async () => {
    try {
      await submit({ ...picture.recipe, seed: Math.floor(Math.random() * SEEDS), previews: true });
      location.hash = "#/create";
      onClose();
    } catch (error) {
      complain(error);
    }
  };
  const text = promptText(picture.recipe?.prompt ?? picture.prompt);
  const hold = () => { pair.set((now) => (now.length === 1 && now[0].id !== id ? [now[0], picture] : [picture])); };
  return html`<${Dialog} title=${t("Picture")} onClose=${onClose} wide class="viewer">
    <div class="viewer-sides">
      <div class="viewer-picture"><${Picture} image=${`job:${id}`} alt=${text} style=${{ aspectRatio: `${picture.width} / ${picture.height}`, maxWidth: `calc((100dvh - 150px) * ${picture.width / picture.height})` }} /></div>
      <div class="viewer-facts">
        <p class="prompt-text">${text}</p>
        <div class="actions">
          <${Button} icon="heart" filled=${picture.favourite} label=${picture.favourite ? t("No favourite any more") : t("Favourite")} aria-pressed=${String(picture.favourite)} onClick=${favourite} />
          <${Button} icon="reference" onClick=${leave(() => { addReference(entryOf(picture)); location.hash = "#/create"; })}>${t("Use as reference")}<//>
          <${Button} icon="edit" onClick=${leave(() => editPicture(entryOf(picture)))}>${t("Edit this")}<//>
          <${Button} icon="dice" onClick=${vary}>${t("Vary seed")}<//>
          <${Button} icon="reuse" onClick=${leave(() => reuse(picture.recipe))}>${t("Use its settings")}<//>
          <${Button} icon="compare" onClick=${leave(hold)}>${t("Compare")}<//>
          <${Button} icon="braces" aria-pressed=${String(diff)} onClick=${() => setDiff(!diff)}>${t("Differs from my prompt")}<//>
        </div>
        ${diff && html`<${Diff} before=${text} after=${draft.get().mode === "prose" ? draft.get().prompt : draft.get().json} />`}
        ${picture.warnings.map((warning) => html`<${Notice} kind="warning" key=${warning}>${said(warning)}<//>`)}
        <${Facts} picture=${picture} />
        <${Download} picture=${picture} />
        <${DeleteButton} id=${id} kind="danger" onGone=${leave(onChange)}>${t("Delete")}<//>
      </div>
    </div>
  <//>`;
}
