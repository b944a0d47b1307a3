// The structured prompt: form and JSON side by side, both live.
import { html, useEffect, useMemo, useState, Button, Dialog, Field } from "./ui.js";
import { get, post, session } from "./api.js";
import { draft, replace, useStore } from "./state.js";
import { said } from "./said.js";
import { t } from "./text.js";
import { complain } from "./jobs.js";
import { TEMPLATES } from "./samples.js";
import { Diff } from "./diff.js";
import { promptText } from "./pictures.js";

const HEX = /^#[0-9a-f]{6}$/i;
const CAMERA = () => [["angle", t("Angle")], ["distance", t("Distance")], ["focus", t("Focus")], ["lens-mm", t("Lens (mm)")], ["f-number", t("Aperture")], ["ISO", "ISO"]];
const SUBJECT = () => [["type", t("What")], ["description", t("Description")], ["position", t("Where")], ["pose", t("Pose")], ["action", t("Doing what")]];
const LETTERS = () => [["content", t("Words")], ["font", t("Lettering")], ["place", t("Place")], ["color", t("Colour")]];
const LINES = () => [["style", t("Style")], ["lighting", t("Light")], ["background", t("Background")], ["composition", t("Composition")], ["mood", t("Mood")]];

function parse(text) {
  if (!text.trim()) return [{}, null];
  try {
    const value = JSON.parse(text);
    return value && typeof value === "object" && !Array.isArray(value) ? [value, null] : [null, t("A structured prompt is one JSON object.")];
  } catch (error) {
    return [null, error.message];
  }
}

const blank = (value) => value === "" || value === null || value === undefined || (typeof value === "object" && Object.keys(value).length === 0);
const clean = (value) => Object.fromEntries(Object.entries(value).filter(([, each]) => !blank(each)));
const write = (value) => draft.change({ json: JSON.stringify(value, null, 2) });
/** The same where it takes the place of something that was typed. */
const overwrite = (value) => {
  const changes = { json: JSON.stringify(value, null, 2) };
  if (draft.get().json.trim()) replace(draft, changes, t("The structured prompt was replaced."));
  else draft.change(changes);
};
const list = (value) => (Array.isArray(value) ? value : blank(value) ? [] : [value]);

export function useStructured() {
  const now = useStore(draft);
  return {
    summary: now.json.trim(),
    toggle(on) {
      const json = on && !now.json.trim() && now.prompt.trim() ? JSON.stringify({ scene: now.prompt.trim() }, null, 2) : now.json;
      draft.change({ mode: on ? "structured" : "prose", json });
    },
  };
}

/** Where an error of the service belongs: `subjects.0.colors`. */
const at = (error, path) => (error && error.field && (error.field === path || error.field === `prompt.${path}`) ? said(error.message) : null);

function Text({ label, value, path, error, onChange, area }) {
  return html`<${Field} label=${label} error=${at(error, path)}>${(field) => (area
    ? html`<textarea rows="2" ...${field} value=${value ?? ""} onInput=${(event) => onChange(event.target.value)}></textarea>`
    : html`<input ...${field} value=${value ?? ""} onInput=${(event) => onChange(event.target.value)} />`)}<//>`;
}

/** What a colour well shows for a name: the browser knows "red" and "teal" itself. */
function hexOf(color) {
  if (HEX.test(color)) return color;
  const context = document.createElement("canvas").getContext("2d");
  context.fillStyle = "#888888";
  context.fillStyle = color;
  return context.fillStyle;
}

/** Colours: a well for each, and its number or name beside it. */
function Colors({ label, colors, path, error, onChange }) {
  const set = (index, color) => onChange(colors.map((each, other) => (other === index ? color : each)));
  const wrong = error?.field?.replace(/^prompt\./, "").startsWith(path) ? said(error.message) : null;
  return html`<fieldset class="colors"><legend>${label}</legend>
    <div class="wells">${colors.map((color, index) => html`<span class="well" key=${index}>
      <input type="color" aria-label=${t("{label} {n}: pick", { label, n: index + 1 })} value=${hexOf(color)} onInput=${(event) => set(index, event.target.value)} />
      <input class="hex" aria-label=${t("{label} {n}", { label, n: index + 1 })} value=${color} onInput=${(event) => set(index, event.target.value)} />
      <${Button} icon="close" label=${t("Remove {label} {n}", { label, n: index + 1 })} onClick=${() => onChange(colors.filter((_, other) => other !== index))} /></span>`)}
      <${Button} icon="plus" onClick=${() => onChange([...colors, "#c98b3a"])}>${t("Add a colour")}<//></div>
    ${wrong && html`<p class="error">${wrong}</p>`}
  </fieldset>`;
}

/** A list of cards of one kind. */
function Cards({ name, title, one, add, fields, value, error, onChange, colors }) {
  const items = list(value[name]);
  const set = (index, changes) => onChange({ ...value, [name]: items.map((each, other) => (other === index ? clean({ ...each, ...changes }) : each)) });
  return html`<section class="cards"><h3>${title}</h3>
    ${items.map((item, index) => html`<fieldset class="subcard" key=${index}><legend>${one} ${index + 1}</legend>
      <div class="grid2">${fields.map(([key, label]) => html`<${Text} key=${key} label=${label} value=${item[key]} path=${`${name}.${index}.${key}`} error=${error} onChange=${(text) => set(index, { [key]: text })} />`)}</div>
      ${colors && html`<${Colors} label=${t("Colour")} colors=${list(item.colors)} path=${`${name}.${index}.colors`} error=${error} onChange=${(next) => set(index, { colors: next })} />`}
      <${Button} icon="trash" onClick=${() => onChange({ ...value, [name]: items.filter((_, other) => other !== index) })}>${t("Remove")}<//>
    </fieldset>`)}
    <${Button} icon="plus" onClick=${() => onChange({ ...value, [name]: [...items, name === "texts" ? { content: "LICHT" } : { type: "sphere" }] })}>${add}<//>
  </section>`;
}

