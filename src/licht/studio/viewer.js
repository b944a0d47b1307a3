// One picture, large: how it was made, and what can be done with it.
import { html, useEffect, useState, Button, Dialog, Notice } from "./ui.js";
import { call, fileOf, get, save } from "./api.js";
import { draft, pair, toast } from "./state.js";
import { t } from "./text.js";
import { addReference, complain, editPicture, remove, reuse, submit } from "./jobs.js";
import { entryOf, Picture, promptText } from "./pictures.js";
import { Diff } from "./diff.js";
import { seconds } from "./create.js";

const SUFFIX = { "image/png": "png", "image/jpeg": "jpg", "image/webp": "webp" };
const FORMATS = [["png", "PNG"], ["jpeg", "JPEG"], ["webp", "WebP"]];
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

/** The file as it is; another format is drawn again from the same recipe, so that its credentials are its own. */
function Download({ picture }) {
  const own = picture.media_type.replace("image/", "");
  const take = async () => {
    try {
      save(await fileOf(picture.id), `licht-${picture.seed}.${SUFFIX[picture.media_type]}`);
    } catch (error) {
      complain(error);
    }
  };
  const again = async (format) => {
    try {
      await submit({ ...picture.recipe, output_format: format });
      toast.set({ kind: "info", text: t("It is drawn again as {format}, with the same seed and its own credentials.", { format: format.toUpperCase() }) });
    } catch (error) {
      complain(error);
    }
  };
  return html`<div class="download"><${Button} kind="primary" icon="download" onClick=${take}>${t("Download {format}", { format: own.toUpperCase() })}<//>
    ${picture.recipe && FORMATS.filter(([format]) => format !== own).map(([format, name]) => html`<${Button} key=${format} title=${t("Draws it again in this format")} onClick=${() => again(format)}>${name}<//>`)}</div>`;
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
  const erase = async () => {
    try {
      await remove(id);
      onChange();
      onClose();
    } catch (error) {
      complain(error);
    }
  };
  const text = promptText(picture.recipe?.prompt ?? picture.prompt);
  const hold = () => { pair.set((now) => (now.length === 1 && now[0].id !== id ? [now[0], picture] : [picture])); };
  return html`<${Dialog} title=${t("Picture")} onClose=${onClose} wide class="viewer">
    <div class="viewer-sides">
      <div class="viewer-picture"><${Picture} image=${`job:${id}`} alt=${text} style=${{ aspectRatio: `${picture.width} / ${picture.height}` }} /></div>
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
        ${picture.warnings.map((warning) => html`<${Notice} kind="warning" key=${warning}>${warning}<//>`)}
        <${Facts} picture=${picture} />
        <${Download} picture=${picture} />
        <${Button} icon="trash" kind="danger" onClick=${erase}>${t("Delete")}<//>
      </div>
    </div>
  <//>`;
}
