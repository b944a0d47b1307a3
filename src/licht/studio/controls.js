// What else a picture is asked with: model, shape, size, seed, number, and what only some models take.
import { html, Button, Choice, Field, Range } from "./ui.js";
import { session } from "./api.js";
import { draft, useStore } from "./state.js";
import { ASPECTS, aspectOf, sizeOf, usualMegapixels } from "./jobs.js";
import { t } from "./text.js";

const MEGAPIXELS = [0.015625, 0.0625, 0.25, 0.5, 1, 2, 4];
const SEEDS = 2 ** 32;
/** Names that other programs need, and that show nothing new to a person. */
const ALIASES = /preview|kontext|^flux-dev$|^flux-pro/;

const TIERS = () => ({
  "flux-2-pro": t("balanced"),
  "flux-2-max": t("best of several"),
  "flux-2-flex": t("your steps and guidance"),
  "flux-2-dev": t("free"),
  "flux-2-klein-4b": t("fastest"),
  "flux-2-klein-9b": t("fast"),
});

export function modelNames(about, current) {
  const names = Object.keys(about?.tiers || {}).filter((name) => !ALIASES.test(name));
  return names.includes(current) || !current ? names : [...names, current];
}

export function ModelSelect({ value, onChange, label, field = {} }) {
  const { about } = useStore(session);
  const told = TIERS();
  return html`<select ...${field} aria-label=${label} value=${value} onChange=${(event) => onChange(event.target.value)}>
    ${modelNames(about, value).map((name) => html`<option key=${name} value=${name}>${name.replace("flux-2-", "")}${told[name] ? ` · ${told[name]}` : ""}</option>`)}
  </select>`;
}

const shape = (aspect) => {
  const [across, down] = aspect.split(":").map(Number);
  const longest = Math.max(across, down);
  return html`<i class="shape" style=${{ width: `${(across / longest) * 16}px`, height: `${(down / longest) * 16}px` }}></i>`;
};

/** `before` are further options, as `Choice` takes them. */
export function ShapeChoice({ value, onChange, before = [] }) {
  const options = [...before, ...ASPECTS.map((each) => [each, each, shape(each)])];
  return html`<${Choice} label=${t("Shape")} value=${value} options=${options} onChange=${onChange} class="shapes" />`;
}

export function Controls({ errors }) {
  const now = useStore(draft);
  const { about } = useStore(session);
  const megapixels = now.megapixels ?? usualMegapixels(about);
  const aspect = aspectOf(now);
  const size = aspect === "auto" ? null : sizeOf(aspect, megapixels);
  const set = (name) => (value) => draft.change({ [name]: value });
  const number = (name) => (event) => draft.change({ [name]: event.target.value === "" ? null : Number(event.target.value) });
  const tier = about?.tiers[now.model];
  const before = now.references.length ? [["auto", t("as the reference"), null]] : [];
  return html`<section class="controls" aria-label=${t("Settings")}>
    <${Field} label=${t("Model")} error=${errors.model}>${(field) => html`<${ModelSelect} field=${field} value=${now.model} onChange=${set("model")} />`}<//>
    ${!now.start && html`<${ShapeChoice} value=${aspect} onChange=${set("aspect")} before=${before} />`}
    ${!now.start && size && html`<${Range} label=${t("Size")} min=${0} max=${MEGAPIXELS.length - 1} step=${1} value=${Math.max(0, MEGAPIXELS.indexOf(megapixels))}
      shown=${`${size.width} × ${size.height}`} onChange=${(index) => draft.change({ megapixels: MEGAPIXELS[index] })} />`}
    ${errors.width && html`<p class="error">${errors.width}</p>`}
    <div class="pair">
      <${Field} label=${t("Pictures")} error=${errors.num}>${(field) => html`<input type="number" min="1" max="10" ...${field} value=${now.num} onInput=${(event) => draft.change({ num: Math.min(10, Math.max(1, Number(event.target.value) || 1)) })} />`}<//>
      <${Field} label=${t("Seed")} error=${errors.seed} class="seed">${(field) => html`<div class="joined">
        <input type="number" min="0" ...${field} value=${now.seed ?? ""} placeholder=${t("random")} onInput=${(event) => draft.change({ seed: event.target.value === "" ? null : Number(event.target.value), seedLocked: event.target.value !== "" })} />
        <${Button} icon="dice" label=${t("Another seed")} onClick=${() => draft.change({ seed: Math.floor(Math.random() * SEEDS) })} />
        <${Button} icon=${now.seedLocked ? "lock" : "unlock"} label=${now.seedLocked ? t("Seed is kept: let it change") : t("Seed changes: keep it")} aria-pressed=${String(now.seedLocked)}
          onClick=${() => draft.change({ seedLocked: !now.seedLocked, seed: now.seed ?? Math.floor(Math.random() * SEEDS) })} />
      </div>`}<//>
    </div>
    <details>
      <summary>${t("More settings")}</summary>
      <div class="pair">
        <${Field} label=${t("Steps")} error=${errors.steps} hint=${tier?.steps ? t("usually {n}", { n: tier.steps }) : null}>${(field) => html`<input type="number" min="1" max="50" ...${field} value=${now.steps ?? ""} placeholder=${t("automatic")} onInput=${number("steps")} />`}<//>
        <${Field} label=${t("Guidance")} error=${errors.guidance}>${(field) => html`<input type="number" min="1" max="100" step="0.5" ...${field} value=${now.guidance ?? ""} placeholder=${t("automatic")} onInput=${number("guidance")} />`}<//>
      </div>
      <div class="pair">
        <${Field} label=${t("Finish")}>${(field) => html`<select ...${field} value=${now.finish} onChange=${(event) => draft.change({ finish: event.target.value })}>
          <option value="none">${t("none")}</option><option value="phone">${t("phone")}</option><option value="film">${t("film")}</option></select>`}<//>
        <${Field} label=${t("File")}>${(field) => html`<select ...${field} value=${now.format} onChange=${(event) => draft.change({ format: event.target.value })}>
          <option value="png">PNG</option><option value="jpeg">JPEG</option><option value="webp">WebP</option></select>`}<//>
      </div>
    </details>
  </section>`;
}