function Form({ value, error }) {
  const change = (next) => write(clean(next));
  const set = (name) => (text) => change({ ...value, [name]: text });
  return html`<div class="structured-form">
    <${Text} label=${t("Scene")} value=${value.scene} path="scene" error=${error} area onChange=${set("scene")} />
    <${Cards} name="subjects" title=${t("Subjects")} one=${t("Subject")} add=${t("Add a subject")} fields=${SUBJECT()} value=${value} error=${error} onChange=${change} colors />
    <div class="grid2">${LINES().map(([name, label]) => html`<${Text} key=${name} label=${label} value=${value[name]} path=${name} error=${error} onChange=${set(name)} />`)}</div>
    <${Colors} label=${t("Palette")} colors=${list(value.color_palette)} path="color_palette" error=${error} onChange=${(next) => change({ ...value, color_palette: next })} />
    <fieldset class="subcard"><legend>${t("Camera")}</legend><div class="grid3">
      ${CAMERA().map(([name, label]) => html`<${Text} key=${name} label=${label} value=${value.camera?.[name]} path=${`camera.${name}`} error=${error} onChange=${(text) => change({ ...value, camera: clean({ ...value.camera, [name]: text }) })} />`)}
    </div></fieldset>
    <${Cards} name="texts" title=${t("Words in the picture")} one=${t("Text")} add=${t("Add words")} fields=${LETTERS()} value=${value} error=${error} onChange=${change} />
  </div>`;
}

function DiffWith({ current }) {
  const [prompts, setPrompts] = useState([]);
  const [chosen, setChosen] = useState("");
  useEffect(() => { get("/v1/gallery?limit=40").then((told) => setPrompts(told.pictures)).catch(complain); }, []);
  const other = prompts.find((picture) => picture.id === chosen);
  const plain = (text) => {
    try {
      return JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      return text;
    }
  };
  return html`<div class="difference">
    <${Field} label=${t("Compare with the prompt of")}>${(field) => html`<select ...${field} value=${chosen} onChange=${(event) => setChosen(event.target.value)}>
      <option value="">${t("choose a picture")}</option>
      ${prompts.map((picture) => html`<option key=${picture.id} value=${picture.id}>${promptText(picture.prompt).slice(0, 80)}</option>`)}</select>`}<//>
    ${other && html`<${Diff} before=${plain(promptText(other.prompt))} after=${current} />`}
  </div>`;
}

export function StructuredEditor({ error, onClose }) {
  const { json, prompt } = useStore(draft);
  const { about } = useStore(session);
  const [asking, setAsking] = useState(false);
  const convert = async () => {
    setAsking(true);
    try {
      overwrite((await post("/v1/prompts/structured", { prompt: prompt.trim() })).prompt);
    } catch (caught) {
      complain(caught);
    } finally {
      setAsking(false);
    }
  };
  const [value, broken] = useMemo(() => parse(json), [json]);
  const [shown, setShown] = useState(value || {});
  const [diff, setDiff] = useState(false);
  // while the JSON is broken, the form keeps what it showed last
  useEffect(() => { if (value) setShown(value); }, [value]);
  const told = broken || (error && error.field !== "model" ? said(error.message) : null);
  return html`<${Dialog} title=${t("Structured prompt")} onClose=${onClose} wide class="structured" actions=${html`<${Button} kind="primary" onClick=${onClose}>${t("Done")}<//>`}>
    <div class="toolbar">
      <label>${t("Template")} <select value="" onChange=${(event) => event.target.value && overwrite(TEMPLATES[Number(event.target.value)][1])}>
        <option value="">${t("choose")}</option>${TEMPLATES.map(([name], index) => html`<option key=${name} value=${index}>${t(name)}</option>`)}</select></label>
      ${prompt.trim() && html`<${Button} icon="reuse" onClick=${() => write({ ...shown, scene: prompt.trim() })}>${t("Scene from my text")}<//>`}
      ${prompt.trim() && about?.upsampling && html`<${Button} icon="wand" disabled=${asking} onClick=${convert}>${asking ? t("Thinking …") : t("Structure my text")}<//>`}
      <${Button} icon="compare" aria-pressed=${String(diff)} onClick=${() => setDiff(!diff)}>${t("Differences")}<//>
    </div>
    <div class="structured-sides">
      <${Form} value=${shown} error=${error} />
      <div class="json">
        <${Field} label="JSON" error=${told}>${(field) => html`<textarea class="code" spellcheck=${false} rows="24" ...${field} value=${json} onInput=${(event) => draft.change({ json: event.target.value })}></textarea>`}<//>
        ${diff && html`<${DiffWith} current=${json} />`}
      </div>
    </div>
  <//>`;
}
